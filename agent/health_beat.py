"""Judges once a second how workers are: boots, leaks, stillness, dangers; keeps a snapshot before it is too late."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Protocol

from agent.clock import Clock
from agent.health import BOOT_HISTORY, Kept, boot_limit_s
from agent.health_events import HealthEvents
from agent.health_sentences import where
from agent.leaks import Leaks, rows_of
from agent.limits import MemoryLimits
from agent.premortem import GREW_BYTES, Danger, Heartbeats, MemoryWatch, TimeoutWatch
from agent.procfs import ProcFs
from agent.pulse import next_pulse
from agent.reporter import Reporter
from agent.service import Service, Worker
from agent.snapshots import Snapshots
from agent.stacks import Stacks
from agent.states import States
from agent.stillness import Freed, Still, Stillness
from agent.waits import Waits
from agent.wire import Event

CLOSE_LOOK_S = 0.05
"""How often memory is looked at while a cgroup is close to its limit."""

FORGET_EVERY_TICKS = 60


class Rollup(Protocol):
    """Where the services are."""

    @property
    def services(self) -> Mapping[int, Service]: ...

    @property
    def changes(self) -> int: ...


class HealthBeat:
    """The health of all workers of the host. Readings come in by `moved`; an idle worker costs nothing."""

    def __init__(
        self,
        procfs: ProcFs,
        rollup: Rollup,
        heartbeats: Heartbeats,
        stacks: Stacks,
        snapshots: Snapshots,
        reporter: Reporter,
        sampler: Reporter,
        clock: Clock,
        *,
        boot_hang_s: float,
        stuck_after_s: float,
    ) -> None:
        """`reporter` takes events, `sampler` samples."""
        self._procfs = procfs
        self._rollup = rollup
        self._stacks = stacks
        self._snapshots = snapshots
        self._sampler = sampler
        self._clock = clock
        self._boot_hang_s = boot_hang_s
        self._events = HealthEvents(reporter, clock)
        limits, waits = MemoryLimits(procfs), Waits(procfs)
        self._memory = MemoryWatch(limits)
        self._leaks = Leaks(limits)
        self._states = States(procfs, waits, heartbeats)
        self._timeouts = TimeoutWatch(heartbeats)
        self._still = Stillness(procfs, waits, stacks, stuck_after_s)
        self._boots_s: dict[str, deque[float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._defects: list[BaseException] = []
        self._boots_judged = 0
        self._unready = False
        self._seen_changes = -1

    async def health_beat(self) -> None:
        """Looks for ever: each second, and closely at memory while some is nearly full."""
        ticks = 0
        while True:
            await next_pulse()
            ticks += 1
            self._look()
            if ticks % FORGET_EVERY_TICKS == 0:
                self._forget_others()
            await self._look_for_stillness()
            if self._defects:
                raise self._defects.pop()

    async def memory_beat(self) -> None:
        """Looks at memory for ever: often while a cgroup is close to its limit, else each second."""
        while True:
            if self._memory.is_close:
                await asyncio.sleep(CLOSE_LOOK_S)
            else:
                await next_pulse()
            now_s = self._now_s()
            for danger in self._memory.look(self._services(), now_s):
                self._keep(danger, now_s)

    def moved(self, worker: Worker, memory_bytes: int | None, cpu_percent: float | None, *, is_quiet: bool) -> None:
        """A reading of a worker. `is_quiet`: it has done no more than an idle one does."""
        now_s, health = self._now_s(), worker.health
        if not is_quiet:
            health.moved_s, health.cpu_percent = now_s, cpu_percent
            self._states.moved(worker)
        if memory_bytes is None or (is_quiet and memory_bytes == health.memory_bytes):
            return
        if health.memory_bytes is not None and memory_bytes - health.memory_bytes > GREW_BYTES:
            self._memory.grew(worker.service)
        leak = health.leak
        is_over = self._leaks.reading(worker, memory_bytes, now_s)
        if is_over and leak is not None:
            self._events.leak_ended(worker, leak, now_s - (health.leak_seen_s or now_s))
            health.leaking_event = None

    async def snapshot(self, worker: Worker) -> str:
        """Takes one because somebody asked for it; where it is, as a part of a sentence."""
        await self._take(Danger(worker, "it was asked for", None), self._now_s())
        kept = worker.health.snapshot
        return "nothing was kept" if kept is None else f"it is in {kept.path}, event {kept.event}"

    @property
    def judgements(self) -> int:
        """How often something was judged: a boot, a trend, a state, a stack."""
        return self._boots_judged + self._leaks.judgements + self._states.judgements + self._still.checks

    def notice(self, events: Iterable[Event]) -> None:
        """Learns how long workers take to boot."""
        for event in events:
            if event.kind == "worker.ready" and event.service is not None:
                boots = self._boots_s.setdefault(event.service, deque(maxlen=BOOT_HISTORY))
                boots.append(float(event.attrs.get("boot_ms", 0)) / 1000)

    # One look.

    def _look(self) -> None:
        now_s, now_us = self._now_s(), self._clock.now_us()
        rows = self._states.look(self._services())
        changes = self._rollup.changes
        for danger in self._timeouts.look(self._services(), now_s, changes):
            self._keep(danger, now_s)
        if self._unready or changes != self._seen_changes:
            self._seen_changes = changes
            unready = [self._judge_boots(service, now_us) for service in self._services()]
            self._unready = True in unready
        for service, leaking, room, left_s, tells in self._leaks.look(self._rollup.services, now_s):
            rows += rows_of(service, leaking, left_s)
            if tells:
                event = self._events.leaking(service, leaking, room, left_s)
                for worker, _ in leaking:
                    worker.health.leaking_event = event
        self._sampler.samples(now_us, rows)

    def _judge_boots(self, service: Service, now_us: int) -> bool:
        """Whether some worker of the service is not ready yet."""
        unready = [worker for worker in service.workers.values() if worker.ready_us is None]
        for worker in unready:
            if worker.health.boot_hung_event is None:
                self._judge_boot(service, worker, (now_us - worker.started_us) / 1e6)
        return bool(unready)

    def _judge_boot(self, service: Service, worker: Worker, age_s: float) -> None:
        self._boots_judged += 1
        limit_s = boot_limit_s(tuple(self._boots_s.get(service.name, ())), self._boot_hang_s)
        if age_s >= limit_s:
            worker.health.boot_hung_event = self._events.new_id()
            self._start(self._tell_boot(worker, worker.health.boot_hung_event, age_s, limit_s))

    async def _tell_boot(self, worker: Worker, event_id: str, age_s: float, limit_s: float) -> None:
        found = await self._stacks.of(worker.ref.pid, worker.ref.start_ticks)
        sleeps_in = self._procfs.sleeps_in(worker.ref.pid)
        self._events.boot_hung(worker, event_id, age_s, limit_s, sleeps_in, found)

    async def _look_for_stillness(self) -> None:
        now_s = self._now_s()
        found = await self._still.look(self._services(), now_s, self._rollup.changes)
        if isinstance(found, Still):
            health = found.worker.health
            health.blocked_event = self._events.still(found)
            health.blocked_s = now_s if health.blocked_s is None else health.blocked_s
        elif isinstance(found, Freed):
            health = found.worker.health
            self._events.freed(found.worker, 0.0 if health.blocked_s is None else now_s - health.blocked_s)
            health.blocked_event = health.blocked_s = None

    # Snapshots.

    def _keep(self, danger: Danger, now_s: float) -> None:
        if self._snapshots.is_due(danger.worker, now_s):
            self._start(self._take(danger, now_s))

    async def _take(self, danger: Danger, now_s: float) -> None:
        worker, event_id = danger.worker, self._events.new_id()
        snapshot = await self._snapshots.take(worker, event_id, danger.why, danger.room, now_s)
        worker.health.snapshot = Kept(event_id, str(snapshot.path), where(snapshot.found))
        self._events.snapshot(worker, event_id, danger.why, snapshot)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs what has to wait for something beside the beat; what goes wrong there, the beat raises."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (defect := task.exception()) is not None:
            self._defects.append(defect)

    def _forget_others(self) -> None:
        services = self._services()
        self._still.forget_others(services)
        self._leaks.forget_others({service.name for service in services})

    def _services(self) -> list[Service]:
        return [service for service in self._rollup.services.values() if service.stopped_event is None]

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / 1e9
