"""What a signal has brought and what it costs: records, losses, nanoseconds an event. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.kernel.ladder import Probe


@dataclass(frozen=True, slots=True)
class Counts:
    """Records of one kind since the start: sent by the kernel, and lost because the buffer was full."""

    sent: int
    lost: int


@dataclass(frozen=True, slots=True)
class RunTime:
    """One program by the kernel's run-time statistics, which count only while they are switched on.

    `missed` are events that found the program already running on their CPU; the kernel counts them always.
    """

    ns: int
    runs: int
    missed: int


@dataclass(frozen=True, slots=True)
class Figures:
    """One signal. `records` is None for a signal that has no records of its own, `ns_per_event` while nothing counts."""

    records: int | None
    lost: int | None
    runs: int
    ns_per_event: float | None


def parse_run_time(descriptor: Mapping[str, str]) -> RunTime:
    """The statistics in a program's fdinfo; a kernel that leaves one out counts as zero."""
    ns, runs, missed = (int(descriptor.get(name, 0)) for name in ("run_time_ns", "run_cnt", "recursion_misses"))
    return RunTime(ns, runs, missed)


def figures_of(probe: Probe, counts: Mapping[str, Counts], run_times: Mapping[str, RunTime]) -> Figures:
    """The figures of one probe from the counts of all kinds and the run times of all programs."""
    own = [run_times[program] for program in probe.programs if program in run_times]
    runs, missed = sum(one.runs for one in own), sum(one.missed for one in own)
    count = counts.get(probe.signal)
    return Figures(
        records=None if count is None else count.sent,
        lost=None if count is None and not own else missed + (count.lost if count is not None else 0),
        runs=runs,
        ns_per_event=round(sum(one.ns for one in own) / runs, 1) if runs else None,
    )
