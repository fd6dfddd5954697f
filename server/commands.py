"""The way of commands to agents: each agent keeps one WebSocket open; what cannot be delivered waits until it expires."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from agent.wire import (
    Books,
    Command,
    Order,
    books_to_json,
    command_to_json,
    order_to_json,
    sign,
    sign_books,
    sign_order,
)
from server.auth import Auth, host_key_hash
from server.errors import ApiError, try_later

HEARTBEAT_S = 10.0
SEND_S = 5.0
MOST_WAITING = 100
"""Commands that may wait for one host."""

MOST_HEARD_BYTES = 512 * 1024


@dataclass(slots=True)
class _Channel:
    """An agent's open WebSocket."""

    request: web.Request
    socket: web.WebSocketResponse
    key_hash: str


@dataclass(slots=True)
class _Host:
    channel: _Channel | None = None
    waiting: list[Command] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class CommandHub:
    """All channels. A command is written to a channel at most once; whether it was done, its outcome on the timeline says."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth
        self._hosts: dict[str, _Host] = {}
        self._closed = False
        self.heard: Callable[[str, object], Awaitable[None]] = _nobody
        self.gone: Callable[[str], None] = lambda host: None
        """Who is told what a host says, and that its channel has closed."""

    def is_connected(self, host: str) -> bool:
        """Whether the host's agent listens now."""
        one = self._hosts.get(host)
        return one is not None and one.channel is not None

    async def send(self, host: str, command: Command) -> bool:
        """Whether the command went out at once; else it waits. Raises ApiError 503 when too many wait for that host."""
        one = self._hosts.setdefault(host, _Host())
        _forget_expired(one)
        if len(one.waiting) >= MOST_WAITING:
            raise try_later(
                503, "too_many_commands", f"{MOST_WAITING} commands wait for {host:.100} already", after_s=5
            )
        one.waiting.append(command)
        await self._flush(one)
        return command not in one.waiting

    def forget(self, runs: Collection[str]) -> None:
        """Drops what waits of these runs, which are over."""
        for one in self._hosts.values():
            one.waiting = [command for command in one.waiting if not command.run or command.run not in runs]

    async def send_books(self, host: str, books: Books) -> None:
        """Sends what the host may run by itself, if it listens now."""
        await self._send_signed(host, lambda key: {"books": books_to_json(books), "signature": sign_books(books, key)})

    async def send_order(self, host: str, order: Order) -> None:
        """Sends an order, if the host listens now."""
        await self._send_signed(host, lambda key: {"order": order_to_json(order), "signature": sign_order(order, key)})

    async def _send_signed(self, host: str, signed_with: Callable[[str], object]) -> None:
        one = self._hosts.get(host)
        if one is None or (channel := one.channel) is None:
            return
        signed = signed_with(channel.key_hash)
        async with one.lock:
            try:
                await self._auth.require_host(channel.request)
                async with asyncio.timeout(SEND_S):
                    await channel.socket.send_str(orjson.dumps(signed).decode())
            except (ApiError, ConnectionError, TimeoutError):
                await channel.socket.close()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/commands: an agent's channel, until it goes, another takes its place, or the server stops."""
        host = await self._auth.require_host(request)
        if self._closed:
            raise try_later(503, "stopping", "the server stops", after_s=2)
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MOST_HEARD_BYTES)
        await socket.prepare(request)
        one = self._hosts.setdefault(host, _Host())
        before, channel = one.channel, _Channel(request, socket, host_key_hash(request))
        one.channel = channel
        if before is not None:
            self.gone(host)
            await before.socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"another channel took its place")
        try:
            await self._flush(one)
            async for message in socket:
                if message.type is WSMsgType.TEXT and one.channel is channel:
                    await self._hear(host, message.data)
        finally:
            if one.channel is channel:
                one.channel = None
                self.gone(host)
        return socket

    async def close(self) -> None:
        """Ends all channels, and takes no more."""
        self._closed = True
        for one in self._hosts.values():
            if one.channel is not None:
                await one.channel.socket.close(code=WSCloseCode.GOING_AWAY)

    async def _hear(self, host: str, text: str) -> None:
        try:
            await self.heard(host, orjson.loads(text))
        except orjson.JSONDecodeError:
            await self.heard(host, None)

    async def _flush(self, one: _Host) -> None:
        """Writes what waits, in order; a key that was revoked meanwhile gets nothing any more."""
        async with one.lock:
            _forget_expired(one)
            while one.waiting and (channel := one.channel) is not None:
                command = one.waiting[0]
                try:
                    await self._auth.require_host(channel.request)
                    async with asyncio.timeout(SEND_S):
                        await channel.socket.send_str(_envelope(command, channel.key_hash))
                except (ApiError, ConnectionError, TimeoutError):
                    one.channel = None
                    await channel.socket.close()
                    return
                one.waiting.remove(command)


async def _nobody(host: str, message: object) -> None:
    """Nobody listens."""


def _envelope(command: Command, key_hash: str) -> str:
    signed = {"command": command_to_json(command), "signature": sign(command, key_hash)}
    return orjson.dumps(signed).decode()


def _forget_expired(one: _Host) -> None:
    now_us = time.time_ns() // 1000
    one.waiting = [command for command in one.waiting if command.expires_us > now_us]
