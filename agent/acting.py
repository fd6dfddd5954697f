"""Carries out steps: each is bounded in time, each process is held by its pidfd, and waits hear of births and deaths."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import singledispatchmethod
from typing import Protocol

from agent import circus, executor
from agent.actions.action import CannotAct, ServiceView, WorkerView
from agent.actions.steps import (
    AskCircus,
    AskNode,
    AskSupervisor,
    GiveBack,
    LimitMemory,
    PutAside,
    Renice,
    RunCommand,
    SendSignal,
    Step,
    TakeSnapshot,
    TellMaster,
    WaitCount,
    WaitGone,
    WaitNewMaster,
    WaitNewReady,
)
from agent.celery.hands import CannotAsk, CeleryHands
from agent.circus_names import WatcherNames
from agent.looks import Looks
from agent.procfs import Process, ProcFs
from agent.service import Service, Worker
from agent.wire import SIGNALS, Event, Target
from agent.workers import KINDS
from agent.workers.settings import ServiceSettings

OUTPUT_BYTES = 4096
TOLD_CHARS = 300
MOST_ENDED = 500
OWED_US = 30_000_000
"""A master that has not replaced a dead worker for so long will not."""

FIFO_S, FIFO_POLL_S = 3.0, 0.05
"""uWSGI makes its pipe anew after each who has written into it."""

Snapshotter = Callable[[Worker], Awaitable[str]]
"""Takes a snapshot; the sentence that says where it is."""


class ActFailed(Exception):
    """A step could not be done; the text says why, as the end of a sentence."""


class Rollup(Protocol):
    """Where the services are."""

    @property
    def services(self) -> Mapping[int, Service]: ...

    def worker(self, pid: int, start_ticks: int | None = None) -> Worker | None: ...


class Performer:
    """Does what steps say to the services of this host."""

    def __init__(self, procfs: ProcFs, rollup: Rollup, celery: CeleryHands, snapshot: Snapshotter) -> None:
        self._procfs = procfs
        self._looks = Looks(procfs)
        self._rollup = rollup
        self._celery = celery
        self._snapshot = snapshot
        self._waiting: set[asyncio.Event] = set()
        self._ended: dict[str, ServiceView] = {}
        self._watchers = WatcherNames(self._remember)

    def notice(self, events: Sequence[Event]) -> None:
        """Something was born, ready or dead: who waits for it looks again."""
        if any(event.kind.startswith(("worker.", "service.")) for event in events):
            for waiting in self._waiting:
                waiting.set()
        for event in events:
            service = self._rollup.services.get(int(event.attrs.get("master_pid", 0)))
            if event.kind in ("service.found", "service.started") and service is not None:
                self._remember(service)
                self._watchers.ask(service)

    def view(self, name: str, target: Target | None) -> ServiceView | None:
        """The living service of that name as plans see it; that of the target where several masters have the name."""
        found = [s for s in self._rollup.services.values() if s.name == name and s.stopped_event is None]
        service = next((s for s in found if target is not None and _has(s, target)), found[-1] if found else None)
        return None if service is None else self._view(service)

    def views(self, name: str) -> list[ServiceView]:
        """All living services of that name, the oldest first: there are two while a master hands over."""
        found = [s for s in self._rollup.services.values() if s.name == name and s.stopped_event is None]
        return [self._view(one) for one in sorted(found, key=lambda s: s.start_ticks)]

    def begun_by(self, prefix: str) -> list[ServiceView]:
        """All living services whose names begin so, the oldest first."""
        found = [s for s in self._rollup.services.values() if s.name.startswith(prefix) and s.stopped_event is None]
        return [self._view(one) for one in sorted(found, key=lambda s: s.start_ticks)]

    def strangers(self, master: Target) -> list[int]:
        """Python processes that a master has begun and that are neither workers nor services, as far as is seen yet."""
        known = self._rollup.services.keys()
        begun = [pid for pid in self._procfs.children(master.pid) if pid not in known and self._procfs.runs_python(pid)]
        return [pid for pid in begun if self._rollup.worker(pid) is None]

    def successor(self, name: str, besides: Target | None) -> ServiceView | None:
        """The living service of that name whose master was started after that one, the youngest if there are several."""
        since = -1 if besides is None else besides.start_ticks
        later = [one for one in self.others(name, besides) if one.master.start_ticks > since]
        return max(later, key=lambda one: one.master.start_ticks, default=None)

    def others(self, name: str, besides: Target | None) -> list[ServiceView]:
        """The living services of that name whose master is not that one."""
        living = [s for s in self._rollup.services.values() if s.name == name and s.stopped_event is None]
        return [self._view(one) for one in living if _master(one) != besides]

    def of_master(self, pid: int) -> ServiceView | None:
        """The living service whose master has that pid."""
        service = self._rollup.services.get(pid)
        return None if service is None or service.stopped_event is not None else self._view(service)

    def settings(self, view: ServiceView) -> ServiceSettings:
        """How the service was told to run, as far as that is known from outside."""
        service = self._rollup.services.get(view.master.pid)
        return ServiceSettings() if service is None else service.settings

    def process(self, target: Target) -> Process | None:
        """A process as it is now; None when it is gone or another has its pid."""
        process = self._procfs.process(target.pid)
        return process if process is not None and process.start_ticks == target.start_ticks else None

    def parent(self, target: Target) -> Process | None:
        """The process's parent; None where that is not known."""
        process = self.process(target)
        return None if process is None else self._procfs.process(process.parent_pid)

    def serves(self, view: ServiceView) -> bool:
        """Whether a master that has no workers takes requests itself."""
        return self.process(view.master) is not None and bool(KINDS[view.kind].is_ready(self._looks, view.master.pid))

    def stopped(self, name: str) -> ServiceView | None:
        """A service of that name that has run since the agent's start and has ended, with workers that outlive it."""
        ended = self._ended.get(name)
        if ended is None:
            return None
        left = [w for s in self._rollup.services.values() if _master(s) == ended.master for w in s.workers.values()]
        return replace(ended, workers=tuple(_worker_view(worker) for worker in left))

    def _remember(self, service: Service) -> None:
        """Keeps what acts need to know of the service once it is gone, whether or not somebody can start it again."""
        self._ended.pop(service.name, None)
        self._ended[service.name] = ServiceView(
            service.name, service.kind, _master(service), (), -1, manager=service.manager, is_alive=False
        )
        while len(self._ended) > MOST_ENDED:
            del self._ended[next(iter(self._ended))]

    def of_target(self, target: Target) -> ServiceView | None:
        """The living service whose master or worker the target is."""
        living = (s for s in self._rollup.services.values() if s.stopped_event is None)
        return next((self._view(service) for service in living if _has(service, target)), None)

    async def perform(self, steps: Iterable[Step], service: ServiceView | None) -> tuple[str, ...]:
        """Does all steps in order; what is worth telling of them. Raises ActFailed at the first that cannot be done.

        Processes that the steps name are held from the beginning on, so that no wait can miss a death.
        """
        steps, told = tuple(steps), []
        with ExitStack() as stack:
            held: dict[Target, executor.Held] = {}
            for target in dict.fromkeys(
                s.target for s in steps if isinstance(s, SendSignal | TellMaster | WaitGone | Renice)
            ):
                held[target] = self._hold(target)
                stack.callback(held[target].close)
            for step in steps:
                try:
                    said = await self._do(step, service, held)
                except OSError as error:
                    raise ActFailed(f"could not {step.words}: {error.strerror or error}") from None
                except CannotAsk as cannot:
                    raise ActFailed(str(cannot)) from None
                told += [said] if said else []
        return tuple(told)

    @singledispatchmethod
    async def _do(self, step: Step, service: ServiceView | None, held: Mapping[Target, executor.Held]) -> str | None:
        raise NotImplementedError(f"no way to {step.words}")

    @_do.register
    async def _send(
        self, step: SendSignal, service: ServiceView | None, held: Mapping[Target, executor.Held]
    ) -> str | None:
        self._check_place(step.target, service)
        held[step.target].signal(SIGNALS[step.signal])
        return None

    @_do.register
    async def _tell_master(
        self, step: TellMaster, service: ServiceView | None, _held: Mapping[Target, executor.Held]
    ) -> str | None:
        self._check_place(step.target, service)
        if service is not None and (count := len(self._service(service).workers)) < step.least:
            raise ActFailed(f"{service.name} has {count} workers; nothing was sent")
        name, ends_s = os.path.basename(step.fifo), time.monotonic() + FIFO_S
        while (pipe := self._procfs.pipe_of(step.target.pid, name)) is None:
            if time.monotonic() > ends_s:
                raise ActFailed(f"pid {step.target.pid} has no pipe {step.fifo} open")
            await asyncio.sleep(FIFO_POLL_S)
        executor.tell_pipe(pipe, step.order.encode())
        return None

    @_do.register
    async def _wait_gone(
        self, step: WaitGone, service: ServiceView | None, held: Mapping[Target, executor.Held]
    ) -> str | None:
        if await held[step.target].gone(step.within_s):
            return None
        pid = step.target.pid
        if not step.then_kill:
            raise ActFailed(f"pid {pid} is still alive after {step.within_s:g} s; left running")
        held[step.target].signal(SIGNALS["KILL"])
        if not await held[step.target].gone(step.within_s):
            raise ActFailed(f"pid {pid} is still there {step.within_s:g} s after SIGKILL")
        return f"pid {pid} did not end by itself within {step.within_s:g} s and was killed"

    @_do.register
    async def _wait_new(
        self, step: WaitNewReady, service: ServiceView | None, held: Mapping[Target, executor.Held]
    ) -> str | None:
        assert service is not None

        def fresh() -> list[Worker]:
            workers = self._service(service).workers.values()
            return [w for w in workers if w.ready_us is not None and _target(w) not in step.besides]

        if not await self.until(lambda: len(fresh()) >= step.count, step.within_s):
            raise ActFailed(f"{len(fresh())} of {step.count} new workers were ready after {step.within_s:g} s")
        return None

    @_do.register
    async def _wait_count(
        self, step: WaitCount, service: ServiceView | None, held: Mapping[Target, executor.Held]
    ) -> str | None:
        assert service is not None

        def fits() -> bool:
            workers = self._service(service).workers.values()
            return len(workers) == step.count and all(worker.ready_us is not None for worker in workers)

        if not await self.until(fits, step.within_s):
            raise ActFailed(f"the service did not come to {step.count} ready workers within {step.within_s:g} s")
        return None

    @_do.register
    async def _wait_master(
        self, step: WaitNewMaster, service: ServiceView | None, held: Mapping[Target, executor.Held]
    ) -> str | None:
        def is_there() -> bool:
            return self.successor(step.service, step.besides) is not None

        if not await self.until(is_there, step.within_s):
            raise ActFailed(f"no new master of {step.service} was seen within {step.within_s:g} s")
        return None

    @_do.register
    async def _run(
        self, step: RunCommand, service: ServiceView | None, held: Mapping[Target, executor.Held]
    ) -> str | None:
        done = await executor.output_of(
            step.argv,
            seconds=step.within_s,
            most_bytes=OUTPUT_BYTES,
            folder=step.folder,
            uid=step.uid,
            environment=step.environment,
        )
        if done.code == 0:
            return None
        how = f"ended with code {done.code}" if done.code is not None else f"was killed after {step.within_s:g} s"
        lines = (done.errors or done.text).decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        raise ActFailed(f"{step.argv[0]} ({step.why}) {how}: {last[:TOLD_CHARS]}")

    @_do.register
    async def _ask_node(
        self, step: AskNode, service: ServiceView | None, held: Mapping[Target, executor.Held]
    ) -> str | None:
        assert service is not None
        self._service(service)
        await self._celery.ask(service.name, step.method, step.arguments, step.within_s)
        return None

    @_do.register
    async def _put_aside(
        self, step: PutAside, service: ServiceView | None, _held: Mapping[Target, executor.Held]
    ) -> str | None:
        assert service is not None
        return await self._celery.put_aside(service.name, step.task)

    @_do.register
    async def _give_back(
        self, _step: GiveBack, service: ServiceView | None, _held: Mapping[Target, executor.Held]
    ) -> str | None:
        assert service is not None
        return await self._celery.give_back(service.name, is_alive=service.is_alive)

    @_do.register
    async def _ask_supervisor(
        self, step: AskSupervisor, _service: ServiceView | None, _held: Mapping[Target, executor.Held]
    ) -> str | None:
        from agent import supervisor  # XML-RPC takes memory, and most agents never speak it

        try:
            await asyncio.to_thread(
                supervisor.restart, step.socket, step.program, step.within_s, only_start=step.only_start
            )
        except supervisor.SupervisorTrouble as trouble:
            raise ActFailed(f"could not {step.words}: {trouble}") from None
        return None

    @_do.register
    async def _ask_circus(
        self, step: AskCircus, _service: ServiceView | None, _held: Mapping[Target, executor.Held]
    ) -> str | None:
        try:
            await circus.restart(
                circus.Watcher(step.endpoint, step.watcher),
                step.within_s,
                child=step.child,
                only_start=step.only_start,
                with_all=step.with_all,
            )
        except circus.CircusTrouble as trouble:
            raise ActFailed(f"could not {step.words}: {trouble}") from None
        return None

    @_do.register
    async def _renice(
        self, step: Renice, service: ServiceView | None, held: Mapping[Target, executor.Held]
    ) -> str | None:
        self._check_place(step.target, service)
        executor.renice(step.target.pid, step.nice)
        return None

    @_do.register
    async def _limit(
        self, step: LimitMemory, service: ServiceView | None, held: Mapping[Target, executor.Held]
    ) -> str | None:
        groups = self._procfs.memory_cgroups()
        if groups is None:
            raise ActFailed("no memory cgroups are mounted")
        groups.set_limit(step.cgroup, step.memory_bytes)
        return None

    @_do.register
    async def _take(
        self, step: TakeSnapshot, service: ServiceView | None, held: Mapping[Target, executor.Held]
    ) -> str | None:
        worker = self._rollup.worker(step.target.pid, step.target.start_ticks)
        if worker is None:
            raise ActFailed(f"pid {step.target.pid} is no worker any more")
        return await self._snapshot(worker)

    def _hold(self, target: Target) -> executor.Held:
        """The pidfd comes first, and then the start time is read: whoever has the pid now is whom the pidfd means."""
        try:
            held = executor.Held(target.pid)
        except OSError:
            raise CannotAct(f"pid {target.pid} is gone", "stale") from None
        if self._procfs.start_ticks(target.pid) != target.start_ticks:
            held.close()
            raise CannotAct(f"pid {target.pid} is another process by now", "stale")
        return held

    def _check_place(self, target: Target, service: ServiceView | None) -> None:
        if service is None:
            return
        if not service.is_alive:
            belongs = self._rollup.worker(target.pid, target.start_ticks) is not None
        else:
            belongs = _has(self._service(service), target)
        if not belongs:
            raise ActFailed(f"pid {target.pid} does not belong to {service.name} any more; nothing was sent")

    def _service(self, view: ServiceView) -> Service:
        service = self._rollup.services.get(view.master.pid)
        if service is None or service.stopped_event is not None or _master(service) != view.master:
            raise ActFailed(f"the master of {view.name} (pid {view.master.pid}) ended meanwhile")
        return service

    async def until(self, is_true: Callable[[], bool], within_s: float) -> bool:
        """Looks at every birth, readiness and death, until it is true or the time is up."""
        ends_s, woken = time.monotonic() + within_s, asyncio.Event()
        self._waiting.add(woken)
        try:
            while not is_true():
                woken.clear()
                try:
                    async with asyncio.timeout(ends_s - time.monotonic()):
                        await woken.wait()
                except TimeoutError:
                    return is_true()
        finally:
            self._waiting.discard(woken)
        return True

    def _view(self, service: Service) -> ServiceView:
        workers = sorted(service.workers.values(), key=lambda w: (w.ref.start_ticks, w.ref.pid))
        return ServiceView(
            name=service.name,
            kind=service.kind,
            master=_master(service),
            workers=tuple(_worker_view(worker) for worker in workers),
            uid=self._procfs.only_user(service.master_pid),
            argv=service.argv,
            folder=service.folder or "/",
            environment=self._procfs.environment(service.master_pid),
            manager=service.manager,
            cgroup=service.cgroup,
            settings=service.settings,
            owed=service.slots.owed_since(time.time_ns() // 1000 - OWED_US),
        )


def _master(service: Service) -> Target:
    return Target(service.master_pid, service.start_ticks)


def _worker_view(worker: Worker) -> WorkerView:
    return WorkerView(_target(worker), worker.ref.slot, worker.ready_us is not None)


def _target(worker: Worker) -> Target:
    return Target(worker.ref.pid, worker.ref.start_ticks)


def _has(service: Service, target: Target) -> bool:
    return _master(service) == target or any(_target(worker) == target for worker in service.workers.values())
