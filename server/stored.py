"""What agents sent as the server keeps it: from which host, and for an event when it arrived."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.wire import Artifact, Event, Sample, artifact_to_json, event_to_json

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event of one host. `arrival` numbers all events of the store in the order in which they became visible."""

    host: str
    event: Event
    arrival: int = 0


@dataclass(frozen=True, slots=True)
class StoredSample:
    """One sample of one host; `spool` and `seq` name its record for ever, so that a second sending is recognised."""

    host: str
    spool: str
    seq: int
    sample: Sample


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """One artifact of one host."""

    host: str
    artifact: Artifact


def rfc3339(ts_us: int) -> str:
    """Microseconds since 1970 as `2026-11-23T01:11:09.123456Z`."""
    moment = _EPOCH + timedelta(microseconds=ts_us)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond:06}Z"


def stored_to_json(stored: StoredEvent) -> dict[str, Any]:
    """The event as the API shows it."""
    return {**event_to_json(stored.event), "ts": rfc3339(stored.event.ts_us), "host": stored.host}


def artifact_answer(stored: StoredArtifact) -> dict[str, Any]:
    """The artifact as the API shows it."""
    return {**artifact_to_json(stored.artifact), "ts": rfc3339(stored.artifact.ts_us), "host": stored.host}
