"""What one ingest request carries, checked record by record. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import orjson

from agent.wire import (
    MAX_BATCH_RECORDS,
    MAX_BATCH_SAMPLES,
    MAX_INTEGER,
    PROTOCOL_VERSION,
    Artifact,
    Sample,
    WireError,
    artifact_from_json,
    event_from_json,
    samples_from_json,
)
from server.errors import ApiError, bad_request
from server.stored import StoredArtifact, StoredEvent, StoredSample

MAX_STATUS_BYTES = 64 * 1024
PAST_US = 31 * 86_400_000_000
FUTURE_US = 86_400_000_000
"""Samples and artifacts are kept for 31 days; one from outside would open a partition of its own."""

Record = TypeVar("Record")
Dated = TypeVar("Dated", Sample, Artifact)


@dataclass(frozen=True, slots=True)
class Stream:
    """What is told of one stream: its highest number (None: empty) and the records that are not taken."""

    acked: int | None
    rejected: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Received:
    """A batch after all checks."""

    events: list[StoredEvent]
    samples: list[StoredSample]
    answer: dict[str, Any]
    artifacts: list[StoredArtifact] = field(default_factory=list)
    status: Mapping[str, Any] = field(default_factory=dict)


def read_batch(host: str, value: object, *, now_us: int) -> Received:
    """The batch of `host`; raises ApiError 400 or 413 when it is none. A bad record is rejected alone."""
    if not isinstance(value, dict):
        raise bad_request("a batch must be an object; docs/api.md shows one")
    if value.get("v") != PROTOCOL_VERSION:
        raise bad_request(f"v: this server speaks version {PROTOCOL_VERSION}, not {value.get('v')!r:.20}; upgrade both")
    spool = _spool(value.get("spool"))
    status = value.get("status", {})
    if not isinstance(status, dict):
        raise bad_request("status: must be an object")
    events, samples, artifacts = (_records(value, stream) for stream in ("events", "samples", "artifacts"))
    if len(events) + len(samples) + len(artifacts) > MAX_BATCH_RECORDS:
        raise ApiError(413, "too_big", f"a batch has at most {MAX_BATCH_RECORDS} records; send less at once")

    def read_event(_seq: int, record: object) -> list[StoredEvent]:
        return [StoredEvent(host, event_from_json(record))]

    def read_samples(seq: int, record: object) -> list[StoredSample]:
        return [StoredSample(host, spool, seq, sample) for sample in _recent(samples_from_json(record), now_us)]

    def read_artifact(_seq: int, record: object) -> list[StoredArtifact]:
        return [StoredArtifact(host, artifact) for artifact in _recent((artifact_from_json(record),), now_us)]

    good_events, told_events = _read(events, "event", read_event)
    good_samples, told_samples = _read(samples, "sample", read_samples)
    good_artifacts, told_artifacts = _read(artifacts, "artifact", read_artifact)
    if len(good_samples) > MAX_BATCH_SAMPLES:
        raise ApiError(413, "too_big", f"a batch has at most {MAX_BATCH_SAMPLES} samples; send less at once")
    answer = {
        "acked": {"events": told_events.acked, "samples": told_samples.acked, "artifacts": told_artifacts.acked},
        "rejected": told_events.rejected + told_samples.rejected + told_artifacts.rejected,
    }
    return Received(good_events, good_samples, answer, good_artifacts, _bounded(status))


def _read(
    records: list[tuple[int, dict[str, Any]]], key: str, read: Callable[[int, object], list[Record]]
) -> tuple[list[Record], Stream]:
    good: list[Record] = []
    rejected: list[dict[str, Any]] = []
    for seq, record in records:
        try:
            good += read(seq, record.get(key))
        except WireError as error:
            rejected.append({"stream": f"{key}s", "seq": seq, "error": str(error)})
    return good, Stream(max((seq for seq, _ in records), default=None), rejected)


def _records(batch: Mapping[str, Any], stream: str) -> list[tuple[int, dict[str, Any]]]:
    """Numbered records; without its number a record could not even be rejected, so then the batch is none."""
    value = batch.get(stream, [])
    if not isinstance(value, list):
        raise bad_request(f"{stream}: must be a list")
    numbered = []
    for index, record in enumerate(value):
        seq = record.get("seq") if isinstance(record, dict) else None
        if isinstance(seq, bool) or not isinstance(seq, int) or not 0 <= seq <= MAX_INTEGER:
            raise bad_request(f"{stream}[{index}].seq: must be a whole number from 0 to 2^53")
        numbered.append((seq, record))
    return numbered


def _spool(value: object) -> str:
    try:
        return str(UUID(value if isinstance(value, str) else ""))
    except ValueError:
        raise bad_request(f"spool: must be a UUID, not {value!r:.60}") from None


def _recent(records: Sequence[Dated], now_us: int) -> Sequence[Dated]:
    for one in records:
        if not now_us - PAST_US < one.ts_us < now_us + FUTURE_US:
            raise WireError(
                "ts_us", "only times from 31 days back to one day ahead are taken; is the host's clock right?"
            )
    return records


def _bounded(status: Mapping[str, Any]) -> Mapping[str, Any]:
    size = len(orjson.dumps(status))
    if size <= MAX_STATUS_BYTES:
        return status
    return {"problem": f"the agent's status has {size} bytes and was not kept; the limit is {MAX_STATUS_BYTES}"}
