"""Finds workers and threads that stand still inside of a call where nobody's timeout ends them.

A thread that stands still is not given a CPU: the kernel counts how often it was. One for which that count has not moved
since `stuck_after_s` waits for something. It is idle when it waits for clients; when it waits for a lock it may be, as
pools do; else it is in a call. Its stack says where, and whether what it does is a request: a thread that a program has
for its own ends may wait as long as it likes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from agent.procfs import ProcFs
from agent.service import Service, Worker
from agent.serving import has_pool, is_loop, master_ends_it
from agent.stacks import Stack, Stacks, Thread, serves_request, waits_for_work
from agent.waits import Waiting, Waits

ROUND_S = 60.0
"""How often the threads of a worker are counted in which nothing seems to stand still."""

TOLD_ROUND_S = 5.0
NEW_WORKERS_S = 5.0
"""A worker that became ready since the last look is counted after this time at the latest."""

ROUNDS_AT_ONCE = 20
"""Workers whose threads are counted in one second; those beyond it come in the next."""

STACKS_APART_S = 2.0
LOCKED_STACKS_APART_S = 10.0
"""Stacks cost some 20 ms of CPU: no more than one in this time, fewer where it is most likely an idle pool."""

IDLE_LOCK_FOR_S = 600.0
"""How long a lock that a thread was seen idle at stands for idleness when it waits there again."""

MOST_THREADS = 64

Ident = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Still:
    """What stands still, of how many threads if that is known, and for how long at least.

    `calls` are the threads' stacks; none where only the system call is known, whose name is `call`.
    """

    worker: Worker
    what: Literal["worker", "threads"]
    number: int
    of: int | None
    seconds: float
    call: str
    calls: tuple[Thread, ...]


@dataclass(frozen=True, slots=True)
class Freed:
    """A worker of which nothing stands still any more."""

    worker: Worker


@dataclass(slots=True)
class _Count:
    """How often a thread had been given a CPU, and since when it has been so. `is_idle`: and it is known to be idle."""

    runs: int
    since_s: float
    is_idle: bool = False


@dataclass(slots=True)
class _Watched:
    """One worker: its threads, the locks at which threads were seen idle and when, and the threads told as stuck."""

    due_s: float = 0.0
    threads: dict[int, _Count] = field(default_factory=dict)
    idle_locks: dict[int, float] = field(default_factory=dict)
    told: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A worker with threads that stand still, and what each is in."""

    worker: Worker
    waiting: dict[int, Waiting]

    @property
    def only_locks(self) -> bool:
        """Whether all wait for locks, as idle pools do."""
        return all(one.doing == "lock" for one in self.waiting.values())


class Stillness:
    """All workers of the host. `checks` counts looks at threads and at stacks."""

    def __init__(self, procfs: ProcFs, waits: Waits, stacks: Stacks, stuck_after_s: float) -> None:
        self.checks = 0
        self._procfs = procfs
        self._waits = waits
        self._stacks = stacks
        self._stuck_after_s = stuck_after_s
        self._watched: dict[Ident, _Watched] = {}
        self._suspects: dict[Ident, _Suspect] = {}
        self._freed: list[Worker] = []
        self._next_s = 0.0
        self._seen_changes = -1
        self._stacks_s = -LOCKED_STACKS_APART_S

    def forget_others(self, services: Iterable[Service]) -> None:
        """Forgets who is gone."""
        alive = {(w.ref.pid, w.ref.start_ticks) for s in services for w in s.workers.values()}
        self._watched = {ident: one for ident, one in self._watched.items() if ident in alive}
        self._suspects = {ident: one for ident, one in self._suspects.items() if ident in alive}

    async def look(self, services: Iterable[Service], now_s: float, changes: int) -> Still | Freed | None:
        """Counts the threads of workers that it is time for, and looks at the stacks of one that is suspected, if any is.

        `changes` counts workers that came or went: without any, nothing is counted before the next is due.
        """
        if changes != self._seen_changes or now_s >= self._next_s:
            self._seen_changes = changes
            freed = [worker for worker in self._due(services, now_s) if self._count(worker, now_s)]
            self._freed += freed
        if self._freed:
            return Freed(self._freed.pop(0))
        suspect = self._next_suspect(now_s)
        if suspect is None:
            return None
        self._stacks_s = now_s
        return await self._look_at(suspect, now_s)

    # Counting.

    def _due(self, services: Iterable[Service], now_s: float) -> list[Worker]:
        """The workers whose threads are to be counted now, as many as may be; also sets when to look for them again."""
        due: list[Worker] = []
        self._next_s = now_s + NEW_WORKERS_S
        for service in services:
            for worker in service.workers.values() if _worth_watching(service) else ():
                if worker.ready_us is None:
                    continue
                watched = self._watched.get((worker.ref.pid, worker.ref.start_ticks))
                due_s = now_s if watched is None else watched.due_s
                if due_s <= now_s:
                    due.append(worker)
                self._next_s = min(self._next_s, max(due_s, now_s))
        return due[:ROUNDS_AT_ONCE]

    def _count(self, worker: Worker, now_s: float) -> bool:
        """One round through a worker's threads; whether all that were told as stuck have gone on."""
        ident = (worker.ref.pid, worker.ref.start_ticks)
        watched = self._watched.setdefault(ident, _Watched())
        self._suspects.pop(ident, None)
        self.checks += 1
        watched.threads = dict(self._threads(worker, watched, now_s))
        waiting: dict[int, Waiting] = {}
        is_unclear = False
        for tid, count in watched.threads.items():
            if count.is_idle or tid in watched.told or now_s - count.since_s < self._stuck_after_s:
                continue
            one = self._waiting(worker, tid)
            count.is_idle = one.doing == "clients" or _was_idle_at(watched, one, now_s)
            if not count.is_idle and one.doing in ("call", "lock"):
                waiting[tid] = one
            is_unclear = is_unclear or not count.is_idle
        if waiting:
            self._suspects[ident] = _Suspect(worker, waiting)
        told = {tid: runs for tid, runs in watched.told.items() if _is_same(watched.threads.get(tid), runs)}
        is_freed = bool(watched.told) and not told
        watched.told = told
        watched.due_s = self._next_round_s(watched, now_s, is_unclear=is_unclear)
        return is_freed

    def _next_round_s(self, watched: _Watched, now_s: float, *, is_unclear: bool) -> float:
        """When a thread may have stood still for long enough, at the latest after ROUND_S."""
        if watched.told:
            return now_s + TOLD_ROUND_S
        ripe_s = [one.since_s + self._stuck_after_s for one in watched.threads.values() if not one.is_idle]
        later_s = now_s + ROUND_S
        return later_s if is_unclear else min(max(min(ripe_s, default=later_s), now_s + STACKS_APART_S), later_s)

    def _threads(self, worker: Worker, watched: _Watched, now_s: float) -> Iterator[tuple[int, _Count]]:
        pid = worker.ref.pid
        tids = self._procfs.threads(pid)[:MOST_THREADS] if has_pool(worker.service) else (pid,)
        for tid in tids:
            if tid == pid and master_ends_it(worker.service):
                continue
            runs, before = self._procfs.runs(pid, tid), watched.threads.get(tid)
            if runs is not None:
                yield tid, before if before is not None and before.runs == runs else _Count(runs, now_s)

    def _waiting(self, worker: Worker, tid: int) -> Waiting:
        inodes = {listener.inode for listener in worker.service.listeners}
        return self._waits.of(worker.ref.pid, tid, inodes, only_polls_clients=is_loop(worker.service))

    # Stacks.

    def _next_suspect(self, now_s: float) -> _Suspect | None:
        """Who waits for more than a lock comes first; then who was suspected first."""
        for only_locks, apart_s in ((False, STACKS_APART_S), (True, LOCKED_STACKS_APART_S)):
            for ident, suspect in self._suspects.items():
                if suspect.only_locks == only_locks and now_s - self._stacks_s >= apart_s:
                    del self._suspects[ident]
                    return suspect
        return None

    async def _look_at(self, suspect: _Suspect, now_s: float) -> Still | None:
        worker, ref = suspect.worker, suspect.worker.ref
        watched = self._watched[ref.pid, ref.start_ticks]
        found = await self._stacks.of(ref.pid, ref.start_ticks)
        self.checks += 1
        still = {
            tid: waiting
            for tid, waiting in suspect.waiting.items()
            if _is_same(watched.threads.get(tid), self._procfs.runs(ref.pid, tid))
        }
        if not isinstance(found, Stack):
            main = still.get(ref.pid)
            in_call = main is not None and main.doing == "call"
            return self._still(worker, watched, {ref.pid: None}, main.name, now_s) if main and in_call else None
        inner = {tid: self._procfs.inner_pid(ref.pid, tid) or tid for tid in watched.threads}
        threads = by_thread(found, inner, ref.pid)
        stuck: dict[int, Thread | None] = {}
        for tid, waiting in still.items():
            thread = threads.get(tid)
            if thread is not None and _serves(thread, tid == ref.pid):
                stuck[tid] = thread
                continue
            watched.threads[tid].is_idle = True
            if waiting.doing == "lock":
                watched.idle_locks[waiting.lock] = now_s
        return self._still(worker, watched, stuck, still[next(iter(stuck))].name, now_s) if stuck else None

    def _still(
        self, worker: Worker, watched: _Watched, stuck: dict[int, Thread | None], call: str, now_s: float
    ) -> Still:
        pid = worker.ref.pid
        seconds = min(now_s - watched.threads[tid].since_s for tid in stuck)
        watched.told |= {tid: watched.threads[tid].runs for tid in stuck}
        watched.due_s = now_s + TOLD_ROUND_S
        self._next_s = min(self._next_s, watched.due_s)
        stacks = tuple(thread for thread in stuck.values() if thread is not None)
        if pid in stuck:
            return Still(worker, "worker", 1, None, seconds, call, stacks)
        threads = worker.service.settings.threads
        of = threads if threads is not None and threads >= len(watched.told) and threads > 1 else None
        return Still(worker, "threads", len(watched.told), of, seconds, call, stacks)


def by_thread(stack: Stack, inner: Mapping[int, int], main: int) -> dict[int, Thread]:
    """The stack of each thread; `inner` has the threads' ids, and by which the process itself knows them.

    A server that forks and does not tell Python (uWSGI without threads) leaves the main thread of a worker with the id
    that it had in the master: the one stack whose id is of no thread here is then the main thread's.
    """
    by_id = {thread.os_id: thread for thread in stack.threads}
    found = {tid: by_id[own] for tid, own in inner.items() if own in by_id}
    strays = [thread for thread in stack.threads if thread.os_id not in inner.values()]
    if main in inner and main not in found and len(strays) == 1:
        found[main] = strays[0]
    return found


def _was_idle_at(watched: _Watched, waiting: Waiting, now_s: float) -> bool:
    seen_s = watched.idle_locks.get(waiting.lock) if waiting.doing == "lock" else None
    return seen_s is not None and now_s - seen_s < IDLE_LOCK_FOR_S


def _is_same(count: _Count | None, runs: int | None) -> bool:
    return count is not None and count.runs == runs


def _serves(thread: Thread, is_main: bool) -> bool:
    """Whether a thread is in a request: the main one in any call, another where it came from its server's pool."""
    if not thread.frames or waits_for_work(thread):
        return False
    return is_main or serves_request(thread)


def _worth_watching(service: Service) -> bool:
    return service.kind != "celery" and (has_pool(service) or not master_ends_it(service))
