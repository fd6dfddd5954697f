"""Says on a terminal, or line by line in a log, how far the VMs are."""

from __future__ import annotations

from typing import TextIO

from results import Outcome, Progress

LOG_EVERY_S = 15.0


class TerminalNarrator:
    """On a terminal one line is written over; elsewhere a line tells each new test, or that time passes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._last_line = ""
        self._last_tell_s = 0.0

    def note(self, text: str) -> None:
        """A line that stays."""
        print(f"{self._clear()}{text}", file=self._out, flush=True)

    def tell(self, kernel: str, progress: Progress, elapsed_s: float) -> None:
        """What goes on in a VM now."""
        line = f"  … {kernel}: {_stage(progress)}"
        if self._is_terminal:
            print(f"{self._clear()}{line}, {elapsed_s:.0f} s", end="", file=self._out, flush=True)
        elif line != self._last_line or not 0 <= elapsed_s - self._last_tell_s < LOG_EVERY_S:
            print(f"{line}, {elapsed_s:.0f} s", file=self._out, flush=True)
            self._last_line, self._last_tell_s = line, elapsed_s

    def _clear(self) -> str:
        return "\r\x1b[K" if self._is_terminal else ""


def _stage(progress: Progress) -> str:
    if progress.booted_s is None:
        return "booting"
    if not progress.names:
        return "asking for probes" if not progress.probes else "loading tests"
    failed = sum(test.outcome is Outcome.FAILED for test in progress.verdicts.values())
    number = len(progress.verdicts) + (1 if progress.running else 0)
    name = progress.running.removeprefix("tests/kernel/") or "ending"
    return f"test {number} of {len(progress.names)}{f' ({failed} failed)' if failed else ''}: {name}"
