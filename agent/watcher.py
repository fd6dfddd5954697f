"""Follows services: kernel records and looks into /proc become calls of the rollup; steers the kernel's filter."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from agent.clock import Clock
from agent.deaths import SIGABRT
from agent.discovery import FoundMaster, FoundWorker, find_masters
from agent.doubts import Doubts
from agent.heartbeats import HeartbeatFiles
from agent.kernel.records import ExecRecord, ExitRecord, ForkRecord, OomRecord, Record, Role, SignalRecord
from agent.looks import Looks
from agent.making import Maker
from agent.memory import Memory, Remembered
from agent.overrides import NONE, Override
from agent.procfs import Process, ProcFs
from agent.rollup import NS_PER_TICK, Rollup
from agent.service import Birth, Service, Worker
from agent.wire import Event
from agent.workers import KINDS, gunicorn, uwsgi
from agent.workers.kind import Child, Command, Kind

MAX_CANDIDATES = 4096
CANDIDATE_AGE_US = 60_000_000
CANDIDATE_FORKS = 3
"""A Python program that is no service by its command line may embed Gunicorn; its first forks show whether it does."""

UP_AFTER_US = 2_000_000
"""After this time a process whose command line is a service's is one, even where nothing else shows it. A launcher
that leaves the work to a daemon has ended by then."""

UNPROVEN_FOR_US = 600_000_000
"""How long a fork of a master may take to show whether it is a worker."""

MAX_UNPROVEN = 1024
RELOADS_FOR_US = 5_000_000
"""After a signal to a master its release may be another one."""

_ANCESTORS = 16


class KernelFilter(Protocol):
    """What the watcher tells the kernel: whom to follow, and which listeners to measure."""

    def track(self, pid: int, start_ns: int, role: Role) -> None: ...

    def untrack(self, pid: int) -> None: ...

    def watch_listener(self, inode: int) -> None: ...

    def forget_listener(self, inode: int) -> None: ...


@dataclass(slots=True)
class _Candidate:
    """A process that may become a master. `process` is as it was at exec, before anything wrote over its title.

    `executed`: it became this program by itself; else it is a fork of another candidate.
    """

    process: Process
    kind: Kind | None
    command: Command
    since_us: int
    executed: bool = True
    forks_left: int = CANDIDATE_FORKS
    children: dict[int, ForkRecord] = field(default_factory=dict)

    @property
    def by_command(self) -> bool:
        """Whether the command line says that it will be one."""
        return self.kind is not None and not self.command.one_shot


@dataclass(frozen=True, slots=True)
class _Unproven:
    """A fork of a master that may be a worker; `argv` is the master's."""

    service: Service
    fork: ForkRecord
    argv: tuple[str, ...]
    seen: Birth


class Watcher:
    """All that the agent knows of the host's services, kept true by records and by looks into /proc."""

    def __init__(
        self,
        procfs: ProcFs,
        rollup: Rollup,
        clock: Clock,
        kernel: KernelFilter | None,
        memory: Memory | None = None,
        overrides: Sequence[Override] = NONE,
        network: str | None = None,
        *,
        believes_titles: bool = False,
    ) -> None:
        """With `network`, only services in the network namespace of that name are followed. `believes_titles`: nobody looks
        again, so a title is taken as it is."""
        self._memory = memory
        self._kept = -1
        self._procfs = procfs
        self._looks = Looks(procfs)
        self._maker = Maker(procfs, self._looks, overrides, rollup.services)
        self.heartbeats = HeartbeatFiles(procfs, clock)
        self._rollup = rollup
        self._clock = clock
        self._kernel = kernel
        self._network = network
        self._candidates: dict[int, _Candidate] = {}
        self._unproven: dict[int, _Unproven] = {}
        self._hopeful: set[int] = set()
        self._doubts = Doubts()
        self._believes_titles = believes_titles

    @property
    def is_in_doubt(self) -> bool:
        """Whether a look has met a master whose name is not certain: another look tells it."""
        return bool(self._doubts)

    @property
    def expects_more(self) -> bool:
        """Whether some process may turn out to be a service or a worker; cheap enough to ask after every record."""
        return bool(self._unproven or self._hopeful)

    def waits_since_us(self) -> int | None:
        """When the youngest of those began that `look_for_ready` looks at; None when there is nothing to look at."""
        hopeful = [self._candidates[pid].since_us for pid in self._hopeful if pid in self._candidates]
        forks = [self._clock.boot_to_us(one.fork.at_ns) for one in self._unproven.values()]
        return max([*hopeful, *forks, *(worker.started_us for worker in self._rollup.booting())], default=None)

    def on_record(self, record: Record) -> list[Event]:
        """The events that follow from one kernel record."""
        at_us = self._clock.boot_to_us(record.at_ns)
        match record:
            case ForkRecord():
                return self._forked(record, at_us)
            case ExecRecord():
                return self._executed(record, at_us)
            case ExitRecord():
                return self._exited(record, at_us)
            case OomRecord():
                return self._rollup.oom_marked(record, at_us, service=self._service_around(record.pid))
            case SignalRecord():
                return self._rollup.signalled(record, at_us, heartbeat_age_s=self._age_at_abort_s(record))

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
        is_worker = self._rollup.worker_pids().__contains__
        doubtful: set[Hashable] = set()
        for found in find_masters(self._procfs, self._maker.kind, self._network, is_worker):
            ident = (found.process.pid, found.process.start_ticks)
            known = self._rollup.services.get(found.process.pid)
            if known is not None and known.start_ticks == found.process.start_ticks:
                events += self._new_workers(known, found)
            elif self._is_doubtful(found) and self._doubts.may_wait(ident, self._clock.monotonic_ns()):
                doubtful.add(ident)
            else:
                events += self._promote_found(found) or self._adopt(found)
                adopted = True
        self._doubts.keep(doubtful)
        return events, adopted

    def _is_doubtful(self, found: FoundMaster) -> bool:
        """Whether a master's name may have the mark of a second one whose first one has just ended."""
        process = found.process
        if self._believes_titles or self._maker.is_named(process):
            return False
        is_second = found.kind.KIND == gunicorn.KIND and gunicorn.is_second(process.argv)
        if not is_second or process.pid in self._candidates or process.parent_pid in self._rollup.services:
            return False
        return self._recall(process.pid, process.start_ticks) is None

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
        """Looks at processes that may have become services or workers, and at workers that boot."""
        events = self._promote_those_up()
        for pid in list(self._unproven):
            events += self._prove(pid)
        for worker in list(self._rollup.booting()):
            events += self._ready_if_seen(worker, holder=worker.ref.pid)
        return events

    def tick(self) -> list[Event]:
        """Once a second: forgets candidates that came to nothing, tells what was waited for in vain."""
        now_us = self._clock.now_us()
        for pid, candidate in list(self._candidates.items()):
            gone = self._procfs.start_ticks(pid) != candidate.process.start_ticks
            if gone or (not candidate.by_command and now_us - candidate.since_us > CANDIDATE_AGE_US):
                self._drop_candidate(pid)
        for pid, one in list(self._unproven.items()):
            if now_us - self._clock.boot_to_us(one.fork.at_ns) > UNPROVEN_FOR_US:
                self._give_up(pid)
        for service in self._rollup.services.values():
            if now_us - service.signalled_us < RELOADS_FOR_US:
                self._maker.look_again(service)
        if self._memory is not None and self._rollup.changes != self._kept:
            self._kept = self._rollup.changes
            self._memory.keep(self._rollup.services.values())
        return self._rollup.tick(now_us)

    # Births.

    def _executed(self, record: ExecRecord, at_us: int) -> list[Event]:
        if record.pid in self._unproven:
            proven = self._prove(record.pid)
            if proven or record.role != Role.CANDIDATE:
                self._unproven.pop(record.pid, None)
                return proven
        if self._rollup.worker(record.pid, record.start_ns // NS_PER_TICK) is not None:
            self._track(record.pid, record.start_ns, Role.WORKER)  # its fork was read after its exec
            return []
        if self._network not in (None, self._procfs.network(record.pid)):
            if self._kernel is not None:
                self._kernel.untrack(record.pid)
            return []
        process = self._procfs.process(record.pid)
        if record.role == Role.MASTER and process is not None:
            self._master_executed(process)
        if record.role != Role.CANDIDATE or process is None:
            return []
        kind = self._maker.kind(process)
        if kind is None and record.role_before in (Role.WORKER, Role.HELPER) and not self._may_embed_gunicorn(record):
            self._unproven.pop(record.pid, None)
            self._track(record.pid, record.start_ns, Role.HELPER)
            return []
        self._unproven.pop(record.pid, None)
        self._add_candidate(_Candidate(process, kind, self._maker.command(kind, process), at_us))
        return []

    def _may_embed_gunicorn(self, record: ExecRecord) -> bool:
        """Whether a program of somebody's own may be a new master that Gunicorn's old one begins (USR2)."""
        parent = self._rollup.services.get(record.parent_pid)
        return parent is not None and parent.kind == gunicorn.KIND

    def _master_executed(self, process: Process) -> None:
        """A master that becomes its own program anew, as uWSGI does on a reload, may have other settings then."""
        service = self._rollup.services.get(process.pid)
        if service is None or service.start_ticks != process.start_ticks:
            return
        command = self._maker.command(KINDS[service.kind], process)
        service.settings, service.timeout_s = command.settings, command.settings.timeout_s
        service.broker_urls = command.broker_urls or service.broker_urls
        self._maker.look_again(service)

    def _forked(self, record: ForkRecord, at_us: int) -> list[Event]:
        service = self._rollup.services.get(record.parent_pid)
        if service is not None:
            return self._worker_forked(service, record, at_us)
        candidate = self._candidates.get(record.parent_pid)
        if candidate is None:
            return []
        candidate.children[record.pid] = record
        if self._is_gunicorn_master(record.parent_pid, candidate):
            return self._promote(record.parent_pid, candidate)
        child = self._procfs.process(record.pid)
        if child is not None:
            self._add_candidate(_Candidate(child, candidate.kind, candidate.command, at_us, executed=False))
        candidate.forks_left -= 1
        if candidate.forks_left <= 0 and not candidate.by_command:
            self._drop_candidate(record.parent_pid)
        return []

    def _is_gunicorn_master(self, pid: int, candidate: _Candidate) -> bool:
        may_be = candidate.kind is None or candidate.kind.KIND == gunicorn.KIND
        return may_be and gunicorn.is_up(self._looks, pid, (), candidate.command)

    def _promote_those_up(self) -> list[Event]:
        """Candidates that have become services. A child of a candidate waits for what becomes of its parent.

        One that is a program of its own does not wait for a parent of no known kind, such as a supervisor written in Python.
        """
        now_us = self._clock.now_us()
        events: list[Event] = []
        self._hopeful &= self._candidates.keys()
        for pid in sorted(self._hopeful):
            candidate = self._candidates.get(pid)
            kind = None if candidate is None else candidate.kind
            if candidate is None or kind is None or kind.KIND == gunicorn.KIND:
                continue
            process = self._procfs.process(pid)
            if process is None or self._waits_for_parent(process, candidate):
                continue
            children = [child for child in candidate.children if self._procfs.parent_pid(child) == pid]
            is_old = now_us - candidate.since_us > UP_AFTER_US
            if is_old or kind.is_up(self._looks, pid, children, candidate.command):
                events += self._promote(pid, candidate)
        return events

    def _waits_for_parent(self, process: Process, candidate: _Candidate) -> bool:
        parent = self._candidates.get(process.parent_pid)
        return parent is not None and (parent.kind is not None or not candidate.executed)

    def _promote(self, pid: int, candidate: _Candidate) -> list[Event]:
        """A candidate has become a service."""
        del self._candidates[pid]
        kind = candidate.kind or KINDS[gunicorn.KIND]
        service = self._maker.service(kind, candidate.process, candidate.command)
        parent_pid = candidate.process.parent_pid
        events = self._rollup.service_appeared(service, candidate.since_us, started=True, parent_pid=parent_pid)
        self._follow(service)
        for child in candidate.children.values():
            known = self._candidates.get(child.pid)
            if known is not None and known.kind is not None and known.executed:
                continue  # another service, such as a vassal of an emperor
            self._candidates.pop(child.pid, None)
            if self._procfs.parent_pid(child.pid) in (pid, None):
                events += self._worker_forked(
                    service, child, self._clock.boot_to_us(child.at_ns), candidate.process.argv
                )
        return events

    def _worker_forked(
        self, service: Service, record: ForkRecord, at_us: int, argv: tuple[str, ...] | None = None
    ) -> list[Event]:
        """A fork of a master is a worker if it holds a heartbeat file that no other worker has, or as its kind tells."""
        start_ticks = record.start_ns // NS_PER_TICK
        if self._rollup.worker(record.pid, start_ticks) is not None:
            return []
        if at_us - service.signalled_us < RELOADS_FOR_US:
            self._maker.look_again(service)  # the worker runs the release that its master has come to
        argv = self._procfs.command(service.master_pid) if argv is None else argv
        if len(self._unproven) >= MAX_UNPROVEN:
            self._give_up(next(iter(self._unproven)))
        self._unproven[record.pid] = _Unproven(service, record, argv, Birth.FORK)
        return self._prove(record.pid)

    def _prove(self, pid: int) -> list[Event]:
        """Looks whether a fork of a master is a worker."""
        one = self._unproven[pid]
        service, fork = one.service, one.fork
        inode = None
        if service.kind == gunicorn.KIND:
            inode = self.heartbeats.of_new_worker(service, pid, fork.at_ns)
            what = Child.UNKNOWN if inode is None else Child.WORKER
        else:
            what = KINDS[service.kind].child(self._looks, pid, one.argv, service.settings)
        if what is Child.HELPER:
            self._give_up(pid)
        if what is not Child.WORKER or self._procfs.start_ticks(pid) != fork.start_ns // NS_PER_TICK:
            return []
        del self._unproven[pid]
        self._candidates.pop(pid, None)
        self._track(pid, fork.start_ns, Role.WORKER)
        return self._appeared(one, inode)

    def _appeared(self, one: _Unproven, heartbeat_inode: int | None) -> list[Event]:
        fork, at_us = one.fork, self._clock.boot_to_us(one.fork.at_ns)
        start_ticks = fork.start_ns // NS_PER_TICK
        master = (one.service.master_pid, one.service.start_ticks)
        remembered = self._recall(*master) if one.seen is Birth.UNSEEN else None
        lane = None if remembered is None else remembered.lanes.get((fork.pid, start_ticks))
        return self._rollup.worker_appeared(
            one.service, fork.pid, start_ticks, at_us, heartbeat_inode=heartbeat_inode, seen=one.seen, lane=lane
        )

    def _give_up(self, pid: int) -> None:
        """A fork of a master that is no worker."""
        one = self._unproven.pop(pid)
        if self._procfs.start_ticks(pid) == one.fork.start_ns // NS_PER_TICK:
            self._track(pid, one.fork.start_ns, Role.HELPER)

    def _promote_found(self, found: FoundMaster) -> list[Event]:
        """A look finds a master whose start was seen, before its records have shown what it is: it has started, then."""
        pid = found.process.pid
        candidate = self._candidates.get(pid)
        if (
            candidate is None
            or candidate.process.start_ticks != found.process.start_ticks
            or candidate.command.one_shot
        ):
            return []
        events = self._promote(pid, replace(candidate, kind=found.kind))
        return events + self._new_workers(self._rollup.services[pid], found)

    def _adopt(self, found: FoundMaster) -> list[Event]:
        process = found.process
        command = self._maker.command(found.kind, process)
        if command.one_shot:
            return []
        command = replace(command, is_second=False)  # its title is believed by now
        candidate = self._candidates.pop(process.pid, None)
        if candidate is not None:
            process, command = replace(process, argv=candidate.process.argv), candidate.command
        remembered = self._recall(process.pid, process.start_ticks)
        if remembered is not None and len(process.argv) == 1:
            process = replace(process, argv=remembered.argv or process.argv)  # a title has taken its place
        service = self._maker.service(found.kind, process, command)
        if remembered is not None:
            service.name = service.name if self._maker.is_named(process) else remembered.name
            service.settings = remembered.settings
            service.timeout_s = remembered.settings.timeout_s
            service.manager = remembered.manager or service.manager
        events = self._rollup.service_appeared(
            service, self._clock.now_us(), started=False, parent_pid=process.parent_pid
        )
        self._follow(service)
        return events + self._new_workers(service, found, Birth.UNSEEN)

    def _new_workers(self, service: Service, found: FoundMaster, seen: Birth = Birth.SCAN) -> list[Event]:
        events: list[Event] = []
        for one in found.children:
            if self._rollup.worker(one.pid, one.start_ticks) is None and one.pid not in self._unproven:
                events += self._met(service, found, one, seen)
        return events

    def _met(self, service: Service, found: FoundMaster, child: FoundWorker, seen: Birth) -> list[Event]:
        """A child of a master that a look into /proc found."""
        start_ns = child.start_ticks * NS_PER_TICK
        fork = ForkRecord(start_ns, start_ns, child.pid, service.master_pid, Role.WORKER)
        one = self._unproven[child.pid] = _Unproven(service, fork, found.process.argv, seen)
        if child.heartbeat_inode is None:
            events = self._prove(child.pid)
        else:
            del self._unproven[child.pid]
            self._track(child.pid, start_ns, Role.WORKER)
            events = self._appeared(one, child.heartbeat_inode)
        worker = self._rollup.worker(child.pid, child.start_ticks)
        if worker is not None and seen is Birth.UNSEEN:
            self._ready_if_seen(worker, holder=child.pid, seen_starting=False)
        return events

    def _recall(self, pid: int, start_ticks: int) -> Remembered | None:
        return None if self._memory is None else self._memory.recall(pid, start_ticks)

    def _follow(self, service: Service) -> None:
        self._track(service.master_pid, service.start_ticks * NS_PER_TICK, Role.MASTER)
        if self._kernel is not None:
            for listener in service.listeners:
                self._kernel.watch_listener(listener.inode)

    # Deaths.

    def _exited(self, record: ExitRecord, at_us: int) -> list[Event]:
        events: list[Event] = []
        candidate = self._candidates.pop(record.pid, None)
        if candidate is not None and candidate.kind is not None and candidate.by_command:
            was_fork = candidate.process.parent_pid in self._candidates
            service = self._maker.service(candidate.kind, candidate.process, candidate.command)
            events += [] if was_fork else self._rollup.never_started(service, record, at_us)
        unproven = self._unproven.pop(record.pid, None)
        if unproven is not None and _dies_as_worker(unproven.service):
            events += self._appeared(unproven, None)
        worker = self._rollup.worker(record.pid, record.start_ns // NS_PER_TICK)
        if worker is not None and worker.ready_us is None and worker.heartbeat_inode is not None:
            events += self._ready_if_seen(worker, holder=worker.service.master_pid)
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

    def _ready_if_seen(self, worker: Worker, *, holder: int, seen_starting: bool = True) -> list[Event]:
        """Looks whether a worker can take work: by its heartbeat, which `holder` has open, or as its kind tells."""
        kind = KINDS[worker.service.kind]
        is_ready = kind.is_ready(self._looks, worker.ref.pid)
        if is_ready is None:
            beat_ns = self.heartbeats.last_beat_ns(worker, holder)
            at_us = None if beat_ns is None else self._clock.monotonic_to_us(beat_ns)
        else:
            at_us = self._clock.now_us() if is_ready or (kind.SIGNS.forks_ready and not seen_starting) else None
        return [] if at_us is None else self._rollup.worker_ready(worker, at_us, seen_starting=seen_starting)

    def _age_at_abort_s(self, record: SignalRecord) -> float | None:
        worker = self._rollup.worker(record.pid) if record.signal == SIGABRT else None
        if worker is None or record.sender_pid != worker.service.master_pid:
            return None
        return self.heartbeats.age_at_abort_s(worker, record.at_ns)

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
        if candidate.by_command:
            self._hopeful.add(candidate.process.pid)

    def _drop_candidate(self, pid: int) -> None:
        candidate = self._candidates.pop(pid)
        still_there = self._procfs.start_ticks(pid) == candidate.process.start_ticks
        if self._kernel is not None and still_there:
            self._kernel.untrack(pid)


def _dies_as_worker(service: Service) -> bool:
    """Whether a fork that ended before it showed what it was counts as a worker: where a master forks nothing else."""
    return service.kind == gunicorn.KIND or (service.kind == uwsgi.KIND and service.settings.role is None)
