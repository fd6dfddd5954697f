"""Finds workers and threads that stand still inside of a call where nobody's timeout ends them.

A worker is suspected when it waits for something else than clients, or has threads besides its main one, and has neither
used CPU nor switched since `stuck_after_s`. Its stack, taken twice, must be the same and be in a call. Idle pools wait in
known places of the standard library: they are not suspected for long.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from agent.service import Service, Worker
from agent.stacks import Stack, Stacks, Thread, Untold, waits_for_work

APART_S = 5.0
ONE_LOOK_EACH_S = 2.0
"""Stacks cost some 20 ms of CPU: no more than one in this time."""

ROUND_S = 60.0
"""How often a worker with threads is looked at while it is busy: threads that stand still hide behind those that do not."""

CHECKS_KEPT = 4096

Ident = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Still:
    """What stands still: the threads, and for how long at least."""

    worker: Worker
    what: Literal["worker", "threads"]
    threads: tuple[Thread, ...]
    of: int
    seconds: float


@dataclass(slots=True)
class _Watched:
    """One worker: which calls its threads were in at the last looks, and since when."""

    looked_s: float = 0.0
    since_s: dict[int, float] = field(default_factory=dict)
    frames: dict[int, tuple[str, ...]] = field(default_factory=dict)
    is_known_idle: bool = False


class Stillness:
    """All workers of the host. `checks` counts looks at stacks, `suspects` workers that were worth one."""

    def __init__(self, stacks: Stacks, stuck_after_s: float) -> None:
        self.checks = 0
        self._stacks = stacks
        self._stuck_after_s = stuck_after_s
        self._watched: dict[Ident, _Watched] = {}
        self._looked_s = 0.0
        self._cannot: str | None = None

    def moved(self, worker: Worker) -> None:
        """The worker has done something: what was known of its idleness is not any more."""
        watched = self._watched.get((worker.ref.pid, worker.ref.start_ticks))
        if watched is not None:
            watched.is_known_idle = False

    def forget_others(self, services: Iterable[Service]) -> None:
        """Forgets who is gone."""
        alive = {(w.ref.pid, w.ref.start_ticks) for s in services for w in s.workers.values()}
        self._watched = {ident: one for ident, one in self._watched.items() if ident in alive}

    async def look(self, services: Iterable[Service], now_s: float) -> Still | None:
        """One look at the worker that has waited longest for one, if any is worth it now."""
        if now_s - self._looked_s < ONE_LOOK_EACH_S:
            return None
        suspects = [
            (watched.looked_s, worker.ref.pid, worker)
            for service in services
            for worker in service.workers.values()
            if (watched := self._suspected(service, worker, now_s)) is not None
        ]
        if not suspects:
            return None
        self._looked_s = now_s
        return await self._look_at(min(suspects)[2], now_s)

    def _suspected(self, service: Service, worker: Worker, now_s: float) -> _Watched | None:
        health, ident = worker.health, (worker.ref.pid, worker.ref.start_ticks)
        if worker.ready_us is None or health.moved_s is None or health.blocked_event is not None:
            return None
        has_threads, master_ends_it = _has_threads(service), _master_ends_it(service)
        if not has_threads and (master_ends_it or health.state != "busy"):
            return None
        watched = self._watched.setdefault(ident, _Watched())
        is_still = now_s - health.moved_s >= self._stuck_after_s
        if watched.is_known_idle or not (is_still or has_threads):
            return None
        pause_s = APART_S if is_still or watched.since_s else ROUND_S
        return watched if now_s - watched.looked_s >= pause_s else None

    async def _look_at(self, worker: Worker, now_s: float) -> Still | None:
        watched = self._watched[worker.ref.pid, worker.ref.start_ticks]
        watched.looked_s = now_s
        found = await self._stacks.of(worker.ref.pid, worker.ref.start_ticks)
        self.checks += 1
        if isinstance(found, Untold):
            watched.since_s.clear()
            watched.is_known_idle = True  # asked again when it has moved
            return None
        return self._compare(worker, watched, found, now_s)

    def _compare(self, worker: Worker, watched: _Watched, found: Stack, now_s: float) -> Still | None:
        with_threads = _has_threads(worker.service)
        candidates = found.threads[1:] if with_threads else found.threads[:1]
        busy = [thread for thread in candidates if not thread.is_active and not _is_idle(thread)]
        frames = {thread.os_id: tuple(map(str, thread.frames)) for thread in busy}
        watched.since_s = {
            os_id: watched.since_s[os_id] if watched.frames.get(os_id) == calls else now_s
            for os_id, calls in frames.items()
        }
        watched.frames = frames
        watched.is_known_idle = not frames
        still = tuple(thread for thread in busy if now_s - watched.since_s[thread.os_id] >= self._stuck_after_s)
        if not still:
            return None
        seconds = min(now_s - watched.since_s[thread.os_id] for thread in still)
        return Still(worker, "threads" if with_threads else "worker", still, len(candidates), seconds)


def _has_threads(service: Service) -> bool:
    threads = service.settings.threads
    return service.kind in ("gunicorn", "uwsgi") and threads is not None and threads > 1


def _master_ends_it(service: Service) -> bool:
    """Whether the master kills a worker that stands still; what is not known counts as yes. Celery's tasks are judged elsewhere."""
    if service.kind == "gunicorn":
        return service.timeout_s is None or service.timeout_s > 0
    if service.kind == "uwsgi":
        return service.settings.workers is None or service.timeout_s is not None
    return service.kind == "celery"


def _is_idle(thread: Thread) -> bool:
    return not thread.frames or waits_for_work(thread)
