"""What events say: full sentences that stand alone at 3 a.m., with the numbers and evidence beside them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from agent.deaths import Certificate, sender_words
from agent.identity import home_of
from agent.kernel.records import ExitRecord, OomReason, OomRecord, SignalRecord
from agent.service import Service, Worker
from agent.slots import Predecessor
from agent.wire import Evidence, Scalar
from agent.words import signal_name, size, span

OOM_SOURCE = "oom:mark_victim"

_SHORT_OF_MEMORY: Mapping[OomReason, str] = {
    OomReason.UNTOLD: "the host had none left, as none of its memory cgroups was full",
    OomReason.HOST: "the host had none left",
    OomReason.CPUSET: "the memory nodes of the allocating cpuset had none left",
    OomReason.MEMORY_POLICY: "the memory nodes of the allocating process's memory policy had none left",
    OomReason.CGROUP: "a memory cgroup above the victim was full",
}


def service_found(service: Service) -> str:
    """A master that had been running before the agent."""
    master = f"{service.kind} master (pid {service.master_pid}{_home(service)})"
    return f"{service.name} is running: the agent found its {master}."


def service_started(service: Service) -> str:
    """A master whose start was seen."""
    where = f", listening on {_listening(service)}" if service.listeners else ""
    return f"{service.name} started: {service.kind} master pid {service.master_pid}{_home(service)}{where}."


def service_stopped(service: Service, record: ExitRecord, certificate: Certificate) -> str:
    """A master's end."""
    left = len(service.workers)
    outlived = f" {left} of its workers {'is' if left == 1 else 'are'} still there." if left else ""
    age = span((record.at_ns - record.start_ns) / 1e9)
    return f"{_master(service)} ended after {age}: {_first_person_of_master(certificate)}.{outlived}"


def never_started(service: Service, certificate: Certificate) -> str:
    """A process that was to become a master and ended before."""
    return (
        f"{service.name} did not start: pid {service.master_pid} ended before its first worker: {certificate.phrase}."
    )


def master_vanished(service: Service) -> str:
    """A master that a scan finds gone."""
    return f"{_master(service)} is gone; how it ended is not known, because its exit was not heard."


def service_signalled(service: Service, record: SignalRecord) -> str:
    """A control signal to a master."""
    return (
        f"{sender_words(record)} sent {signal_name(record.signal)} to the master of {service.name} (pid {record.pid})."
    )


def worker_started(worker: Worker, predecessor: Predecessor | None) -> str:
    """A fork of the master."""
    forked = f"The master of {worker.service.name} forked pid {worker.ref.pid} as worker {worker.ref.slot}"
    if predecessor is None:
        return f"{forked}."
    after = span(max(worker.started_us - predecessor.exited_us, 0) / 1e6)
    return f"{forked}, {after} after pid {predecessor.pid} had ended there."


def worker_ready(worker: Worker) -> str:
    """A worker's first heartbeat."""
    took = span(((worker.ready_us or worker.started_us) - worker.started_us) / 1e6)
    return f"{_worker(worker)} is ready to serve, {took} after its fork."


def worker_stuck(worker: Worker, heartbeat_age_s: float | None) -> str:
    """The master's SIGABRT to a worker."""
    silent = f"its last heartbeat was {span(heartbeat_age_s)} ago" if heartbeat_age_s is not None else "it was silent"
    timeout_s = worker.service.timeout_s
    limit = "its timeout is not known" if timeout_s is None else f"the timeout is {timeout_s:g} s"
    return f"{_worker(worker)} is stuck: {silent}, {limit}; its master (pid {worker.service.master_pid}) aborts it."


def worker_exited(worker: Worker, record: ExitRecord, certificate: Certificate) -> str:
    """A worker's end, with its certificate."""
    age = span((record.at_ns - record.start_ns) / 1e9)
    never_ready = "" if worker.ready_us is not None else " It had never become ready."
    return f"{_worker(worker)} ended after {age}: {certificate.phrase}.{never_ready}"


def worker_vanished(worker: Worker) -> str:
    """A worker that a scan finds gone."""
    return f"{_worker(worker)} is gone; how it ended is not known, because its exit was not heard."


def worker_oom_killed(worker: Worker, record: OomRecord, allocator: Worker | None) -> str:
    """The kernel's OOM killer killed a worker."""
    age = span((record.at_ns - record.start_ns) / 1e9)
    return (
        f"The kernel's OOM killer killed worker {worker.ref.slot} of {worker.service.name} "
        f"(pid {worker.ref.pid}, {age} old) because {_who_allocated(record, allocator)} and {_what_was_full(record)}. "
        f"{_held(record)}{_died_together(record)} Neither its master nor a person did it."
    )


def process_oom_killed(record: OomRecord, service: Service | None, *, confirmed: bool) -> str:
    """The OOM killer chose a process that is not a worker, or one whose end was not seen."""
    verb = "killed" if confirmed else "chose"
    whose = "" if service is None else f" of {service.name}"
    if service is not None and service.master_pid == record.pid:
        victim = f"the master{whose} (pid {record.pid})"
    else:
        victim = f"{record.victim_comm or 'a process'} (pid {record.pid}){whose}"
    return (
        f"The kernel's OOM killer {verb} {victim} because {_who_allocated(record, None)} "
        f"and {_what_was_full(record)}. {_held(record)}{_died_together(record)}"
    )


def oom_evidence(record: OomRecord) -> tuple[Evidence, ...]:
    """What the tracepoint said."""
    chosen = (
        f"pid {record.pid} ({record.victim_comm}) chosen while pid {record.allocator_pid} "
        f"({record.allocator_comm}) allocated; oom_score_adj {record.oom_score_adj}"
    )
    if not record.limit_bytes:
        return (Evidence(OOM_SOURCE, chosen),)
    full = f"memory cgroup {record.cgroup_name} used {record.usage_bytes} of {record.limit_bytes} bytes"
    return (Evidence(OOM_SOURCE, chosen), Evidence("memory cgroup of the victim", full))


def oom_attrs(record: OomRecord) -> dict[str, Scalar]:
    """The kernel's numbers at the kill. Without a full cgroup there is no limit to name."""
    attrs: dict[str, Scalar] = {
        "anon_bytes": record.anon_bytes,
        "file_bytes": record.file_bytes,
        "shmem_bytes": record.shmem_bytes,
        "swap_bytes": record.swap_bytes,
        "total_vm_bytes": record.total_vm_bytes,
        "victim_pid": record.pid,
        "victim_uid": record.victim_uid,
        "victim_comm": record.victim_comm,
        "oom_score_adj": record.oom_score_adj,
        "allocator_pid": record.allocator_pid,
        "allocator_comm": record.allocator_comm,
        "own_allocation": record.allocator_pid == record.pid,
        "age_s": round((record.at_ns - record.start_ns) / 1e9, 3) if record.start_ns else 0.0,
        "constraint": _constraint(record),
        "group_kill": bool(record.group),
    }
    if record.constraint != OomReason.UNTOLD:
        attrs |= {
            "score_pages": record.points,
            "allowed_bytes": record.total_bytes,
            "allocation_order": record.order,
            "chosen_pid": record.chosen_pid,
        }
    if record.limit_bytes:
        attrs |= {
            "limit_bytes": record.limit_bytes,
            "usage_bytes": record.usage_bytes,
            "cgroup": record.cgroup_name,
            "cgroup_id": record.cgroup_id,
        }
    return attrs


def _constraint(record: OomRecord) -> str:
    """Which limit was hit. Where the kernel does not tell, the victim's cgroups do: one is full, or the host is."""
    if record.constraint == OomReason.UNTOLD:
        return "cgroup" if record.limit_bytes else "host"
    return OomReason(record.constraint).name.lower()


def exit_attrs(record: ExitRecord, certificate: Certificate) -> dict[str, Scalar]:
    """The numbers of a process's end."""
    number, code = record.wait_status & 0x7F, record.wait_status >> 8 & 0xFF
    attrs: dict[str, Scalar] = {
        "death": certificate.death,
        "age_s": round((record.at_ns - record.start_ns) / 1e9, 3),
    }
    if record.cpu_ns is not None:
        attrs["cpu_s"] = round(record.cpu_ns / 1e9, 3)
    if record.peak_rss_bytes is not None:
        attrs["peak_rss_bytes"] = record.peak_rss_bytes
    attrs["signal" if number else "exit_code"] = number or code
    if certificate.decisive is not None:
        attrs["sender_pid"] = certificate.decisive.sender_pid
        attrs["sender_uid"] = certificate.decisive.sender_uid
        attrs["sender"] = certificate.decisive.sender_comm
    return attrs


def heartbeat_evidence(heartbeat_age_s: float | None) -> tuple[Evidence, ...]:
    """How old the heartbeat was when the master lost patience, if it could be read in time."""
    if heartbeat_age_s is None:
        return ()
    return (Evidence("heartbeat file", f"last touched {heartbeat_age_s:.1f} s before"),)


def _worker(worker: Worker) -> str:
    return f"Worker {worker.ref.slot} of {worker.service.name} (pid {worker.ref.pid})"


def _master(service: Service) -> str:
    return f"The master of {service.name} (pid {service.master_pid})"


def _home(service: Service) -> str:
    words = home_of(service.cgroup).words
    return f", {words}" if words else ""


def _listening(service: Service) -> str:
    return ", ".join(listener.address for listener in service.listeners)


def _first_person_of_master(certificate: Certificate) -> str:
    return certificate.phrase.replace("; neither the kernel nor its master did it", "; the kernel did not do it")


def _who_allocated(record: OomRecord, allocator: Worker | None) -> str:
    if record.allocator_pid == record.pid:
        return "it asked for memory"
    if allocator is not None:
        return f"its sibling worker {allocator.ref.slot} (pid {allocator.ref.pid}) asked for memory"
    return f"{record.allocator_comm} (pid {record.allocator_pid}) asked for memory"


def _what_was_full(record: OomRecord) -> str:
    if record.limit_bytes:
        return f"its memory cgroup {record.cgroup_name} was full (limit {size(record.limit_bytes)})"
    return _SHORT_OF_MEMORY[OomReason(record.constraint)]


def _died_together(record: OomRecord) -> str:
    """What memory.oom.group had to do with it; begins with a space when there is something to say."""
    if not record.group:
        return ""
    if record.chosen_pid not in (0, record.pid):
        return f" It died because its cgroup asks for that (memory.oom.group): the choice had been pid {record.chosen_pid}."
    return " Its cgroup makes all its processes die together (memory.oom.group)."


def _held(record: OomRecord) -> str:
    if not record.total_vm_bytes:
        return "How much memory it held is not known on this kernel."
    swap = f", {size(record.swap_bytes)} swapped out" if record.swap_bytes else ""
    parts = f"{size(record.anon_bytes)} anonymous, {size(record.file_bytes)} file and {size(record.shmem_bytes)} shared"
    return f"It held {parts} memory{swap}."
