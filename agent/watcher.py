"""Follows services: kernel records and looks into /proc become calls of the rollup; steers the kernel's filter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from agent.clock import Clock
from agent.deaths import SIGABRT
from agent.discovery import FoundMaster, find_masters
from agent.kernel.records import ExecRecord, ExitRecord, ForkRecord, OomRecord, Record, Role, SignalRecord
from agent.procfs import Process, ProcFs
from agent.rollup import NS_PER_TICK, Rollup
from agent.service import Birth, Service, Worker
from agent.slots import Slots
from agent.wire import Event
from agent.workers import gunicorn

MAX_CANDIDATES = 4096
CANDIDATE_AGE_US = 60_000_000
CANDIDATE_FORKS = 3
"""A Python program that is not Gunicorn by its command line may embed it; its first forks show whether it does."""

_ANCESTORS = 16


class KernelFilter(Protocol):
    """What the watcher tells the kernel: whom to follow, and which listeners to measure."""

    def track(self, pid: int, start_ns: int, role: Role) -> None: ...

    def untrack(self, pid: int) -> None: ...

    def watch_listener(self, inode: int) -> None: ...

    def forget_listener(self, inode: int) -> None: ...


@dataclass(slots=True)
class _Candidate:
    """A process that may become a master. `process` is as it was at exec, before anything wrote over its title."""

    process: Process
    command: gunicorn.CommandLine
    by_command: bool
    since_us: int
    forks_left: int = CANDIDATE_FORKS
    children: dict[int, ForkRecord] = field(default_factory=dict)


class Watcher:
    """All that the agent knows of the host's services, kept true by records and by looks into /proc."""

    def __init__(self, procfs: ProcFs, rollup: Rollup, clock: Clock, kernel: KernelFilter | None) -> None:
        self._procfs = procfs
        self._rollup = rollup
        self._clock = clock
        self._kernel = kernel
        self._candidates: dict[int, _Candidate] = {}
        self._unproven: dict[int, tuple[Service, ForkRecord]] = {}

    def on_record(self, record: Record) -> list[Event]:
        """The events that follow from one kernel record."""
        at_us = self._clock.boot_to_us(record.at_ns)
        match record:
            case ForkRecord():
                return self._forked(record, at_us)
            case ExecRecord():
                self._executed(record, at_us)
                return []
            case ExitRecord():
                return self._exited(record, at_us)
            case OomRecord():
                return self._rollup.oom_marked(record, at_us, service=self._service_around(record.pid))
            case SignalRecord():
                return self._rollup.signalled(record, at_us, heartbeat_age_s=self._heartbeat_age_s(record))

    def scan(self) -> list[Event]:
        """Looks through /proc for services that are not known yet, and for workers of known ones.

        The kernel reports a master's forks only once the master is followed. So after a new master the look is
        repeated: a worker forked between the two is found by the second.
        """
        events, adopted = self._look_around()
        return events + self._look_around()[0] if adopted else events

    def _look_around(self) -> tuple[list[Event], bool]:
        events: list[Event] = []
        adopted = False
        for found in find_masters(self._procfs):
            known = self._rollup.services.get(found.process.pid)
            if known is None or known.start_ticks != found.process.start_ticks:
                events += self._adopt(found)
                adopted = True
            else:
                events += self._new_workers(known, found)
        return events, adopted

    def scan_for_deaths(self, read_records: Callable[[], None] = lambda: None) -> list[Event]:
        """Finds out from /proc who is gone without a record of its end.

        `read_records` is called after the look: who ended just before it has its record waiting, which tells more.
        """
        services = list(self._rollup.services.values())
        gone = {w.ref for s in services for w in s.workers.values() if self._is_not(w.ref.pid, w.ref.start_ticks)}
        gone_masters = {s.master_pid for s in services if self._is_not(s.master_pid, s.start_ticks)}
        read_records()
        now_us = self._clock.now_us()
        events: list[Event] = []
        for service in services:
            for worker in [worker for worker in service.workers.values() if worker.ref in gone]:
                events += self._rollup.vanished(worker, now_us)
            if service.master_pid in gone_masters and service.stopped_event is None:
                events += self._rollup.master_vanished(service, now_us)
        return events

    def is_gone(self, pid: int, start_ns: int) -> bool:
        """Whether the process that started then, in ns since boot, is there no more."""
        return self._is_not(pid, start_ns // NS_PER_TICK)

    def _is_not(self, pid: int, start_ticks: int) -> bool:
        return self._procfs.start_ticks(pid) != start_ticks

    def look_for_ready(self) -> list[Event]:
        """Looks at the heartbeat files of workers that boot."""
        events: list[Event] = []
        for worker in list(self._rollup.booting()):
            events += self._ready_if_beating(worker, holder=worker.ref.pid)
        return events

    def tick(self) -> list[Event]:
        """Once a second: forgets candidates that came to nothing, tells what was waited for in vain."""
        now_us = self._clock.now_us()
        for pid, candidate in list(self._candidates.items()):
            gone = self._procfs.start_ticks(pid) != candidate.process.start_ticks
            if gone or (not candidate.by_command and now_us - candidate.since_us > CANDIDATE_AGE_US):
                self._drop_candidate(pid)
        return self._rollup.tick(now_us)

    # Births.

    def _executed(self, record: ExecRecord, at_us: int) -> None:
        self._unproven.pop(record.pid, None)
        if record.role != Role.CANDIDATE:
            return
        process = self._procfs.process(record.pid)
        if process is None:
            return
        by_command = gunicorn.is_command(process.argv)
        if not by_command and record.role_before in (Role.WORKER, Role.HELPER):
            self._track(record.pid, record.start_ns, Role.HELPER)
            return
        command = self._command(process)
        self._add_candidate(_Candidate(process, command, by_command and not command.one_shot, at_us))

    def _forked(self, record: ForkRecord, at_us: int) -> list[Event]:
        service = self._rollup.services.get(record.parent_pid)
        if service is not None:
            return self._worker_forked(service, record, at_us)
        candidate = self._candidates.get(record.parent_pid)
        if candidate is None:
            return []
        candidate.children[record.pid] = record
        if self._procfs.open_files(record.parent_pid, gunicorn.HEARTBEAT_MARK):
            return self._promote(record.parent_pid, candidate)
        child = self._procfs.process(record.pid)
        if child is not None:
            self._add_candidate(_Candidate(child, candidate.command, candidate.by_command, at_us))
        candidate.forks_left -= 1
        if candidate.forks_left <= 0 and not candidate.by_command:
            self._drop_candidate(record.parent_pid)
        return []

    def _promote(self, pid: int, candidate: _Candidate) -> list[Event]:
        """A candidate holds a heartbeat file: it is a master."""
        del self._candidates[pid]
        service = self._new_service(candidate.process, candidate.command)
        parent_pid = candidate.process.parent_pid
        events = self._rollup.service_appeared(service, candidate.since_us, started=True, parent_pid=parent_pid)
        self._follow(service)
        for child in candidate.children.values():
            self._candidates.pop(child.pid, None)
            events += self._worker_forked(service, child, self._clock.boot_to_us(child.at_ns))
        return events

    def _worker_forked(self, service: Service, record: ForkRecord, at_us: int) -> list[Event]:
        """A fork of a master is a worker if it holds a heartbeat file that no other worker has."""
        start_ticks = record.start_ns // NS_PER_TICK
        if self._rollup.worker(record.pid, start_ticks) is not None:
            return []
        others = frozenset(w.heartbeat_inode for w in service.workers.values() if w.heartbeat_inode is not None)
        own = gunicorn.heartbeat(self._procfs.open_files(record.pid, gunicorn.HEARTBEAT_MARK), others)
        if own is None:
            self._unproven[record.pid] = (service, record)
            return []
        self._track(record.pid, record.start_ns, Role.WORKER)
        return self._rollup.worker_appeared(
            service, record.pid, start_ticks, at_us, heartbeat_inode=own.inode, seen=Birth.FORK
        )

    def _adopt(self, found: FoundMaster) -> list[Event]:
        process = found.process
        command = self._command(process)
        service = self._new_service(process, command)
        events = self._rollup.service_appeared(
            service, self._clock.now_us(), started=False, parent_pid=process.parent_pid
        )
        self._follow(service)
        for worker in found.workers:
            self._adopt_worker(service, worker.pid, worker.start_ticks, worker.heartbeat_inode)
        return events

    def _adopt_worker(self, service: Service, pid: int, start_ticks: int, inode: int) -> None:
        started_us = self._clock.boot_to_us(start_ticks * NS_PER_TICK)
        self._rollup.worker_appeared(service, pid, start_ticks, started_us, heartbeat_inode=inode, seen=Birth.UNSEEN)
        self._track(pid, start_ticks * NS_PER_TICK, Role.WORKER)
        worker = self._rollup.worker(pid, start_ticks)
        if worker is not None:
            self._ready_if_beating(worker, holder=pid, seen_starting=False)

    def _new_workers(self, service: Service, found: FoundMaster) -> list[Event]:
        events: list[Event] = []
        for worker in found.workers:
            if self._rollup.worker(worker.pid, worker.start_ticks) is None:
                at_us = self._clock.boot_to_us(worker.start_ticks * NS_PER_TICK)
                inode = worker.heartbeat_inode
                events += self._rollup.worker_appeared(
                    service, worker.pid, worker.start_ticks, at_us, heartbeat_inode=inode, seen=Birth.SCAN
                )
                self._track(worker.pid, worker.start_ticks * NS_PER_TICK, Role.WORKER)
        return events

    def _command(self, process: Process) -> gunicorn.CommandLine:
        config = self._procfs.has_file(process.pid, gunicorn.CONFIG_FILE)
        environment = self._procfs.environment(process.pid)
        return gunicorn.parse_command(process.argv, environment, config_file_in_folder=config)

    def _new_service(self, process: Process, command: gunicorn.CommandLine) -> Service:
        """The service of a master. A title, once there, knows the name also where a configuration file gave it."""
        proc_name = gunicorn.title_name(self._procfs.command(process.pid)) or command.proc_name
        return Service(
            name=self._free_name(gunicorn.service_name(process, proc_name), process),
            kind=gunicorn.KIND,
            master_pid=process.pid,
            start_ticks=process.start_ticks,
            timeout_s=command.timeout_s,
            cgroup=process.cgroup,
            slots=Slots(),
            listeners=self._procfs.listeners(process.pid),
        )

    def _free_name(self, name: str, process: Process) -> str:
        """The name, with the listener's address if another living service has it that is not the new one's parent."""
        alive = [s for s in self._rollup.services.values() if s.name == name and s.stopped_event is None]
        if all(s.master_pid in (process.parent_pid, process.pid) for s in alive):
            return name
        listeners = self._procfs.listeners(process.pid)
        return f"{name} ({listeners[0].address if listeners else f'pid {process.pid}'})"

    def _follow(self, service: Service) -> None:
        self._track(service.master_pid, service.start_ticks * NS_PER_TICK, Role.MASTER)
        if self._kernel is not None:
            for listener in service.listeners:
                self._kernel.watch_listener(listener.inode)

    # Deaths.

    def _exited(self, record: ExitRecord, at_us: int) -> list[Event]:
        events: list[Event] = []
        candidate = self._candidates.pop(record.pid, None)
        if candidate is not None and candidate.by_command:
            events += self._rollup.never_started(self._new_service(candidate.process, candidate.command), record, at_us)
        unproven = self._unproven.pop(record.pid, None)
        if unproven is not None:
            service, fork = unproven
            events += self._rollup.worker_appeared(
                service,
                fork.pid,
                fork.start_ns // NS_PER_TICK,
                self._clock.boot_to_us(fork.at_ns),
                heartbeat_inode=None,
                seen=Birth.FORK,
            )
        worker = self._rollup.worker(record.pid, record.start_ns // NS_PER_TICK)
        if worker is not None and worker.ready_us is None:
            events += self._ready_if_beating(worker, holder=worker.service.master_pid)
        service_gone = self._rollup.services.get(record.pid)
        events += self._rollup.exited(record, at_us)
        if service_gone is not None and service_gone.stopped_event is not None:
            self._unwatch_listeners(service_gone)
        return events

    def _unwatch_listeners(self, service: Service) -> None:
        still_held = {li.inode for s in self._rollup.services.values() if s is not service for li in s.listeners}
        for listener in service.listeners:
            if self._kernel is not None and listener.inode not in still_held:
                self._kernel.forget_listener(listener.inode)

    # Looks.

    def _ready_if_beating(self, worker: Worker, *, holder: int, seen_starting: bool = True) -> list[Event]:
        beat_ns = self._last_beat_ns(worker, holder)
        if beat_ns is None:
            return []
        return self._rollup.worker_ready(worker, self._clock.monotonic_to_us(beat_ns), seen_starting=seen_starting)

    def _last_beat_ns(self, worker: Worker, holder: int) -> int | None:
        for file in self._procfs.open_files(holder, gunicorn.HEARTBEAT_MARK):
            if file.inode == worker.heartbeat_inode:
                return gunicorn.last_beat_ns(
                    file, uptime_ns=self._clock.monotonic_ns(), wall_offset_ns=self._clock.monotonic_to_wall_ns
                )
        return None

    def _heartbeat_age_s(self, record: SignalRecord) -> float | None:
        """How long a worker has been silent when its master aborts it; read through the master's own descriptor."""
        if record.signal != SIGABRT:
            return None
        worker = self._rollup.worker(record.pid)
        if worker is None or record.sender_pid != worker.service.master_pid:
            return None
        beat_ns = self._last_beat_ns(worker, worker.service.master_pid)
        if beat_ns is None:
            return None
        return max(self._clock.boot_to_us(record.at_ns) - self._clock.monotonic_to_us(beat_ns), 0) / 1e6

    def _service_around(self, pid: int) -> Service | None:
        """The service that a process belongs to: an ancestor is its worker or master, or it shares its cgroup."""
        ancestor: int | None = pid
        for _ in range(_ANCESTORS):
            if not ancestor:
                break
            service = self._rollup.recent_service(ancestor)
            if service is not None:
                return service
            ancestor = self._procfs.parent_pid(ancestor)
        process = self._procfs.process(pid)
        if process is None or process.cgroup in ("", "/"):
            return None
        return next((s for s in self._rollup.services.values() if s.cgroup == process.cgroup), None)

    # The kernel's filter.

    def _track(self, pid: int, start_ns: int, role: Role) -> None:
        if self._kernel is not None:
            self._kernel.track(pid, start_ns, role)

    def _add_candidate(self, candidate: _Candidate) -> None:
        if len(self._candidates) >= MAX_CANDIDATES:
            self._drop_candidate(next(iter(self._candidates)))
        self._candidates[candidate.process.pid] = candidate

    def _drop_candidate(self, pid: int) -> None:
        candidate = self._candidates.pop(pid)
        still_there = self._procfs.start_ticks(pid) == candidate.process.start_ticks
        if self._kernel is not None and still_there:
            self._kernel.untrack(pid)
