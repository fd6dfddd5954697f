"""The table `events`: adding rows and every question about them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from server.errors import StoreError
from server.filters import EventFilter
from server.store.database import Database
from server.store.rows import COLUMNS, SELECTED, event_from_row, row_of_event
from server.stored import StoredEvent

_ID_SLACK_US = 1_000_000
_TIME = "fromUnixTimestamp64Micro({%s:Int64})"


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of the timeline: newest first within [from_us, to_us), older than `before` = (ts_us, id)."""

    from_us: int | None
    to_us: int | None
    before: tuple[int, str] | None
    limit: int


@dataclass(frozen=True, slots=True)
class EventTable:
    """Reads and writes events. Everything raises StoreError when the store does not answer."""

    database: Database

    async def stored_ids(self, events: Sequence[StoredEvent]) -> set[str]:
        """Ids among `events` that are stored already. An event keeps its id and time when it is sent again."""
        times = [stored.event.ts_us for stored in events]
        rows = await self.database.ask_before_insert(
            f"SELECT id FROM events WHERE ts >= {_TIME % 'first'} AND ts <= {_TIME % 'last'} AND id IN {{ids:Array(UUID)}}",
            {"first": min(times), "last": max(times), "ids": [stored.event.id for stored in events]},
        )
        return {str(row[0]) for row in rows}

    async def insert(self, events: Sequence[StoredEvent]) -> None:
        """Adds the events and makes sure that each one can be read back."""
        await self.database.insert("events", COLUMNS, [row_of_event(stored) for stored in events])
        missing = {stored.event.id for stored in events} - await self.stored_ids(events)
        if missing:
            raise StoreError(f"{len(missing)} of {len(events)} events cannot be read back after their insert")

    async def last_arrival(self) -> int:
        """The highest arrival number; 0 in an empty store."""
        rows = await self.database.ask("SELECT max(arrival) FROM events")
        return int(rows[0][0])

    async def page(self, wanted: EventFilter, page: Page) -> list[StoredEvent]:
        """At most `page.limit` events, newest first; equal times are ordered by id."""
        where, parameters = _conditions(wanted)
        if page.from_us is not None:
            where.append(f"ts >= {_TIME % 'from_us'}")
            parameters["from_us"] = page.from_us
        if page.to_us is not None:
            where.append(f"ts < {_TIME % 'to_us'}")
            parameters["to_us"] = page.to_us
        if page.before is not None:
            before = _TIME % "before_us"
            where.append(f"ts <= {before} AND (ts < {before} OR id < {{before_id:UUID}})")
            parameters["before_us"], parameters["before_id"] = page.before
        rows = await self.database.ask(
            f"SELECT {SELECTED} FROM events WHERE {' AND '.join(where)} ORDER BY ts DESC, id DESC LIMIT {{rows:UInt32}}",
            {**parameters, "rows": page.limit},
        )
        return [event_from_row(row) for row in rows]

    async def since(self, wanted: EventFilter, *, arrival: int, limit: int) -> list[StoredEvent]:
        """Events that became visible after `arrival`, in that order."""
        where, parameters = _conditions(wanted)
        rows = await self.database.ask(
            f"SELECT {SELECTED} FROM events WHERE arrival > {{after:UInt64}} AND {' AND '.join(where)} "
            "ORDER BY arrival LIMIT {rows:UInt32}",
            {**parameters, "after": arrival, "rows": limit},
        )
        return [event_from_row(row) for row in rows]

    async def by_ids(self, ids: Collection[str]) -> list[StoredEvent]:
        """The events of these ids that are stored. Looks near the times in the ids first, then everywhere."""
        times = [time_of_id(one) for one in ids]
        near = [time for time in times if time is not None]
        found: list[StoredEvent] = []
        if near:
            found = await self._select(
                f"ts >= {_TIME % 'first'} AND ts <= {_TIME % 'last'} AND id IN {{ids:Array(UUID)}}",
                {"first": max(0, min(near) - _ID_SLACK_US), "last": max(near) + _ID_SLACK_US, "ids": list(ids)},
            )
        rest = set(ids) - {stored.event.id for stored in found}
        if rest:
            found += await self._select("id IN {ids:Array(UUID)}", {"ids": sorted(rest)})
        return found

    async def effects_of(self, causes: Collection[str], *, limit: int) -> list[StoredEvent]:
        """Events that name one of `causes` as their cause, oldest first."""
        return await self._select(
            "cause IN {causes:Array(UUID)} ORDER BY ts, id LIMIT {rows:UInt32}", {"causes": list(causes), "rows": limit}
        )

    async def _select(self, where: str, parameters: dict[str, Any]) -> list[StoredEvent]:
        rows = await self.database.ask(f"SELECT {SELECTED} FROM events WHERE {where}", parameters)
        return [event_from_row(row) for row in rows]


def time_of_id(id_: str) -> int | None:
    """Microseconds since 1970, to the millisecond, in a version 7 id; None in any other."""
    value = UUID(id_)
    return (value.int >> 80) * 1000 if value.version == 7 else None


def _conditions(wanted: EventFilter) -> tuple[list[str], dict[str, Any]]:
    """The filter as SQL conditions (at least one) and their parameters; no value is ever part of the SQL."""
    where = ["1"]
    parameters: dict[str, Any] = {}
    sets = {"host": wanted.hosts, "service": wanted.services, "kind": wanted.kinds, "severity": wanted.severities}
    for column, values in sets.items():
        if values or (column == "kind" and values is not None):
            where.append(f"{column} IN {{{column}:Array(String)}}")
            parameters[column] = sorted(values or ())
    if wanted.q:
        where.append("positionCaseInsensitiveUTF8(text, {q:String}) > 0")
        parameters["q"] = wanted.q
    return where, parameters
