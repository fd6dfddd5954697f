"""Looks at what workers do just now: those that have moved, those that were busy the last time, and others in turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.health import state_in_pool, state_of
from agent.health_sentences import subject
from agent.premortem import Heartbeats
from agent.procfs import ProcFs
from agent.service import Service, Worker
from agent.serving import has_threads, is_loop, is_sync
from agent.waits import Waits
from agent.wire import Row

THREADS_AT_ONCE = 64
"""Threads that are looked at in one second; workers beyond it take turns."""

QUIET_AT_ONCE = 4
"""Workers of which there is no news that are looked at in one second."""

MOST_THREADS = 32
TOLD_AGE_S = 1.0
"""The age of a request is told from here on: one a look, which says nothing of the many that are shorter."""


class States:
    """The states of all workers of the host."""

    def __init__(self, procfs: ProcFs, waits: Waits, heartbeats: Heartbeats) -> None:
        self.judgements = 0
        self._procfs = procfs
        self._waits = waits
        self._heartbeats = heartbeats
        self._active: dict[tuple[int, int], Worker] = {}
        self._turn: list[Worker] = []

    def moved(self, worker: Worker) -> None:
        """The worker has done something since it was looked at."""
        self._active[worker.ref.pid, worker.ref.start_ticks] = worker

    def look(self, services: Iterable[Service]) -> list[Row]:
        """Looks at as many as may be looked at; samples of what was seen."""
        looked, rows = 0, list[Row]()
        changed: dict[int, Service] = {}
        for worker in self._next_turn(services):
            self._active.setdefault((worker.ref.pid, worker.ref.start_ticks), worker)
        for ident, worker in list(self._active.items()):
            if looked >= THREADS_AT_ONCE:
                break
            del self._active[ident]
            service, was = worker.service, worker.health.state
            if worker.ref.pid not in service.workers or worker.ready_us is None:
                continue
            tids = self._procfs.threads(worker.ref.pid)[:MOST_THREADS] if has_threads(service) else (worker.ref.pid,)
            looked += len(tids)
            self._judge(worker, tids)
            if worker.health.state == "busy":
                self._active[ident] = worker
            if worker.health.state != was:
                changed[service.master_pid] = service
            age_s = worker.health.request_age_s
            if age_s is not None and age_s >= TOLD_AGE_S:
                rows.append(("worker.request_age_s", round(age_s, 1), service.name, subject(worker)))
        return rows + [_busy(service) for service in changed.values()]

    def _next_turn(self, services: Iterable[Service]) -> list[Worker]:
        """A few of all workers, in turn: a request that costs its worker next to nothing shows only so."""
        if not self._turn:
            self._turn = [worker for service in services for worker in service.workers.values()]
        chosen, self._turn = self._turn[:QUIET_AT_ONCE], self._turn[QUIET_AT_ONCE:]
        return chosen

    def _judge(self, worker: Worker, tids: Sequence[int]) -> None:
        """What the worker does, and the age of its request where its heartbeat tells."""
        self.judgements += 1
        service, health, pid = worker.service, worker.health, worker.ref.pid
        if service.kind == "celery":
            health.state = state_in_pool(self._procfs.sleeps_in(pid))
            return
        inodes = {listener.inode for listener in service.listeners}
        loop = is_loop(service)
        doing = [self._waits.of(pid, tid, inodes, only_polls_clients=loop).doing for tid in tids]
        health.state = state_of(doing)
        is_in_request = health.state == "busy" and is_sync(service)
        health.request_age_s = self._heartbeats.heartbeat_age_s(worker) if is_in_request else None


def _busy(service: Service) -> Row:
    busy = sum(worker.health.state == "busy" for worker in service.workers.values())
    return ("service.busy_workers", busy, service.name, None)
