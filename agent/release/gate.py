"""Judges a release by what was seen of it, against the one before it on the same host. Pure.

What is not known decides nothing. A verdict names each reason with both figures; "no change found" is a verdict too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Literal

from agent.wire.app import Watch

FAULTS = frozenset(
    ("kernel_oom", "kernel_kill", "master_timeout", "crash_signal", "boot_error", "app_load_error", "error_exit")
)
"""Deaths that a release can be guilty of; who is killed by a person is not."""

BAD_EVENTS = frozenset(("worker.boot_hung", "worker.stuck", "worker.threads_stuck"))
JOB_EVENTS = frozenset(("celery.task_lost", "celery.task_poisonous", "celery.consumer_silent"))
BAD_IN_A_ROW = 3
LEAST_ANSWERS = 10
LEAST_REQUESTS = 200
LEAST_WAITS_S = 10
LEAST_GROWTH = 32 * 1024 * 1024
SETTLED_S = 15.0
"""Memory and CPU of the first moments are those of the start."""

MEMORY_WINDOW_S = 10.0
LEAST_BACKLOG = 50

State = Literal["worse", "same", "unknown"]


@dataclass(frozen=True, slots=True)
class Second:
    """What one service did within one second. Memory is that of its workers, CPU time theirs since their start, in total."""

    at_s: float
    memory_bytes: float | None = None
    workers: int = 0
    cpu_s: float | None = None
    accepts: float = 0.0
    wait_p99_ms: float | None = None
    overflows: float = 0.0


@dataclass(frozen=True, slots=True)
class Probed:
    """One answer to the health check; `trouble` is empty for a good one."""

    at_s: float
    took_ms: float
    trouble: str


@dataclass(slots=True)
class Seen:
    """What was seen of one service over some time; `faults` are sentences, of deaths and of what else went wrong."""

    service: str
    began_s: float
    seconds: list[Second] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    probes: list[Probed] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reasons` say why it is worse; `compared` what was compared, with the figures of both releases."""

    state: State
    reasons: tuple[str, ...]
    compared: tuple[str, ...]


def judge(before: Seen | None, after: Seen, watch: Watch, *, is_over: bool) -> Verdict:
    """What is to be thought of a release now. Before the time is up only what cannot become better by waiting counts."""
    reasons = [*_at_once(before, after, watch), *_memory(before, after, watch)]
    compared: list[str] = []
    if is_over:
        for name, compare in (("latency", _latency), ("wait", _wait), ("CPU", _cpu), ("backlog", _backlog)):
            worse, said = compare(before, after, watch)
            reasons += [worse] if worse else []
            compared += [said] if said else [f"{name}: not enough seen to compare"]
        compared.append(_memory_said(before, after))
    known = any(one.workers or one.accepts for one in after.seconds) or after.probes
    state: State = "worse" if reasons else "same" if known else "unknown"
    return Verdict(state, tuple(reasons), tuple(compared))


def _at_once(before: Seen | None, after: Seen, watch: Watch) -> Iterator[str]:
    usual = 0.0
    if before is not None and before.seconds and after.seconds:
        usual = len(before.faults) * _length(after) / max(_length(before), 1.0)
    if len(after.faults) > watch.deaths + usual:
        yield after.faults[-1].rstrip(".")
    if after.troubles:
        yield after.troubles[-1].rstrip(".")
    bad = [one for one in after.probes if one.trouble]
    row = after.probes[-BAD_IN_A_ROW:]
    if len(row) == BAD_IN_A_ROW and all(one.trouble for one in row):
        yield f"{after.service} {row[-1].trouble}, {BAD_IN_A_ROW} times in a row"
    elif len(after.probes) >= 100 / watch.errors_percent and len(bad) * 100 > watch.errors_percent * len(after.probes):
        yield f"{len(bad)} of {len(after.probes)} health checks of {after.service} failed, the last: it {bad[-1].trouble}"
    lost, lost_before = sum(one.overflows for one in after.seconds), _overflows(before)
    if lost > 0 and before is not None and before.seconds and lost_before == 0:
        yield f"the accept queue of {after.service} was full and turned {lost:.0f} clients away, and never was before"


def _memory(before: Seen | None, after: Seen, watch: Watch) -> Iterator[str]:
    """Memory that grows without rest, and is far beyond what a worker of the release before held."""
    held = [(one.at_s, one.memory_bytes / one.workers) for one in after.seconds if one.memory_bytes and one.workers]
    held = [one for one in held if one[0] >= after.began_s + SETTLED_S / 3]
    if before is None or len(held) < MEMORY_WINDOW_S or held[-1][0] - held[0][0] < MEMORY_WINDOW_S:
        return
    usual = _memory_each(before)
    part = max(len(held) // 4, 1)
    quarters = [median(value for _, value in held[place : place + part]) for place in range(0, part * 4, part)]
    now = quarters[-1]
    rises = all(later > earlier * 1.01 for earlier, later in pairwise(quarters))
    if usual and rises and now > usual * watch.memory_ratio and now - usual > LEAST_GROWTH:
        slope = (quarters[-1] - quarters[0]) / (held[-1][0] - held[0][0]) / 0.75
        yield (
            f"a worker of {after.service} holds {_mb(now)} and grows by {_mb(slope)} a second without rest; "
            f"one of the release before held {_mb(usual)}"
        )


def _memory_said(before: Seen | None, after: Seen) -> str:
    then, now = _memory_each(before), _memory_each(after)
    if not then or not now:
        return "memory: not enough seen to compare"
    return f"memory of a worker: {_mb(then)} before, {_mb(now)} now"


def _memory_each(seen: Seen | None) -> float | None:
    each = (
        []
        if seen is None
        else [one.memory_bytes / one.workers for one in seen.seconds if one.memory_bytes and one.workers]
    )
    return median(each) if each else None


def _latency(before: Seen | None, after: Seen, watch: Watch) -> tuple[str, str]:
    then = [] if before is None else [one.took_ms for one in before.probes if not one.trouble]
    now = [one.took_ms for one in after.probes if not one.trouble]
    if len(then) < LEAST_ANSWERS or len(now) < LEAST_ANSWERS:
        return "", ""
    said = f"median of health checks: {median(then):.1f} ms before, {median(now):.1f} ms now"
    return (said if median(now) > median(then) + watch.slower_ms else ""), said


def _wait(before: Seen | None, after: Seen, watch: Watch) -> tuple[str, str]:
    then, now = _waits(before), _waits(after)
    if len(then) < LEAST_WAITS_S or len(now) < LEAST_WAITS_S:
        return "", ""
    said = f"wait for an accept, p99 of a second, median: {median(then):.1f} ms before, {median(now):.1f} ms now"
    return (said if median(now) > median(then) + watch.slower_ms else ""), said


def _waits(seen: Seen | None) -> Sequence[float]:
    return [] if seen is None else [one.wait_p99_ms for one in _settled(seen) if one.wait_p99_ms is not None]


def _cpu(before: Seen | None, after: Seen, watch: Watch) -> tuple[str, str]:
    then, now = _cpu_each(before), _cpu_each(after)
    if then is None or now is None:
        return "", ""
    said = f"CPU of a request: {then * 1000:.2f} ms before, {now * 1000:.2f} ms now"
    return (said if now > then * watch.cpu_ratio and now - then > 0.001 else ""), said


def _cpu_each(seen: Seen | None) -> float | None:
    """CPU seconds a request, over seconds in which the same workers were there."""
    if seen is None:
        return None
    used = asked = 0.0
    seconds = _settled(seen)
    for one, other in pairwise(seconds):
        if (
            one.cpu_s is not None
            and other.cpu_s is not None
            and other.cpu_s >= one.cpu_s
            and one.workers == other.workers
        ):
            used, asked = used + other.cpu_s - one.cpu_s, asked + other.accepts
    return used / asked if asked >= LEAST_REQUESTS else None


def _backlog(before: Seen | None, after: Seen, watch: Watch) -> tuple[str, str]:
    then, now = ([] if before is None else before.lengths), after.lengths
    if not then or len(now) < 2:
        return "", ""
    usual = max(then)
    said = f"tasks that wait: {usual:.0f} at most before, {now[-1]:.0f} now"
    is_worse = now[-1] > max(usual * watch.backlog_ratio, LEAST_BACKLOG) and now[-1] > now[len(now) // 2]
    return (said if is_worse else ""), said


def _settled(seen: Seen) -> list[Second]:
    return [one for one in seen.seconds if one.at_s >= seen.began_s + min(SETTLED_S, _length(seen) / 3)]


def _length(seen: Seen) -> float:
    return seen.seconds[-1].at_s - seen.seconds[0].at_s if seen.seconds else 0.0


def _overflows(seen: Seen | None) -> float:
    return 0.0 if seen is None else sum(one.overflows for one in seen.seconds)


def _mb(size: float) -> str:
    return f"{size / 1e6:.3g} MB"
