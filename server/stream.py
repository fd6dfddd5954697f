"""GET /v1/stream: new events as they come, after those that a returning reader has missed."""

from __future__ import annotations

import asyncio
from uuid import UUID

import orjson
from aiohttp import web

from server.auth import Auth
from server.errors import ApiError, bad_request
from server.filters import EventFilter
from server.hosts import Hosts
from server.live import Live, Reader, event_message, hosts_message
from server.store.events import EventTable
from server.timeline import filter_of

KEEPALIVE_S = 15
STALLED_S = 30
REPLAY_PAGE = 500
HOSTS_EVERY_S = 1.0

_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Stream:
    """Serves live streams."""

    def __init__(self, auth: Auth, live: Live, events: EventTable, hosts: Hosts) -> None:
        self._auth = auth
        self._live = live
        self._events = events
        self._hosts = hosts

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One stream, until the reader goes, is too slow, loses its right to read, or the server stops."""
        wanted = filter_of(request)
        after = _after(request)
        reader = self._live.join(wanted)
        response = web.StreamResponse(headers=_HEADERS)
        try:
            await response.prepare(request)
            await response.write(b"retry: 2000\n: connected\n\n")
            await response.write(hosts_message(orjson.dumps(self._hosts.to_json())).data)
            seen = await self._replay(response, wanted, after) if after else 0
            await self._follow(request, response, reader, seen)
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._live.leave(reader)
        return response

    async def tell_hosts(self) -> None:
        """Until cancelled: tells all streams when hosts have changed, at most once in HOSTS_EVERY_S."""
        told = self._hosts.changes
        while True:
            await asyncio.sleep(HOSTS_EVERY_S)
            if told != self._hosts.changes:
                told = self._hosts.changes
                self._live.publish_hosts(orjson.dumps(self._hosts.to_json()))

    async def _replay(self, response: web.StreamResponse, wanted: EventFilter, after: str) -> int:
        """Sends what was stored since the event `after`; the arrival number up to which everything is sent.

        The reader has joined before this looks into the store. So an event is in the answer here, or in the
        reader's queue, or in both, and then its arrival number tells.
        """
        found = await self._events.by_ids([after])
        if not found:
            await response.write(b": the event to continue from is not stored here; this stream begins now\n\n")
            return 0
        seen = found[0].arrival
        while True:
            missed = await self._events.since(wanted, arrival=seen, limit=REPLAY_PAGE)
            for stored in missed:
                await _write(response, event_message(stored).data)
                seen = stored.arrival
            if len(missed) < REPLAY_PAGE:
                return seen

    async def _follow(self, request: web.Request, response: web.StreamResponse, reader: Reader, seen: int) -> None:
        while True:
            try:
                async with asyncio.timeout(KEEPALIVE_S):
                    message = await reader.queue.get()
            except TimeoutError:
                if not await self._may_read(request):
                    return
                await _write(response, b": keepalive\n\n")
                continue
            if message is None:
                return
            if message.arrival == 0 or message.arrival > seen:
                await _write(response, message.data)

    async def _may_read(self, request: web.Request) -> bool:
        try:
            await self._auth.require_operator(request)
        except ApiError:
            return False
        return True


def _after(request: web.Request) -> str | None:
    """The last event that the reader has: what the browser remembers goes before what the URL says."""
    text = request.headers.get("Last-Event-ID") or request.query.get("after")
    if not text:
        return None
    try:
        return str(UUID(text))
    except ValueError:
        raise bad_request(f"after: {text!r:.60} is no event id; ids are UUIDs") from None


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Raises TimeoutError when the reader takes nothing for STALLED_S."""
    async with asyncio.timeout(STALLED_S):
        await response.write(data)
