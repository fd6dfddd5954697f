"""What is known of how a worker is, and the plain rules by which its state is judged. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from agent.leak import Leak, Series

State = Literal["unknown", "idle", "busy"]

IDLE_SLEEPS = ("poll", "select", "accept")
"""Kernel functions that a worker sleeps in while it waits for a client have one of these in their names."""

IDLE_IN_POOL = ("pipe_read", "unix_stream", "skb_wait")
"""The same for a process of Celery's pool, which waits for its node."""

BOOT_HISTORY = 20
BOOT_TIMES_MEDIAN = 5.0
LEAST_BOOTS = 3


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot that was taken of a worker: its event, its file on the host, and where the worker was."""

    event: str
    path: str
    where: str


@dataclass(slots=True)
class WorkerHealth:
    """How one worker is. Times are of the monotonic clock, in s; None is what is not known."""

    state: State = "unknown"
    busy_since_s: float | None = None
    moved_s: float | None = None
    cpu_percent: float | None = None
    memory_bytes: int | None = None
    request_age_s: float | None = None
    series: Series = field(default_factory=Series)
    leak: Leak | None = None
    time_left_s: float | None = None
    leaking_event: str | None = None
    boot_hung_event: str | None = None
    blocked_event: str | None = None
    snapshot: Kept | None = None
    snapshot_s: float | None = None

    def attrs_at_death(self) -> dict[str, float | int]:
        """What was known last, as numbers for the event of its end."""
        values = {"memory_bytes": self.memory_bytes, "request_age_s": self.request_age_s}
        return {name: round(value, 3) for name, value in values.items() if value is not None}


def state_of(sleeps_in: str | None, *, in_pool: bool) -> State:
    """A worker that runs is busy; one that sleeps is idle where it waits for work, busy where it waits for anything else.

    `0` is what a kernel says that hides the function: then only running tells.
    """
    if sleeps_in is None:
        return "busy"
    if sleeps_in == "0":
        return "unknown"
    idle = IDLE_IN_POOL if in_pool else IDLE_SLEEPS
    return "idle" if any(word in sleeps_in for word in idle) else "busy"


def request_age_s(state: State, beat_age_s: float | None, timeout_s: float | None) -> float | None:
    """Age of the request of a Gunicorn sync worker: it beats before it takes a request, and not until the end of that.

    An idle one beats each half timeout (twice a second without one), so that an older beat is a request whatever the
    worker sleeps in.
    """
    if beat_age_s is None or timeout_s is None:
        return None
    idle_beats_s = timeout_s / 2 + 1.0 if timeout_s > 0 else 1.5
    return beat_age_s if state == "busy" or beat_age_s > idle_beats_s else None


def boot_limit_s(boots_s: Sequence[float], least_s: float) -> float:
    """After which time a boot hangs: a multiple of the service's own median, and never less than `least_s`."""
    if len(boots_s) < LEAST_BOOTS:
        return least_s
    median_s = sorted(boots_s)[len(boots_s) // 2]  # the statistics package costs 2 MB
    return max(least_s, BOOT_TIMES_MEDIAN * median_s)
