"""What agent and server say to each other: events, samples and batches, and how they travel as JSON.

This module is the contract. It is pure: it reads no clock and does no I/O. `decode_*` functions
accept whatever `orjson.loads` can return and raise `WireError`, which names the field and the problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args
from uuid import UUID

import orjson

PROTOCOL_VERSION = 1

MAX_TEXT_CHARS = 2_000
MAX_NAME_CHARS = 200
MAX_ATTRS = 64
MAX_ATTR_CHARS = 4_000
MAX_EVIDENCE = 16
MAX_BATCH_RECORDS = 2_000
MAX_ROWS = 500
"""Samples that one record may carry."""

MAX_BATCH_SAMPLES = 50_000
MAX_ARTIFACT_BYTES = 256 * 1024
"""Of an artifact's content, as JSON."""

MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_INTEGER = 2**53
"""Largest whole number that JSON readers (browsers among them) and a Float64 column keep exactly."""

Severity: TypeAlias = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)

Scalar: TypeAlias = str | int | float | bool

KINDS: Mapping[str, str] = {
    "service.found": "A service was already running when the agent started to watch.",
    "service.started": "A service's master process started.",
    "service.stopped": "A service's master process ended; the text says how.",
    "service.signalled": "Somebody sent a control signal (HUP, TERM, USR2, TTIN, ...) to a service's master.",
    "worker.started": "The master forked a worker.",
    "worker.ready": "A worker's main loop runs: it can accept requests.",
    "worker.exited": "A worker ended; `attrs.death` is its certificate.",
    "worker.oom_killed": "The kernel's OOM killer killed a worker.",
    "worker.stuck": "A worker stopped beating and its master lost patience.",
    "worker.leaking": "A worker's memory grows steadily towards its limit.",
    "worker.leak_ended": "The memory of a worker that leaked shows no steady growth any more.",
    "worker.snapshot": "What a worker was doing was kept before it may be killed; `attrs.stack` and a file on the host have it.",
    "worker.threads_stuck": "Threads of a worker stand still inside of a call while its main thread goes on.",
    "worker.unstuck": "A worker that was found stuck moves again.",
    "worker.boot_hung": "A worker was started and does not become ready.",
    "process.oom_killed": "The kernel's OOM killer chose a process that is no known worker, or processes that it counted only.",
    "queue.saturated": "A listener's accept queue is full: new connections are refused or dropped.",
    "queue.recovered": "A listener's accept queue has room again.",
    "celery.backlog": "A Celery queue grows faster than it is consumed.",
    "celery.backlog_over": "A Celery queue that grew is worked off.",
    "celery.task_stuck": "A Celery task runs without making progress.",
    "celery.task_unstuck": "A Celery task that was told as stuck goes on, or is over.",
    "celery.task_lost": "A Celery task was lost when its process died.",
    "celery.task_poisonous": "Processes die again and again under tasks of one name.",
    "celery.tasks_stranded": "A Celery node died with tasks that it had fetched; the text says when they run again.",
    "celery.consumer_silent": "A Celery worker is alive and does not consume its queue.",
    "celery.consumer_back": "A silent Celery worker consumes its queue again.",
    "celery.broker_unreachable": "A broker cannot be asked: until it can, nothing is known of its queues, nodes and tasks.",
    "celery.broker_back": "A broker can be asked again.",
    "deploy.started": "A deploy began.",
    "deploy.finished": "A deploy ended; the text says how.",
    "playbook.started": "A playbook run began.",
    "playbook.finished": "A playbook run ended; the text says how.",
    "agent.started": "The agent started on a host.",
    "agent.stopped": "The agent stopped in good order.",
    "agent.silent": "The server has not heard from a host's agent for a while.",
    "agent.back": "A silent agent is heard again.",
    "agent.defect": "The agent met a defect of its own and went on; its log has the traceback.",
    "agent.spool_dropped": "The agent's spool was full or damaged and records were given up.",
    "agent.privileges": "The agent may do less, or more, than it needs; the text says what follows.",
    "agent.shedding": "The agent is over its own budget and samples less, or comes back from that; events go on.",
    "agent.shedding_ended": "The agent is within its own budget and samples everything again.",
    "agent.over_budget": "The agent stays over its own budget although it samples nothing any more; events go on.",
    "probe.attached": "The agent hears a kernel signal; `attrs.rung` says by which means.",
    "probe.degraded": "The agent hears a kernel signal by a lesser means, or not at all; the text says why.",
    "probe.lost": "Kernel records were lost because a buffer was full.",
    "probe.mismatch": "The kernel counted more OOM kills than the agent told of; the text has both numbers.",
}
"""Every kind of event there is, with its meaning in one sentence."""

METRICS: Mapping[str, str] = {
    "agent.cpu_percent": "CPU that the agent used, in per cent of one core.",
    "agent.rss_bytes": "Resident memory of the agent, in bytes.",
    "agent.records": "Kernel records that the agent read since the last sample, a count.",
    "agent.lost_records": "Kernel records lost since the last sample, a count.",
    "agent.spool_bytes": "Bytes waiting in the agent's spool.",
    "agent.shed_level": "How much the agent sheds to keep its own budget: 0 nothing, 5 all samples but those of itself.",
    "queue.depth_peak": "Deepest accept queue of a listener within one second, in connections.",
    "queue.limit": "Limit of a listener's accept queue, in connections; full is one more.",
    "queue.arrivals": "Connections that joined a listener's accept queue within one second.",
    "queue.accepts": "Connections accepted from a listener's accept queue within one second.",
    "queue.wait_mean_ms": "Mean wait between enqueue and accept, over the accepts of one second, in milliseconds.",
    "queue.wait_p50_ms": "Wait that half of the accepts of one second did not exceed, in ms, rounded up to a power of 2 us.",
    "queue.wait_p99_ms": "Wait that 99 % of the accepts of one second did not exceed, in ms, rounded up to a power of 2 us.",
    "queue.wait_max_ms": "Longest wait among the accepts of one second, in milliseconds.",
    "queue.wait_mean_ms_estimated": "Mean wait by Little's law over the last 10 s, in ms, where accepts are not heard.",
    "queue.overflows": "TCP handshake packets dropped, or unix connects refused, by a full queue within one second.",
    "queue.blocked": "Connects to a unix socket that found its queue full within one second and waited for room.",
    "celery.queue_length": "Tasks that wait in a queue, over all priorities; those of one priority under `QUEUE priority N`.",
    "celery.unacked": "Tasks that nodes have fetched and not acknowledged: of a queue (RabbitMQ), or of a whole broker (Redis).",
    "celery.oldest_wait_s": "How long the task that is next in line has waited in its queue, at least, in seconds.",
    "celery.active_tasks": "Tasks that a node runs.",
    "celery.reserved_tasks": "Tasks that a node has fetched and not begun.",
    "celery.oldest_task_s": "Age of the task that has run longest on a node, in seconds.",
    "worker.rss_anon_bytes": "Resident memory of a worker or master that no file backs, in bytes.",
    "worker.rss_file_bytes": "Resident memory of a worker or master that files back, in bytes.",
    "worker.rss_shmem_bytes": "Resident shared memory (tmpfs, shm) of a worker or master, in bytes.",
    "worker.swap_bytes": "Memory of a worker or master that is swapped out, in bytes.",
    "worker.pss_bytes": "Memory of a worker or master with shared pages divided among their users, in bytes; looked at seldom.",
    "worker.uss_bytes": "Memory that a worker or master shares with no process, in bytes; looked at seldom.",
    "worker.request_age_s": "Age of the request that a sync worker is in, told from one second on.",
    "service.busy_workers": "Workers of a service that are in a request at one moment; of event loops, those that run.",
    "worker.leak_bytes_per_s": "Slope of a worker's memory where it grows steadily, in bytes per second.",
    "service.memory_time_left_s": "Time until the memory that a leaking service may still take is used up, in seconds.",
    "worker.cpu_percent": "CPU that a worker or master used between two readings, in per cent of one core.",
    "worker.run_delay_percent": "Time its threads waited for a CPU between two readings, in per cent of that time.",
    "worker.threads": "Threads of a worker or master.",
    "worker.minor_faults": "Page faults of a worker or master that read no disk, per second.",
    "worker.major_faults": "Page faults of a worker or master that read a disk, per second.",
    "worker.ctx_voluntary": "Context switches of a worker or master because it waited for something, per second.",
    "worker.ctx_involuntary": "Context switches of a worker or master because another took the CPU, per second.",
    "worker.accepts_per_s": "Connections that a worker accepted, per second; where the kernel lets programs hear each accept.",
}
"""Every metric there is, with its meaning and unit in one sentence."""

ARTIFACTS: Mapping[str, str] = {
    "snapshot": "What a process was doing and what its memory held before it may be killed; docs/snapshots.md has its keys.",
}
"""Every kind of artifact there is, with its meaning in one sentence."""


class WireError(ValueError):
    """A record that does not keep the contract; `where` is a path such as `evidence[0].source`."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Evidence:
    """One reason to believe an event: where the fact was read, and the fact."""

    source: str
    fact: str


@dataclass(frozen=True, slots=True)
class WorkerRef:
    """A worker: its lane in the service, how many stood there before it, and its process.

    `start_ticks` is the process's start since boot in clock ticks (field 22 of /proc/PID/stat), so
    that pid and start together name one process and never its successor.
    """

    slot: int
    generation: int
    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at one moment, told in a sentence that stands alone.

    `ts_us` is UTC in microseconds since 1970. `cause` is the id of the event that brought this one about.
    """

    id: str
    ts_us: int
    kind: str
    severity: Severity
    text: str
    service: str | None = None
    worker: WorkerRef | None = None
    release: str | None = None
    cause: str | None = None
    evidence: tuple[Evidence, ...] = ()
    attrs: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of one subject at one moment; `subject` tells subjects of one metric apart."""

    ts_us: int
    metric: str
    value: float
    service: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """What an event names by the attribute `artifact` because it is too long for it. `content` is a JSON object as text."""

    id: str
    ts_us: int
    kind: str
    content: bytes
    service: str | None = None
    worker: WorkerRef | None = None
    release: str | None = None


ROW = ("metric", "value", "service", "subject")
Row: TypeAlias = tuple[str, float, str | None, str | None]
"""A sample of a moment that many share: the values of ROW."""


def uuid7(ts_us: int, random_bits: int) -> str:
    """An RFC 9562 version 7 id whose order is the order of `ts_us`; `random_bits` supplies 62 bits.

    Microseconds below the millisecond go into the 12 bits of rand_a as a fraction (method 3 of the RFC),
    so the id alone gives the event's time back to within a microsecond.
    """
    milliseconds, rest_us = divmod(ts_us, 1000)
    fraction = rest_us * 4096 // 1000
    value = (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | fraction << 64
    value |= 0b10 << 62 | random_bits & (2**62 - 1)
    return str(UUID(int=value))


def event_to_json(event: Event) -> dict[str, Any]:
    """The event as plain values, ready for orjson."""
    worker = event.worker
    return {
        "id": event.id,
        "ts_us": event.ts_us,
        "kind": event.kind,
        "severity": event.severity,
        "text": event.text,
        "service": event.service,
        "worker": None if worker is None else worker_to_json(worker),
        "release": event.release,
        "cause": event.cause,
        "evidence": [{"source": e.source, "fact": e.fact} for e in event.evidence],
        "attrs": dict(event.attrs),
    }


def worker_to_json(worker: WorkerRef) -> dict[str, int]:
    """The worker as plain values."""
    return {
        "slot": worker.slot,
        "generation": worker.generation,
        "pid": worker.pid,
        "start_ticks": worker.start_ticks,
    }


def event_from_json(value: object) -> Event:
    """The event that `value` describes; raises WireError."""
    obj = _mapping(value, "event")
    kind = _text(obj, "kind", MAX_NAME_CHARS)
    if kind not in KINDS:
        raise WireError("kind", f"unknown kind {kind!r}; docs/events.md lists them")
    severity = _text(obj, "severity", MAX_NAME_CHARS)
    if severity not in SEVERITIES:
        raise WireError("severity", f"must be one of {', '.join(SEVERITIES)}, not {severity!r}")
    return Event(
        id=_uuid(obj, "id"),
        ts_us=_whole(obj, "ts_us"),
        kind=kind,
        severity=severity,
        text=_text(obj, "text", MAX_TEXT_CHARS),
        service=_optional_text(obj, "service"),
        worker=_worker(obj.get("worker")),
        release=_optional_text(obj, "release"),
        cause=None if obj.get("cause") is None else _uuid(obj, "cause"),
        evidence=_evidence(obj.get("evidence", [])),
        attrs=_attrs(obj.get("attrs", {})),
    )


def sample_to_json(sample: Sample) -> dict[str, Any]:
    """The sample as plain values, ready for orjson."""
    return {
        "ts_us": sample.ts_us,
        "metric": sample.metric,
        "value": sample.value,
        "service": sample.service,
        "subject": sample.subject,
    }


def moment_to_json(ts_us: int, rows: Sequence[Row]) -> dict[str, Any]:
    """Samples of one moment, at most MAX_ROWS, as plain values: one record, a tenth of the work of as many."""
    return {"ts_us": ts_us, "rows": rows}


def samples_from_json(value: object) -> tuple[Sample, ...]:
    """The sample, or the samples of one moment, that a record describes; raises WireError."""
    obj = _mapping(value, "sample")
    if "rows" not in obj:
        return (sample_from_json(obj),)
    ts_us, rows = obj.get("ts_us"), obj["rows"]
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_ROWS:
        raise WireError("rows", f"must be a list of 1 to {MAX_ROWS} rows")
    samples = []
    for place, row in enumerate(rows):
        where = f"rows[{place}]"
        if not isinstance(row, list) or len(row) != len(ROW):
            raise WireError(where, f"must be a list of {len(ROW)}: {', '.join(ROW)}")
        try:
            samples.append(sample_from_json({"ts_us": ts_us, **dict(zip(ROW, row, strict=True))}))
        except WireError as error:
            raise WireError(f"{where}.{error.where}", error.problem) from None
    return tuple(samples)


def sample_from_json(value: object) -> Sample:
    """The sample that `value` describes; raises WireError."""
    obj = _mapping(value, "sample")
    metric = _text(obj, "metric", MAX_NAME_CHARS)
    if metric not in METRICS:
        raise WireError("metric", f"unknown metric {metric!r}; docs/events.md lists them")
    number = obj.get("value")
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise WireError("value", f"must be a number, not {type(number).__name__}")
    return Sample(
        ts_us=_whole(obj, "ts_us"),
        metric=metric,
        value=float(number),
        service=_optional_text(obj, "service"),
        subject=_optional_text(obj, "subject"),
    )


def artifact_to_json(artifact: Artifact) -> dict[str, Any]:
    """The artifact as values for orjson, its content as it is."""
    return {
        "id": artifact.id,
        "ts_us": artifact.ts_us,
        "kind": artifact.kind,
        "service": artifact.service,
        "worker": None if artifact.worker is None else worker_to_json(artifact.worker),
        "release": artifact.release,
        "content": orjson.Fragment(artifact.content),
    }


def artifact_from_json(value: object) -> Artifact:
    """The artifact that `value` describes; raises WireError."""
    obj = _mapping(value, "artifact")
    kind = _text(obj, "kind", MAX_NAME_CHARS)
    if kind not in ARTIFACTS:
        raise WireError("kind", f"unknown kind {kind!r}; docs/snapshots.md lists them")
    try:
        content = orjson.dumps(_mapping(obj.get("content"), "content"))
    except TypeError:
        raise WireError("content", "is nested too deeply") from None
    if len(content) > MAX_ARTIFACT_BYTES:
        raise WireError("content", f"has {len(content)} bytes; the limit is {MAX_ARTIFACT_BYTES}")
    return Artifact(
        id=_uuid(obj, "id"),
        ts_us=_whole(obj, "ts_us"),
        kind=kind,
        content=content,
        service=_optional_text(obj, "service"),
        worker=_worker(obj.get("worker")),
        release=_optional_text(obj, "release"),
    )


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise WireError(where, f"must be an object, not {type(value).__name__}")
    return value


def _shown(value: object) -> str:
    """A wrong value in a few characters; a container by its type, as one can be too deep or too large to print."""
    if isinstance(value, dict | list):
        return type(value).__name__
    return repr(value[:60] if isinstance(value, str) else value)


def _text(obj: Mapping[str, Any], key: str, limit: int) -> str:
    value = obj.get(key)
    if not isinstance(value, str) or not value:
        raise WireError(key, f"must be a non-empty string, not {_shown(value)}")
    if len(value) > limit:
        raise WireError(key, f"is {len(value)} characters long; the limit is {limit}")
    return value


def _optional_text(obj: Mapping[str, Any], key: str) -> str | None:
    return None if obj.get(key) is None else _text(obj, key, MAX_NAME_CHARS)


def _whole(obj: Mapping[str, Any], key: str) -> int:
    value = obj.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_INTEGER:
        raise WireError(key, f"must be a whole number from 0 to 2^53, not {_shown(value)}")
    return value


def _uuid(obj: Mapping[str, Any], key: str) -> str:
    value = _text(obj, key, MAX_NAME_CHARS)
    try:
        return str(UUID(value))
    except ValueError:
        raise WireError(key, f"must be a UUID, not {_shown(value)}") from None


def _worker(value: object) -> WorkerRef | None:
    if value is None:
        return None
    obj = _mapping(value, "worker")
    try:
        return WorkerRef(_whole(obj, "slot"), _whole(obj, "generation"), _whole(obj, "pid"), _whole(obj, "start_ticks"))
    except WireError as error:
        raise WireError(f"worker.{error.where}", error.problem) from None


def _evidence(value: object) -> tuple[Evidence, ...]:
    if not isinstance(value, list) or len(value) > MAX_EVIDENCE:
        raise WireError("evidence", f"must be a list of at most {MAX_EVIDENCE}")
    found = []
    for index, item in enumerate(value):
        obj = _mapping(item, f"evidence[{index}]")
        try:
            found.append(Evidence(_text(obj, "source", MAX_NAME_CHARS), _text(obj, "fact", MAX_TEXT_CHARS)))
        except WireError as error:
            raise WireError(f"evidence[{index}].{error.where}", error.problem) from None
    return tuple(found)


def _attrs(value: object) -> dict[str, Scalar]:
    obj = _mapping(value, "attrs")
    if len(obj) > MAX_ATTRS:
        raise WireError("attrs", f"has {len(obj)} entries; the limit is {MAX_ATTRS}")
    for key, item in obj.items():
        where = f"attrs.{key:.60}"
        if not key or len(key) > MAX_NAME_CHARS:
            raise WireError(where, f"names have 1 to {MAX_NAME_CHARS} characters")
        if isinstance(item, str):
            if len(item) > MAX_ATTR_CHARS:
                raise WireError(where, f"is {len(item)} characters long; the limit is {MAX_ATTR_CHARS}")
        elif not isinstance(item, int | float):
            raise WireError(where, f"must be a string, number or boolean, not {type(item).__name__}")
        elif not isinstance(item, bool) and abs(item) > MAX_INTEGER:
            raise WireError(where, "is beyond 2^53 and would lose digits")
    return dict(obj)
