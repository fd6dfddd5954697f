"""In the VM: says how each signal is heard, then runs pytest and writes a line of progress at each step.

`run_tests.py PROGRESS_FILE TEST_LIMIT_S PYTEST_ARGUMENTS…`. results.py explains the lines.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Only what the tests need: each further plugin is imported at a tenth of the usual speed.
PLUGINS = ["--disable-plugin-autoload", "-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider"]
# pyproject.toml sets the limit of a fast machine; Reporter has the one of this machine.
NO_LIMIT = ["-p", "pytest_timeout", "--timeout=0"]
KILL_AFTER_LIMITS = 1.5


class KernelLog:
    """What the kernel logs from `mark` on; nothing where its log cannot be read."""

    def __init__(self) -> None:
        try:
            self._log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._log = -1

    def mark(self) -> None:
        """Forgets what was logged before."""
        if self._log >= 0:
            os.lseek(self._log, 0, os.SEEK_END)

    def lines(self) -> Iterator[str]:
        """Each message since, without its numbers."""
        while self._log >= 0:
            try:
                record = os.read(self._log, 8192)
            except BlockingIOError:
                return
            except BrokenPipeError:
                continue  # The kernel has written over messages that were not read yet; the next read goes on behind.
            yield record.decode(errors="replace").partition(";")[2].partition("\n")[0]


class Reporter:
    """A pytest plugin: tells progress, and ends a test that takes longer than `limit_s`."""

    def __init__(self, progress: Path, limit_s: float) -> None:
        self._progress = progress
        self._limit_s = limit_s
        self._reports: list[pytest.TestReport] = []
        self._kernel_log = KernelLog()
        # pytest puts its own file in the place of stderr while a test runs.
        self._console = os.dup(2)
        signal.signal(signal.SIGALRM, self._stop_test)

    def tell(self, at: str, **facts: Any) -> None:
        """Appends a line; it is on the host's disk when this returns."""
        with self._progress.open("a") as file:
            file.write(json.dumps({"at": at, **facts}) + "\n")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.tell("collected", tests=[item.nodeid for item in session.items])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.tell("not collected", why=report.longreprtext)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._reports = []
        self._kernel_log.mark()
        self.tell("started", test=item.nodeid)
        signal.setitimer(signal.ITIMER_REAL, self._limit_s)
        # A test that is deaf to its alarm takes pytest with it; the tests behind it are then told as not run.
        faulthandler.dump_traceback_later(self._limit_s * KILL_AFTER_LIMITS, exit=True, file=self._console)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.tell("ended", test=item.nodeid, **_summary(self._reports, self._kernel_log))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.append(report)

    def _stop_test(self, *_: object) -> None:
        pytest.fail(f"took longer than its limit of {self._limit_s:g} s")


def _summary(reports: list[pytest.TestReport], kernel_log: KernelLog) -> dict[str, Any]:
    seconds = round(sum(report.duration for report in reports), 2)
    bad = [report for report in reports if report.failed]
    if bad:
        logged = list(kernel_log.lines())
        log = ["--- the kernel's log during the test ---", *logged] if logged else []
        return {"outcome": "failed", "seconds": seconds, "why": "\n".join([*map(_whole_text, bad), *log])}
    skips = [report for report in reports if report.skipped]
    if skips:
        return {"outcome": "skipped", "seconds": seconds, "why": _reason(skips[0])}
    return {"outcome": "passed", "seconds": seconds, "why": ""}


def _whole_text(report: pytest.TestReport) -> str:
    captured = "\n".join(f"--- {title} ---\n{text}" for title, text in report.sections)
    return f"{report.longreprtext}\n{captured}".strip()


def _reason(report: pytest.TestReport) -> str:
    """Of a skip, without the place; of an expected failure, its reason."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return f"expected to fail: {getattr(report, 'wasxfail', '')}"


def _probes() -> list[dict[str, Any]]:
    """What `reflexd probes` says; one line that says why where it says nothing."""
    asked = subprocess.run(
        [sys.executable, "-m", "agent", "probes", "--json"], capture_output=True, text=True, check=False
    )
    try:
        probes: list[dict[str, Any]] = json.loads(asked.stdout)
    except json.JSONDecodeError:
        reason = f"reflexd probes ended with {asked.returncode}: {asked.stderr.strip()}"
        return [{"signal": "all", "state": "unknown", "rung": "", "reason": reason}]
    return probes


def main(arguments: list[str]) -> int:
    """pytest's exit code."""
    reporter = Reporter(Path(arguments[0]), float(arguments[1]))
    reporter.tell("probes", probes=_probes())
    code = pytest.main([*PLUGINS, *NO_LIMIT, *arguments[2:]], plugins=[reporter])
    reporter.tell("finished", exit=int(code))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
