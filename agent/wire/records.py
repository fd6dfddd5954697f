"""Events, samples and artifacts, and how they travel as JSON. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args
from uuid import UUID

import orjson

from agent.wire.checks import (
    MAX_NAME_CHARS,
    MAX_TEXT_CHARS,
    Scalar,
    WireError,
    attrs_of,
    mapping_of,
    optional_text_of,
    text_of,
    uuid_of,
    whole_of,
)
from agent.wire.kinds import ARTIFACTS, KINDS, METRICS

PROTOCOL_VERSION = 1

MAX_EVIDENCE = 16
MAX_BATCH_RECORDS = 2_000
MAX_ROWS = 500
"""Samples that one record may carry."""

MAX_BATCH_SAMPLES = 50_000
MAX_ARTIFACT_BYTES = 256 * 1024
"""Of an artifact's content, as JSON."""

MAX_BODY_BYTES = 4 * 1024 * 1024
Severity: TypeAlias = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


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


def serial_id(seed: str, serial: int, ts_us: int) -> str:
    """The id that a pure engine gives to the `serial`th thing that it makes: another seed makes others, and those of one
    moment are in the order in which they were made."""
    digest = hashlib.blake2b(f"{seed}/{serial}".encode(), digest_size=6).digest()
    return uuid7(ts_us, (serial & 0x3FFF) << 48 | int.from_bytes(digest, "big"))


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
    obj = mapping_of(value, "event")
    kind = text_of(obj, "kind", MAX_NAME_CHARS)
    if kind not in KINDS:
        raise WireError("kind", f"unknown kind {kind!r}; docs/events.md lists them")
    severity = text_of(obj, "severity", MAX_NAME_CHARS)
    if severity not in SEVERITIES:
        raise WireError("severity", f"must be one of {', '.join(SEVERITIES)}, not {severity!r}")
    return Event(
        id=uuid_of(obj, "id"),
        ts_us=whole_of(obj, "ts_us"),
        kind=kind,
        severity=severity,
        text=text_of(obj, "text", MAX_TEXT_CHARS),
        service=optional_text_of(obj, "service"),
        worker=_worker(obj.get("worker")),
        release=optional_text_of(obj, "release"),
        cause=None if obj.get("cause") is None else uuid_of(obj, "cause"),
        evidence=_evidence(obj.get("evidence", [])),
        attrs=attrs_of(obj.get("attrs", {})),
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
    obj = mapping_of(value, "sample")
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
    obj = mapping_of(value, "sample")
    metric = text_of(obj, "metric", MAX_NAME_CHARS)
    if metric not in METRICS:
        raise WireError("metric", f"unknown metric {metric!r}; docs/events.md lists them")
    number = obj.get("value")
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise WireError("value", f"must be a number, not {type(number).__name__}")
    return Sample(
        ts_us=whole_of(obj, "ts_us"),
        metric=metric,
        value=float(number),
        service=optional_text_of(obj, "service"),
        subject=optional_text_of(obj, "subject"),
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
    obj = mapping_of(value, "artifact")
    kind = text_of(obj, "kind", MAX_NAME_CHARS)
    if kind not in ARTIFACTS:
        raise WireError("kind", f"unknown kind {kind!r}; docs/snapshots.md lists them")
    try:
        content = orjson.dumps(mapping_of(obj.get("content"), "content"))
    except TypeError:
        raise WireError("content", "is nested too deeply") from None
    if len(content) > MAX_ARTIFACT_BYTES:
        raise WireError("content", f"has {len(content)} bytes; the limit is {MAX_ARTIFACT_BYTES}")
    return Artifact(
        id=uuid_of(obj, "id"),
        ts_us=whole_of(obj, "ts_us"),
        kind=kind,
        content=content,
        service=optional_text_of(obj, "service"),
        worker=_worker(obj.get("worker")),
        release=optional_text_of(obj, "release"),
    )


def _worker(value: object) -> WorkerRef | None:
    if value is None:
        return None
    obj = mapping_of(value, "worker")
    try:
        return WorkerRef(
            whole_of(obj, "slot"), whole_of(obj, "generation"), whole_of(obj, "pid"), whole_of(obj, "start_ticks")
        )
    except WireError as error:
        raise WireError(f"worker.{error.where}", error.problem) from None


def _evidence(value: object) -> tuple[Evidence, ...]:
    if not isinstance(value, list) or len(value) > MAX_EVIDENCE:
        raise WireError("evidence", f"must be a list of at most {MAX_EVIDENCE}")
    found = []
    for index, item in enumerate(value):
        obj = mapping_of(item, f"evidence[{index}]")
        try:
            found.append(Evidence(text_of(obj, "source", MAX_NAME_CHARS), text_of(obj, "fact", MAX_TEXT_CHARS)))
        except WireError as error:
            raise WireError(f"evidence[{index}].{error.where}", error.problem) from None
    return tuple(found)
