"""From kernel records and findings in /proc to events: the state of a host's services, and what it tells. Pure.

Every method takes times from outside (`at_us`, UTC microseconds) and returns the events that follow, in causal order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from agent import sentences
from agent.deaths import SIGKILL, DeathRules, certify, signal_evidence
from agent.identity import home_of
from agent.kernel.records import ExitRecord, OomRecord, SignalRecord
from agent.service import Birth, Service, Worker
from agent.slots import Predecessor, Slots
from agent.wire import Event, Evidence, Scalar, Severity, WorkerRef
from agent.workers import KINDS
from agent.workers.kind import Signs

NS_PER_TICK = 10_000_000
"""The kernel shows start times to user space in ticks of 1/100 s, on every architecture that Reflex runs on."""

OOM_CONFIRM_US = 2_000_000
"""How long a process that the OOM killer marked may take to end before the mark is told by itself."""

TOMBSTONE_US = 5_000_000
"""How long a process that ended is still known, so that late facts about it, or by it, find their service."""

LONGEST_SETTING = 200
"""Of a setting in an event, in characters: a command line can be longer than any event may be."""

SIGNAL_EXPLAINS_US = 60_000_000
"""How long a control signal to a master explains what the master does to its workers."""


@dataclass(frozen=True, slots=True)
class _Tombstone:
    """A worker, or a master (`worker` is None), that ended at `at_us`."""

    service: Service
    worker: Worker | None
    at_us: int


@dataclass(frozen=True, slots=True)
class _Marked:
    """A process that the OOM killer chose and whose end has not been seen yet."""

    record: OomRecord
    at_us: int
    service: Service | None


class Rollup:
    """All services of one host."""

    def __init__(self, event_id: Callable[[int], str]) -> None:
        """`event_id` makes an id for a time in UTC microseconds. `changes` counts masters and workers that came or went."""
        self._event_id = event_id
        self.services: dict[int, Service] = {}
        self.changes = 0
        self._slots: dict[str, Slots] = {}
        self._marked: dict[int, _Marked] = {}
        self._tombstones: dict[int, _Tombstone] = {}

    # What is there.

    def worker(self, pid: int, start_ticks: int | None = None) -> Worker | None:
        """The worker with this pid; with `start_ticks`, only if it is that very process."""
        for service in self.services.values():
            found = service.workers.get(pid)
            if found is not None and start_ticks in (None, found.ref.start_ticks):
                return found
        return None

    def worker_pids(self) -> frozenset[int]:
        """The pids of all living workers."""
        return frozenset(pid for service in self.services.values() for pid in service.workers)

    def recent_worker(self, pid: int) -> Worker | None:
        """The worker with this pid, also one that ended in the last seconds."""
        living = self.worker(pid)
        if living is not None:
            return living
        tombstone = self._tombstones.get(pid)
        return None if tombstone is None else tombstone.worker

    def recent_service(self, pid: int) -> Service | None:
        """The service whose master or worker has this pid, or had it in the last seconds."""
        if pid in self.services:
            return self.services[pid]
        worker = self.worker(pid)
        if worker is not None:
            return worker.service
        tombstone = self._tombstones.get(pid)
        return None if tombstone is None else tombstone.service

    def booting(self) -> Iterator[Worker]:
        """The workers that have not been seen ready."""
        return (w for s in self.services.values() for w in s.workers.values() if w.ready_us is None)

    # What happens.

    def service_appeared(self, service: Service, at_us: int, *, started: bool, parent_pid: int) -> list[Event]:
        """A master is there: `started` when its start was seen, else it had been running before."""
        self.changes += 1
        service.slots = self._slots.setdefault(service.name, service.slots)
        self.services[service.master_pid] = service
        parent = self.services.get(parent_pid)
        cause = parent.signalled_event if parent is not None else None
        text = sentences.service_started(service) if started else sentences.service_found(service)
        event = self._event(
            at_us,
            "service.started" if started else "service.found",
            "info",
            text,
            service=service,
            cause=cause,
            evidence=(Evidence("procfs", f"pid {service.master_pid} {_signs(service).master}"),),
            attrs={"master_pid": service.master_pid, "kind": service.kind, **_told(service), **_home(service)},
        )
        service.started_event = event.id
        return [event]

    def worker_appeared(
        self,
        service: Service,
        pid: int,
        start_ticks: int,
        at_us: int,
        *,
        heartbeat_inode: int | None,
        seen: Birth,
        lane: tuple[int, int] | None = None,
    ) -> list[Event]:
        """A worker is there. One that had been there before anybody looked is only noted.

        `lane` is the slot and the generation that it is known to have had before the agent started.
        """
        slot, generation, predecessor = service.slots.take() if lane is None else service.slots.take_again(*lane)
        self.changes += 1
        ref = WorkerRef(slot, generation, pid, start_ticks)
        worker = Worker(ref, service, at_us, heartbeat_inode, release=service.release)
        service.workers[pid] = worker
        if seen is Birth.UNSEEN:
            return []
        cause = self._cause_of_start(service, predecessor, at_us)
        event = self._event(
            at_us,
            "worker.started",
            "info",
            sentences.worker_started(worker, predecessor),
            worker=worker,
            cause=cause,
            evidence=(
                Evidence(seen.value, f"pid {pid} is a child of pid {service.master_pid} {_signs(service).worker}"),
            ),
            attrs={} if predecessor is None else {"replaces_pid": predecessor.pid},
        )
        worker.started_event = event.id
        return [event]

    def worker_ready(self, worker: Worker, at_us: int, *, seen_starting: bool = True) -> list[Event]:
        """A worker's first heartbeat, at `at_us`. A worker that was ready before anybody looked makes no event."""
        worker.ready_us = max(at_us, worker.started_us)
        if not seen_starting:
            return []
        return [
            self._event(
                worker.ready_us,
                "worker.ready",
                "info",
                sentences.worker_ready(worker),
                worker=worker,
                cause=worker.started_event,
                evidence=(Evidence(_signs(worker.service).ready_source, _signs(worker.service).ready),),
                attrs={"boot_ms": (worker.ready_us - worker.started_us) // 1000},
            )
        ]

    def signalled(self, record: SignalRecord, at_us: int, *, heartbeat_age_s: float | None) -> list[Event]:
        """A telling signal was sent to a master or a worker."""
        service = self._master(record.pid, record.start_ns)
        if service is not None:
            service.signals.append(record)
            return self._master_signalled(service, record, at_us)
        worker = self.worker(record.pid, record.start_ns // NS_PER_TICK)
        if worker is None:
            return []
        worker.signals.append(record)
        by_master = record.sender_pid == worker.service.master_pid
        aborts = record.signal == KINDS[worker.service.kind].RULES.aborts_with
        if aborts and by_master and worker.stuck_event is None:
            return self._stuck(worker, record, at_us, heartbeat_age_s)
        return []

    def oom_marked(self, record: OomRecord, at_us: int, *, service: Service | None) -> list[Event]:
        """The OOM killer chose a victim. For a master or a worker the event waits for the end that confirms it.

        `service` is what a victim that is neither belongs to, by its ancestors or its cgroup.
        """
        if self.worker(record.pid) is not None or self._master(record.pid, record.start_ns) is not None:
            self._marked[record.pid] = _Marked(record, at_us, service)
            return []
        return [self._process_oom(record, at_us, service, confirmed=False)]

    def exited(self, record: ExitRecord, at_us: int) -> list[Event]:
        """A tracked process ended."""
        marked = self._marked.pop(record.pid, None)
        service = self._master(record.pid, record.start_ns)
        if service is not None:
            return self._master_exited(service, record, at_us, marked)
        worker = self.worker(record.pid, record.start_ns // NS_PER_TICK)
        return [] if worker is None else self._worker_exited(worker, record, at_us, marked)

    def never_started(self, service: Service, record: ExitRecord, at_us: int) -> list[Event]:
        """A process that was to become a master ended first. Exit code 0 is no failure: a daemon's parent ends so."""
        certificate = certify(record, (), None, master_pid=0)
        if record.wait_status == 0:
            return []
        return [
            self._event(
                at_us,
                "service.stopped",
                "critical",
                sentences.never_started(service, certificate),
                service=service,
                evidence=certificate.evidence,
                attrs=sentences.exit_attrs(record, certificate),
            )
        ]

    def vanished(self, worker: Worker, at_us: int) -> list[Event]:
        """A scan of /proc finds a worker gone whose end nobody reported."""
        event = self._event(
            at_us,
            "worker.exited",
            "warning",
            sentences.worker_vanished(worker),
            worker=worker,
            evidence=(Evidence("procfs", f"pid {worker.ref.pid} is no longer there"),),
            attrs={"death": "unknown"},
        )
        self._bury(worker, event, owed=True)
        return [event]

    def master_vanished(self, service: Service, at_us: int) -> list[Event]:
        """A scan of /proc finds a master gone whose end nobody reported."""
        text = sentences.master_vanished(service)
        event = self._event(at_us, "service.stopped", "warning", text, service=service, attrs={"death": "unknown"})
        self._master_gone(service, event)
        return [event]

    def tick(self, now_us: int) -> list[Event]:
        """Tells of OOM marks whose process has not ended in time; forgets those long gone."""
        for pid, tombstone in list(self._tombstones.items()):
            if now_us - tombstone.at_us > TOMBSTONE_US:
                del self._tombstones[pid]
        late = [m for m in self._marked.values() if now_us - m.at_us > OOM_CONFIRM_US]
        for mark in late:
            del self._marked[mark.record.pid]
        return [self._unconfirmed_oom(mark) for mark in late]

    # How events are made.

    def _worker_exited(self, worker: Worker, record: ExitRecord, at_us: int, marked: _Marked | None) -> list[Event]:
        oom = marked.record if marked is not None else None
        rules = _rules(worker.service)
        is_gone = worker.service.stopped_event is not None
        master_pid = worker.service.master_pid
        certificate = certify(record, tuple(worker.signals), oom, master_pid, rules, master_is_gone=is_gone)
        events = []
        unready = worker.health.boot_hung_event if worker.ready_us is None else None
        cause = worker.stuck_event if certificate.death == "master_timeout" else unready
        if marked is not None and certificate.death == "kernel_oom":
            events.append(self._worker_oom(worker, marked))
            cause = events[0].id
        elif worker.service.stopped_event is not None:
            cause = worker.service.stopped_event
        elif certificate.expected:
            cause = self._recent_signal(worker.service, at_us)
        attrs = sentences.exit_attrs(record, certificate)
        attrs["was_ready"] = worker.ready_us is not None
        attrs |= worker.health.attrs_at_death()
        if record.accepts is not None:
            attrs["accepts"] = record.accepts
        if not certificate.expected:
            attrs |= _artifact(worker)
        event = self._event(
            at_us,
            "worker.exited",
            certificate.severity,
            sentences.worker_exited(worker, record, certificate),
            worker=worker,
            cause=cause,
            evidence=(*certificate.evidence, *(() if certificate.expected else _kept(worker))),
            attrs=attrs,
        )
        self._bury(worker, event, owed=not certificate.expected)
        return [*events, event]

    def _worker_oom(self, worker: Worker, marked: _Marked) -> Event:
        allocator = self.recent_worker(marked.record.allocator_pid)
        return self._event(
            marked.at_us,
            "worker.oom_killed",
            "critical",
            sentences.worker_oom_killed(worker, marked.record, allocator),
            worker=worker,
            cause=worker.health.leaking_event,
            evidence=(*sentences.oom_evidence(marked.record), *_kept(worker)),
            attrs={"death": "kernel_oom", **sentences.oom_attrs(marked.record), **_artifact(worker)},
        )

    def _process_oom(self, record: OomRecord, at_us: int, service: Service | None, *, confirmed: bool) -> Event:
        return self._event(
            at_us,
            "process.oom_killed",
            "critical",
            sentences.process_oom_killed(record, service, confirmed=confirmed),
            service=service,
            evidence=sentences.oom_evidence(record),
            attrs=sentences.oom_attrs(record),
        )

    def _unconfirmed_oom(self, marked: _Marked) -> Event:
        worker = self.worker(marked.record.pid)
        service = worker.service if worker is not None else self.services.get(marked.record.pid)
        return self._process_oom(marked.record, marked.at_us, service or marked.service, confirmed=False)

    def _master_exited(self, service: Service, record: ExitRecord, at_us: int, marked: _Marked | None) -> list[Event]:
        oom = marked.record if marked is not None else None
        certificate = certify(record, tuple(service.signals), oom, 0, KINDS[service.kind].RULES)
        cause = service.signalled_event if certificate.decisive is not None else None
        events = []
        if marked is not None and certificate.death == "kernel_oom":
            events.append(self._process_oom(marked.record, marked.at_us, service, confirmed=True))
            cause = events[0].id
        asked = certificate.death in ("clean_exit", "stopped_by_process", "stopped_by_manager", "recycled")
        event = self._event(
            at_us,
            "service.stopped",
            "info" if asked else "critical",
            sentences.service_stopped(service, record, certificate),
            service=service,
            cause=cause,
            evidence=certificate.evidence,
            attrs=sentences.exit_attrs(record, certificate),
        )
        self._master_gone(service, event)
        return [*events, event]

    def _master_signalled(self, service: Service, record: SignalRecord, at_us: int) -> list[Event]:
        if record.sender_pid == record.pid or record.sender_pid in service.workers:
            return []
        event = self._event(
            at_us,
            "service.signalled",
            "warning" if record.signal == SIGKILL else "info",
            sentences.service_signalled(service, record),
            service=service,
            evidence=(signal_evidence(record),),
            attrs={"signal": record.signal, "sender_pid": record.sender_pid, "sender_uid": record.sender_uid},
        )
        service.signalled_event, service.signalled_us = event.id, at_us
        return [event]

    def _stuck(self, worker: Worker, record: SignalRecord, at_us: int, heartbeat_age_s: float | None) -> list[Event]:
        attrs = _timeout(worker.service) | _artifact(worker)
        if heartbeat_age_s is not None:
            attrs["heartbeat_age_s"] = round(heartbeat_age_s, 3)
        event = self._event(
            at_us,
            "worker.stuck",
            "critical",
            sentences.worker_stuck(worker, heartbeat_age_s),
            worker=worker,
            evidence=(signal_evidence(record), *sentences.heartbeat_evidence(heartbeat_age_s), *_kept(worker)),
            attrs=attrs,
        )
        worker.stuck_event = event.id
        return [event]

    def _cause_of_start(self, service: Service, predecessor: Predecessor | None, at_us: int) -> str | None:
        if predecessor is not None:
            return predecessor.exited_event
        return self._recent_signal(service, at_us) or service.started_event

    def _recent_signal(self, service: Service, at_us: int) -> str | None:
        recent = at_us - service.signalled_us < SIGNAL_EXPLAINS_US
        return service.signalled_event if recent else None

    def _master(self, pid: int, start_ns: int) -> Service | None:
        """The service whose living master is this very process."""
        service = self.services.get(pid)
        if service is None or service.stopped_event is not None or service.start_ticks != start_ns // NS_PER_TICK:
            return None
        return service

    def _bury(self, worker: Worker, event: Event, *, owed: bool) -> None:
        self.changes += 1
        service = worker.service
        del service.workers[worker.ref.pid]
        self._tombstones[worker.ref.pid] = _Tombstone(service, worker, event.ts_us)
        predecessor = Predecessor(worker.ref.pid, event.id, event.ts_us)
        service.slots.leave(worker.ref.slot, predecessor, owed=owed and service.stopped_event is None)
        if service.stopped_event is not None and not service.workers:
            del self.services[service.master_pid]

    def _master_gone(self, service: Service, event: Event) -> None:
        """Forgets a master. While workers outlive it, the service stays known so that their ends are told."""
        self.changes += 1
        service.stopped_event = event.id
        service.slots.forgive()
        self._tombstones[service.master_pid] = _Tombstone(service, None, event.ts_us)
        if not service.workers:
            del self.services[service.master_pid]

    def _event(
        self,
        at_us: int,
        kind: str,
        severity: Severity,
        text: str,
        *,
        service: Service | None = None,
        worker: Worker | None = None,
        cause: str | None = None,
        evidence: tuple[Evidence, ...] = (),
        attrs: dict[str, Scalar] | None = None,
    ) -> Event:
        owner = worker.service if worker is not None else service
        return Event(
            id=self._event_id(at_us),
            ts_us=at_us,
            kind=kind,
            severity=severity,
            text=text,
            service=None if owner is None else owner.name,
            worker=None if worker is None else worker.ref,
            release=worker.release if worker is not None else None if owner is None else owner.release,
            cause=cause,
            evidence=evidence,
            attrs=attrs or {},
        )


def _home(service: Service) -> dict[str, Scalar]:
    home = home_of(service.cgroup)
    named = {"unit": home.unit, "container": home.container}
    return {name: value for name, value in named.items() if value}


def _kept(worker: Worker) -> tuple[Evidence, ...]:
    """The snapshot that was taken before it was too late, if one was."""
    kept = worker.health.snapshot
    if kept is None:
        return ()
    was_in = f"it was in {kept.where}; " if kept.where else ""
    return (Evidence("snapshot", f"{was_in}artifact {kept.event}, {kept.path} on the host"),)


def _artifact(worker: Worker) -> dict[str, Scalar]:
    kept = worker.health.snapshot
    return {} if kept is None else {"artifact": kept.event}


def _rules(service: Service) -> DeathRules:
    rules = KINDS[service.kind].RULES
    if rules.only_with_timeout and not service.timeout_s:
        return replace(rules, kills_only_stuck=False)
    return rules


def _signs(service: Service) -> Signs:
    return KINDS[service.kind].SIGNS


def _told(service: Service) -> dict[str, Scalar]:
    """The settings that are known."""
    settings = service.settings
    values = {
        "app": settings.app,
        "workers": settings.workers,
        "threads": settings.threads,
        "worker_class": settings.worker_class,
        "timeout_s": service.timeout_s,
        "max_requests": settings.max_requests,
        "preload": settings.preload,
    }
    known = {name: value for name, value in values.items() if value is not None}
    return {name: value[:LONGEST_SETTING] if isinstance(value, str) else value for name, value in known.items()}


def _timeout(service: Service) -> dict[str, Scalar]:
    return {} if service.timeout_s is None else {"timeout_s": service.timeout_s}
