"""How an event becomes a row of the table `events`, and a row the event again, with nothing lost. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.wire import Event, Evidence, Scalar, WorkerRef
from server.stored import StoredEvent

COLUMNS: Sequence[str] = (
    "ts",
    "arrival",
    "id",
    "cause",
    "host",
    "kind",
    "severity",
    "text",
    "service",
    "release",
    "slot",
    "generation",
    "pid",
    "start_ticks",
    "evidence",
    "attrs",
    "nums",
    "floats",
    "flags",
)

SELECTED = "toUnixTimestamp64Micro(ts), " + ", ".join(COLUMNS[1:])
"""The select list whose rows `event_from_row` reads."""


def row_of_event(stored: StoredEvent) -> list[Any]:
    """The values of COLUMNS. An optional name is never empty on the wire, so the empty string stands for None."""
    event, worker = stored.event, stored.event.worker
    process = (worker.slot, worker.generation, worker.pid, worker.start_ticks) if worker else (None,) * 4
    numbers = {name: value for name, value in event.attrs.items() if _is_number(value)}
    return [
        event.ts_us,
        stored.arrival,
        event.id,
        event.cause,
        stored.host,
        event.kind,
        event.severity,
        event.text,
        event.service or "",
        event.release or "",
        *process,
        [(one.source, one.fact) for one in event.evidence],
        {name: value for name, value in event.attrs.items() if isinstance(value, str)},
        {name: float(value) for name, value in numbers.items()},
        [name for name, value in numbers.items() if isinstance(value, float) and value.is_integer()],
        {name: value for name, value in event.attrs.items() if isinstance(value, bool)},
    ]


def event_from_row(row: Sequence[Any]) -> StoredEvent:
    """The event of one row of SELECTED."""
    (ts_us, arrival, id_, cause, host, kind, severity, text, service, release) = row[:10]
    (slot, generation, pid, start_ticks, evidence, attrs, nums, floats, flags) = row[10:]
    event = Event(
        id=str(id_),
        ts_us=ts_us,
        kind=kind,
        severity=severity,
        text=text,
        service=service or None,
        worker=None if slot is None else WorkerRef(slot, generation, pid, start_ticks),
        release=release or None,
        cause=None if cause is None else str(cause),
        evidence=tuple(Evidence(one["source"], one["fact"]) for one in evidence),
        attrs={**attrs, **_numbers(nums, frozenset(floats)), **flags},
    )
    return StoredEvent(host, event, arrival)


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(nums: Mapping[str, float], floats: frozenset[str]) -> dict[str, int | float]:
    """Whole numbers come back as int, except those that `floats` names."""
    return {name: int(value) if value.is_integer() and name not in floats else value for name, value in nums.items()}
