"""What is known of how a worker is, and the plain rules by which its state is judged. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from agent.leak import Leak, Series

State = Literal["unknown", "idle", "busy"]

Doing = Literal["runs", "clients", "lock", "call", "unknown"]
"""What a thread does. `clients`: it waits for a client to connect. `lock`: for another thread, which idle pools do, too.
`call`: for anything else."""

IDLE_IN_POOL = ("pipe_read", "unix_stream", "skb_wait")
"""A process of Celery's pool waits for its node in a function of the kernel whose name has one of these."""

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
    moved_s: float | None = None
    cpu_percent: float | None = None
    memory_bytes: int | None = None
    request_age_s: float | None = None
    series: Series = field(default_factory=Series)
    leak: Leak | None = None
    time_left_s: float | None = None
    leaking_event: str | None = None
    leak_seen_s: float | None = None
    boot_hung_event: str | None = None
    blocked_event: str | None = None
    blocked_s: float | None = None
    snapshot: Kept | None = None
    snapshot_s: float | None = None

    def attrs_at_death(self) -> dict[str, float | int]:
        """What was known last, as numbers for the event of its end."""
        values = {"memory_bytes": self.memory_bytes, "request_age_s": self.request_age_s}
        return {name: round(value, 3) for name, value in values.items() if value is not None}


def state_of(threads: Sequence[Doing]) -> State:
    """The state of a worker by what its threads do, the main one first.

    Any that runs or is in a call has something to do. Pools wait for locks while one thread waits for clients; a
    single thread that waits for a lock does so in a request.
    """
    if "runs" in threads or "call" in threads:
        return "busy"
    if "clients" in threads:
        return "idle"
    return "busy" if threads and threads[0] == "lock" else "unknown"


def state_in_pool(sleeps_in: str | None) -> State:
    """The state of a process of Celery's pool by the kernel's function that it sleeps in; None: it runs.

    `0` is what a kernel says that hides the function.
    """
    if sleeps_in == "0":
        return "unknown"
    return "idle" if sleeps_in is not None and any(word in sleeps_in for word in IDLE_IN_POOL) else "busy"


def boot_limit_s(boots_s: Sequence[float], least_s: float) -> float:
    """After which time a boot hangs: a multiple of the service's own median, and never less than `least_s`."""
    if len(boots_s) < LEAST_BOOTS:
        return least_s
    median_s = sorted(boots_s)[len(boots_s) // 2]  # the statistics package costs 2 MB
    return max(least_s, BOOT_TIMES_MEDIAN * median_s)
