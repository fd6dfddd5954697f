"""GET /v1/timeline, /v1/events/{id} and /v1/chain/{id}: reading what happened."""

from __future__ import annotations

import base64
import binascii
import time
from dataclasses import asdict
from typing import Any
from uuid import UUID

import orjson
from aiohttp import web

from server.causes import build_chain
from server.errors import ApiError, bad_request
from server.filters import EventFilter, parse_filter, parse_time
from server.store.events import EventTable, Page
from server.stored import StoredEvent, stored_to_json

DEFAULT_LIMIT = 100
MAX_LIMIT = 500
MAX_CHAIN = 500
"""Most events in one chain."""


class Timeline:
    """Answers questions about events."""

    def __init__(self, events: EventTable) -> None:
        self._events = events

    async def page(self, request: web.Request) -> web.Response:
        """One page, newest first."""
        page = _page(request, now_us=time.time_ns() // 1000)
        found = await self._events.page(filter_of(request), page)
        more = len(found) == page.limit
        answer = {
            "events": [stored_to_json(stored) for stored in found],
            "next_cursor": _write_cursor(page, found[-1]) if more else None,
        }
        return json_answer(answer)

    async def one(self, request: web.Request) -> web.Response:
        """One event by its id."""
        return json_answer(stored_to_json(await self._find(request.match_info["id"])))

    async def chain(self, request: web.Request) -> web.Response:
        """The causes of one event up to the root, and all their effects."""
        asked = await self._find(request.match_info["id"])
        story = {asked.event.id: asked}
        truncated = await self._add_causes(asked, story) or await self._add_effects(story)
        chain = build_chain(asked.event.id, story.values(), truncated=truncated)
        answer = {
            "id": chain.asked,
            "root": chain.root,
            "events": [stored_to_json(stored) for stored in chain.events],
            "links": [asdict(link) for link in chain.links],
            "missing": chain.missing,
            "truncated": chain.truncated,
        }
        return json_answer(answer)

    async def _find(self, text: str) -> StoredEvent:
        try:
            id_ = str(UUID(text))
        except ValueError:
            raise bad_request(f"{text!r:.60} is no event id; ids are UUIDs") from None
        found = await self._events.by_ids([id_])
        if not found:
            raise ApiError(404, "not_found", f"no event {id_} is stored (yet)")
        return found[0]

    async def _add_causes(self, event: StoredEvent, story: dict[str, StoredEvent]) -> bool:
        """Climbs until the root, a cause that is not stored, or a circle; whether causes were left out."""
        cause = event.event.cause
        while cause is not None and cause not in story:
            if len(story) >= MAX_CHAIN:
                return True
            found = await self._events.by_ids([cause])
            if not found:
                return False
            story[cause] = found[0]
            cause = found[0].event.cause
        return False

    async def _add_effects(self, story: dict[str, StoredEvent]) -> bool:
        """Descends generation by generation; whether effects were left out."""
        generation = list(story)
        while generation:
            room = MAX_CHAIN - len(story)
            found = await self._events.effects_of(generation, limit=MAX_CHAIN + 1)
            fresh = [stored for stored in found if stored.event.id not in story]
            story.update((stored.event.id, stored) for stored in fresh[:room])
            if len(fresh) > room or len(found) > MAX_CHAIN:
                return True
            generation = [stored.event.id for stored in fresh]
        return False


def filter_of(request: web.Request) -> EventFilter:
    """The filter in the request's parameters; raises ApiError 400."""
    query = request.query
    return parse_filter(
        hosts=query.getall("host", []),
        services=query.getall("service", []),
        kinds=query.getall("kind", []),
        severity=query.get("severity"),
        q=query.get("q"),
    )


def json_answer(value: Any, *, status: int = 200) -> web.Response:
    """An answer that no cache keeps."""
    return web.Response(
        body=orjson.dumps(value), status=status, content_type="application/json", headers={"Cache-Control": "no-store"}
    )


def _page(request: web.Request, *, now_us: int) -> Page:
    query = request.query
    limit = query.get("limit", str(DEFAULT_LIMIT))
    if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 1 <= int(limit) <= MAX_LIMIT):
        raise bad_request(f"limit: must be a whole number from 1 to {MAX_LIMIT}, not {limit!r:.20}")
    if cursor := query.get("cursor"):
        return _read_cursor(cursor, int(limit))
    from_us = parse_time("from", query["from"], now_us=now_us) if "from" in query else None
    to_us = parse_time("to", query["to"], now_us=now_us) if "to" in query else None
    return Page(from_us, to_us, None, int(limit))


def _write_cursor(page: Page, last: StoredEvent) -> str:
    """Where the next page begins. The range is part of it, so that `-15m` means the same on every page."""
    place = [page.from_us, page.to_us, last.event.ts_us, last.event.id]
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


def _read_cursor(cursor: str, limit: int) -> Page:
    try:
        place = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        from_us, to_us, ts_us, id_ = place
        if not all(one is None or _is_time(one) for one in (from_us, to_us)) or not _is_time(ts_us):
            raise ValueError
        return Page(from_us, to_us, (ts_us, str(UUID(id_))), limit)
    except (ValueError, TypeError, AttributeError, binascii.Error):
        raise bad_request("cursor: is not one that this server gave out; start without it") from None


def _is_time(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53
