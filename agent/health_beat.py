"""Judges once a second how workers are: boots, leaks, stillness, dangers; keeps a snapshot before it is too late."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol

from agent import health_sentences as sentences
from agent.clock import Clock
from agent.health import BOOT_HISTORY, Kept, boot_limit_s, request_age_s, state_of
from agent.ids import new_event_id
from agent.leak import Leak, seconds_left, will_fill
from agent.limits import MemoryLimits, Room
from agent.premortem import GREW_BYTES, Danger, Heartbeats, MemoryWatch, TimeoutWatch
from agent.procfs import ProcFs
from agent.pulse import next_pulse
from agent.reporter import Reporter
from agent.service import Service, Worker
from agent.snapshots import Snapshot, Snapshots
from agent.stacks import Stack, Stacks, Untold, lines_of
from agent.stillness import Still, Stillness
from agent.wire import MAX_ATTR_CHARS, Event, Evidence, Row, Scalar, Severity

CLOSE_LOOK_S = 0.05
"""How often memory is looked at while a cgroup is close to its limit."""

STATES_AT_ONCE = 100
"""Looks at what workers sleep in, each second; more workers than that take turns."""

LEAKS_APART_S = 1800.0
"""A service is told of again after this time, if it leaks still."""

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
        self._heartbeats = heartbeats
        self._stacks = stacks
        self._snapshots = snapshots
        self._reporter = reporter
        self._sampler = sampler
        self._clock = clock
        self._boot_hang_s = boot_hang_s
        self._limits = MemoryLimits(procfs)
        self._memory = MemoryWatch(self._limits)
        self._timeouts = TimeoutWatch(heartbeats)
        self._still = Stillness(stacks, stuck_after_s)
        self._active: dict[tuple[int, int], Worker] = {}
        self._boots_s: dict[str, deque[float]] = {}
        self._grew: dict[int, Service] = {}
        self._leaks_told_s: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._defects: list[BaseException] = []
        self._judged = 0
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
                self._still.forget_others(self._services())
            still = await self._still.look(self._services(), self._now_s())
            if still is not None:
                self._tell_still(still)
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

    def moved(self, worker: Worker, memory_bytes: int | None, cpu_percent: float | None) -> None:
        """A reading of a worker that has done something since the one before."""
        now_s, health = self._now_s(), worker.health
        health.moved_s, health.cpu_percent = now_s, cpu_percent
        self._active[worker.ref.pid, worker.ref.start_ticks] = worker
        self._still.moved(worker)
        if memory_bytes is None:
            return
        if health.memory_bytes is not None and memory_bytes - health.memory_bytes > GREW_BYTES:
            self._memory.grew(worker.service)
        health.memory_bytes = memory_bytes
        if health.series.add(now_s, memory_bytes):
            self._judged += 1
            health.leak = health.series.leak()
            if health.leak is not None:
                self._grew[worker.service.master_pid] = worker.service

    @property
    def judgements(self) -> int:
        """How often something was judged: a boot, a trend, a state, a stack."""
        return self._judged + self._still.checks

    def notice(self, events: list[Event]) -> None:
        """Learns how long workers take to boot, and tells of those that were stuck and are not any more."""
        for event in events:
            if event.kind == "worker.ready" and event.service is not None:
                boots = self._boots_s.setdefault(event.service, deque(maxlen=BOOT_HISTORY))
                boots.append(float(event.attrs.get("boot_ms", 0)) / 1000)

    # One look.

    def _look(self) -> None:
        now_s, now_us = self._now_s(), self._clock.now_us()
        self._look_at_states(now_s)
        changes = self._rollup.changes
        for danger in self._timeouts.look(self._services(), now_s, changes):
            self._keep(danger, now_s)
        if self._unready or changes != self._seen_changes:
            self._seen_changes = changes
            unready = [self._judge_boots(service, now_us) for service in self._services()]
            self._unready = True in unready
        for service in list(self._grew.values()):
            self._judge_leaks(service, now_s)
        self._grew.clear()

    def _look_at_states(self, now_s: float) -> None:
        """What workers that moved, or were busy the last time, sleep in now."""
        for ident, worker in list(self._active.items())[:STATES_AT_ONCE]:
            del self._active[ident]
            service, health = worker.service, worker.health
            if worker.ref.pid not in service.workers:
                continue
            state = state_of(self._procfs.sleeps_in(worker.ref.pid), in_pool=service.kind == "celery")
            self._judged += 1
            if state != health.state:
                health.busy_since_s = now_s if state == "busy" else None
            health.state = state
            is_sync = service.kind == "gunicorn" and service.settings.worker_class == "sync"
            age_s = self._heartbeats.heartbeat_age_s(worker) if is_sync and state == "busy" else None
            health.request_age_s = request_age_s(state, age_s, service.timeout_s)
            if state == "busy":
                self._active[ident] = worker
            if health.blocked_event is not None and health.moved_s is not None and now_s - health.moved_s < 1.5:
                self._tell_moves(worker)

    def _judge_boots(self, service: Service, now_us: int) -> bool:
        """Whether some worker of the service is not ready yet."""
        unready = [worker for worker in service.workers.values() if worker.ready_us is None]
        for worker in unready:
            if worker.health.boot_hung_event is None:
                self._judge_boot(service, worker, (now_us - worker.started_us) / 1e6)
        return bool(unready)

    def _judge_boot(self, service: Service, worker: Worker, age_s: float) -> None:
        self._judged += 1
        limit_s = boot_limit_s(tuple(self._boots_s.get(service.name, ())), self._boot_hang_s)
        if age_s >= limit_s:
            worker.health.boot_hung_event = self._new_id()
            self._start(self._tell_boot(worker, worker.health.boot_hung_event, age_s, limit_s))

    def _judge_leaks(self, service: Service, now_s: float) -> None:
        leaks = [(w, w.health.leak) for w in service.workers.values() if w.health.leak is not None]
        room = self._limits.room(service.cgroup, now_s) or self._limits.host()
        if not leaks or room is None:
            return
        slopes = [leak for _, leak in leaks]
        left_s = seconds_left(slopes, room.left_bytes)
        rows: list[Row] = []
        for worker, leak in leaks:
            worker.health.time_left_s = left_s
            rows.append(("worker.leak_bytes_per_s", round(leak.slope), service.name, _subject(worker)))
        if left_s is not None:
            rows.append(("service.memory_time_left_s", round(left_s), service.name, None))
        self._sampler.samples(self._clock.now_us(), rows)
        told_s = self._leaks_told_s.get(service.name)
        is_new = any(worker.health.leaking_event is None for worker, _ in leaks)
        is_long_ago = told_s is None or now_s - told_s >= LEAKS_APART_S
        if is_new and is_long_ago and left_s is not None and will_fill(slopes, room.left_bytes):
            self._leaks_told_s[service.name] = now_s
            self._tell_leaks(service, leaks, room, left_s)

    # What is told.

    def _tell_leaks(self, service: Service, leaks: list[tuple[Worker, Leak]], room: Room, left_s: float) -> None:
        worst, leak = max(leaks, key=lambda pair: pair[1].slope)
        event = self._tell(
            "worker.leaking",
            "warning",
            sentences.leaking(service, leaks, room, left_s),
            worst,
            cause=worst.started_event,
            evidence=sentences.leak_evidence(leaks, room),
            attrs={
                "workers": len(leaks),
                "slope_bytes_per_s": round(sum(one.slope for _, one in leaks)),
                "slope_at_least_bytes_per_s": round(sum(one.slope_at_least for _, one in leaks)),
                "seen_s": round(leak.seconds),
                "memory_bytes": leak.bytes,
                "limit_bytes": room.limit_bytes,
                "used_bytes": room.usage_bytes,
                "limited_by": room.name or "host",
                "time_left_s": round(left_s),
            },
        )
        for worker, _ in leaks:
            worker.health.leaking_event = event

    async def _tell_boot(self, worker: Worker, event_id: str, age_s: float, limit_s: float) -> None:
        found = await self._stacks.of(worker.ref.pid, worker.ref.start_ticks)
        sleeps_in = self._procfs.sleeps_in(worker.ref.pid)
        doing = "it is using CPU" if sleeps_in is None else "it is waiting for something"
        self._tell(
            "worker.boot_hung",
            "critical",
            sentences.boot_hung(worker, age_s, limit_s, doing, sentences.where(found)),
            worker,
            cause=worker.started_event,
            evidence=(
                Evidence("procfs", f"pid {worker.ref.pid} {'runs' if sleeps_in is None else f'sleeps in {sleeps_in}'}"),
                sentences.stack_evidence(found),
            ),
            attrs={"age_s": round(age_s, 1), "limit_s": round(limit_s, 1), **_stack_attr(found)},
            event_id=event_id,
        )

    def _tell_still(self, still: Still) -> None:
        worker, where = still.worker, ", called by ".join(map(str, still.threads[0].frames[:3]))
        of_worker = still.what == "worker"
        count = len(still.threads)
        text = (
            sentences.blocked(worker, still.seconds, where)
            if of_worker
            else sentences.threads_stuck(worker, count, still.of, still.seconds, where)
        )
        worker.health.blocked_event = self._tell(
            "worker.stuck" if of_worker else "worker.threads_stuck",
            "critical" if of_worker or count == still.of else "warning",
            text,
            worker,
            cause=worker.started_event,
            evidence=(Evidence("py-spy", f"the same calls at every look for {still.seconds:.0f} s: {where}"),),
            attrs={"stuck_threads": count, "threads": still.of, "still_s": round(still.seconds, 1)},
        )

    def _tell_moves(self, worker: Worker) -> None:
        health, cause = worker.health, worker.health.blocked_event
        health.blocked_event = None
        lasted_s = 0.0 if health.busy_since_s is None else max(self._now_s() - health.busy_since_s, 0.0)
        text = sentences.moves_again(worker, lasted_s)
        self._tell("worker.unstuck", "info", text, worker, cause=cause, evidence=(Evidence("readings", "it used CPU"),))

    def _keep(self, danger: Danger, now_s: float) -> None:
        if self._snapshots.is_due(danger.worker, now_s):
            self._start(self._take(danger, now_s))

    async def _take(self, danger: Danger, now_s: float) -> None:
        worker, event_id = danger.worker, self._new_id()
        snapshot = await self._snapshots.take(worker, event_id, danger.why, danger.room, now_s)
        where = sentences.where(snapshot.found)
        worker.health.snapshot = Kept(event_id, str(snapshot.path), where)
        self._tell(
            "worker.snapshot",
            "warning",
            sentences.snapshot(worker, danger.why, where),
            worker,
            cause=worker.health.leaking_event or worker.started_event,
            evidence=(sentences.stack_evidence(snapshot.found), Evidence("file on the host", str(snapshot.path))),
            attrs={"artifact": event_id, "file": str(snapshot.path), **_snapshot_attrs(snapshot)},
            event_id=event_id,
        )

    def _tell(
        self,
        kind: str,
        severity: Severity,
        text: str,
        worker: Worker,
        *,
        cause: str | None,
        evidence: tuple[Evidence, ...],
        attrs: dict[str, Scalar] | None = None,
        event_id: str | None = None,
    ) -> str:
        event = Event(
            id=event_id or self._new_id(),
            ts_us=self._clock.now_us(),
            kind=kind,
            severity=severity,
            text=text,
            service=worker.service.name,
            worker=worker.ref,
            release=worker.release,
            cause=cause,
            evidence=evidence,
            attrs=attrs or {},
        )
        self._reporter.events((event,))
        return event.id

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs what has to wait for something beside the beat; what goes wrong there, the beat raises."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (defect := task.exception()) is not None:
            self._defects.append(defect)

    def _services(self) -> list[Service]:
        return [service for service in self._rollup.services.values() if service.stopped_event is None]

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / 1e9

    def _new_id(self) -> str:
        return new_event_id(self._clock.now_us())


def _subject(worker: Worker) -> str:
    return f"worker {worker.ref.slot} (pid {worker.ref.pid})"


def _stack_attr(found: Stack | Untold) -> dict[str, Scalar]:
    return {"stack": "\n".join(lines_of(found))[:MAX_ATTR_CHARS]} if isinstance(found, Stack) else {}


def _snapshot_attrs(snapshot: Snapshot) -> dict[str, Scalar]:
    texts = {"stack": snapshot.stack, "memory_map": snapshot.mappings}
    return {name: text[:MAX_ATTR_CHARS] for name, text in texts.items() if text}
