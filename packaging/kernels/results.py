"""What came out of the VMs: one Run a kernel, read from the lines that a VM writes while it works.

Lines of progress, in this order (`at` says which): `booted`; `probes` and its list; `collected` and the names of the
tests; for each test `started`, then `ended`; at last `finished`. A line that is missing tells where a VM stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a test ended; `CUT_OFF` is one that had started when the VM stopped, `NOT_RUN` one that had not."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CUT_OFF = "cut off"
    NOT_RUN = "not run"


class State(StrEnum):
    """How far a kernel came."""

    NOT_HAD = "not had"
    """No image, or no time left: nothing was started."""

    NOT_BOOTED = "not booted"
    """The VM was started, but no program of the tests ran in it."""

    CUT_OFF = "cut off"
    """The tests ran, but not to their end: the kernel crashed, hung, or took too long."""

    OUT_OF_TIME = "out of time"
    """The tests ran well, but the time for all kernels was over before their end."""

    RAN = "ran"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One test on one kernel; `why` holds the reason of a skip or the whole text of a failure."""

    name: str
    outcome: Outcome
    seconds: float = 0.0
    why: str = ""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """How one signal is heard there; an empty rung is none."""

    signal: str
    state: str
    rung: str
    reason: str


@dataclass(frozen=True, slots=True)
class Run:
    """All that is known of one kernel. Times are seconds from the start of the VM, or None where it did not get there."""

    kernel: str
    release: str
    state: State
    why: str = ""
    boot_s: float | None = None
    total_s: float = 0.0
    tests: tuple[Verdict, ...] = ()
    probes: tuple[ProbeResult, ...] = ()
    console: str = ""

    def count(self, outcome: Outcome) -> int:
        """How many tests ended so."""
        return sum(test.outcome is outcome for test in self.tests)

    @property
    def tests_s(self) -> float:
        """Seconds spent in tests."""
        return sum(test.seconds for test in self.tests)

    @property
    def has_failed(self) -> bool:
        """Whether the tree has to answer for this run. A run in which no test passed has shown nothing: it failed."""
        if self.state is State.CUT_OFF or self.count(Outcome.FAILED):
            return True
        return self.state is State.RAN and (self.count(Outcome.PASSED) == 0 or any(map(_is_bad, self.tests)))


@dataclass(slots=True)
class Progress:
    """What a VM has told so far."""

    booted_s: float | None = None
    probes: list[ProbeResult] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    running: str = ""
    finished: bool = False
    collection_error: str = ""

    def hear(self, line: dict[str, Any], now_s: float) -> None:
        """Takes one line of progress, heard `now_s` seconds after the start of the VM."""
        match line["at"]:
            case "booted":
                self.booted_s = now_s
            case "probes":
                self.probes = [_probe(item) for item in line["probes"]]
            case "collected":
                self.names = line["tests"]
            case "started":
                self.running = line["test"]
            case "ended":
                self._end(line)
            case "not collected":
                self.collection_error = line["why"]
            case "finished":
                self.finished = True

    def tests(self) -> tuple[Verdict, ...]:
        """Every test, those too that the VM did not come to."""
        return tuple(self.verdicts.get(name) or self._unended(name) for name in self.names)

    def _end(self, line: dict[str, Any]) -> None:
        result = Verdict(line["test"], Outcome(line["outcome"]), line["seconds"], line["why"])
        self.verdicts[result.name] = result
        self.running = ""

    def _unended(self, name: str) -> Verdict:
        return Verdict(name, Outcome.CUT_OFF if name == self.running else Outcome.NOT_RUN)


def parse_lines(text: str) -> Iterable[dict[str, Any]]:
    """The lines of progress in a text; one that is not whole yet is left out."""
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def _is_bad(test: Verdict) -> bool:
    return test.outcome not in (Outcome.PASSED, Outcome.SKIPPED)


def _probe(item: dict[str, Any]) -> ProbeResult:
    return ProbeResult(item["signal"], item["state"], item["rung"], item["reason"])
