"""POST /v1/ingest: takes a batch from an agent and answers only after everything in it is durable."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import orjson
from aiohttp import web

from agent.wire import MAX_BODY_BYTES
from server.auth import Auth
from server.batch import read_batch
from server.body import parse_json, read_body
from server.brain import Brain
from server.errors import StoreError, try_later
from server.hosts import Hosts
from server.recorder import Recorder

RETRY_AFTER_S = 2

log = logging.getLogger(__name__)


class Room:
    """Bytes that batches may take up in memory, over all agents."""

    def __init__(self, free_bytes: int) -> None:
        self.free_bytes = free_bytes


class Place:
    """A part of the room, given back at the end of the `with`. Entering raises ApiError 429 when there is none."""

    def __init__(self, room: Room, size: int) -> None:
        self._room = room
        self._size = size

    def __enter__(self) -> Self:
        if self._size > self._room.free_bytes:
            raise try_later(429, "busy", "too many batches wait for the store; come back later", after_s=RETRY_AFTER_S)
        self._room.free_bytes -= self._size
        return self

    def shrink_to(self, size: int) -> None:
        """Gives back what turned out not to be needed."""
        self._room.free_bytes += self._size - size
        self._size = size

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._room.free_bytes += self._size


class Ingest:
    """Receives batches. `max_inflight_bytes` bounds the bodies that are in memory at once, over all agents."""

    def __init__(
        self,
        auth: Auth,
        recorder: Recorder,
        hosts: Hosts,
        brain: Brain,
        save_hosts: Callable[[], Awaitable[None]],
        *,
        max_inflight_bytes: int,
    ) -> None:
        """`save_hosts` writes down which hosts were heard; a host is known for good once its first batch is acknowledged."""
        self._auth = auth
        self._recorder = recorder
        self._hosts = hosts
        self._brain = brain
        self._save_hosts = save_hosts
        self._room = Room(max_inflight_bytes)

    async def receive(self, request: web.Request) -> web.Response:
        """Answers what was acknowledged and what was rejected; 503 when the store fails, then nothing is."""
        host = await self._auth.require_host(request)
        with Place(self._room, MAX_BODY_BYTES) as place:
            body = await read_body(request, limit=MAX_BODY_BYTES)
            place.shrink_to(len(body))
            return await self._store(host, parse_json(body))

    async def _store(self, host: str, value: object) -> web.Response:
        received = read_batch(host, value, now_us=time.time_ns() // 1000)
        is_new = self._hosts.heard(host, received.status, received.events)
        self._brain.heard(host, received.status)
        try:
            if is_new:
                await self._save_hosts()
            await self._recorder.record(received.events, received.samples, received.artifacts)
        except StoreError as error:
            log.error("a batch of %s is not stored and stays in its spool: %s", host, error)
            message = f"nothing is acknowledged, send it again: {error}"
            raise try_later(503, "store_failed", message, after_s=RETRY_AFTER_S) from error
        self._brain.measured(received.samples)
        return web.Response(body=orjson.dumps(received.answer), content_type="application/json")
