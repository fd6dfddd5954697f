"""The way of commands: one WebSocket that the agent opens to the server, again and again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import TypeAlias

import aiohttp
import orjson

from agent.endpoint import authorization, endpoint_of

HEARTBEAT_S = 10.0
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.2, 15.0
MOST_BYTES = 1024 * 1024
MOST_SAYING = 500
"""Messages that are said and not sent yet; more are dropped."""

TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5)

Take: TypeAlias = Callable[[object], object | None]

log = logging.getLogger(__name__)


class CommandLink:
    """Listens for ever; never gives up, and never tells the key to anybody but the server."""

    def __init__(
        self, url: str, host_key: str, hello: Callable[[], object], take: Take, *, allow_plain_http: bool = False
    ) -> None:
        """`hello` is what is said first; `take` gets each message, and what it returns is the answer. Raises LinkError for an address that would give the key away."""
        endpoint = endpoint_of(url, allow_plain_http=allow_plain_http)
        self._url = f"{endpoint.url.removesuffix('/v1/ingest')}/v1/commands"
        self._socket_path = endpoint.socket_path
        self._authorization = authorization(host_key)
        self._hello = hello
        self._take = take
        self._trouble: str | None = None
        self._channel: aiohttp.ClientWebSocketResponse | None = None
        self._saying: set[asyncio.Task[None]] = set()

    def say(self, message: object) -> None:
        """Says something at once if the channel is open; nothing waits for it, and nothing is said twice."""
        if self._channel is None or len(self._saying) >= MOST_SAYING:
            return
        task = asyncio.ensure_future(self._channel.send_str(orjson.dumps(message).decode()))
        self._saying.add(task)
        task.add_done_callback(self._said)

    def _said(self, task: asyncio.Task[None]) -> None:
        self._saying.discard(task)
        if not task.cancelled():
            task.exception()

    async def listen(self) -> None:
        """Until cancelled."""
        backoff_s = BACKOFF_FIRST_S
        while True:
            try:
                await self._listen_once()
                backoff_s = BACKOFF_FIRST_S
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self._say(f"commands cannot come: {str(error) or type(error).__name__}")
                backoff_s = min(backoff_s * 2, BACKOFF_MOST_S)
            self._channel = None
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))

    async def _listen_once(self) -> None:
        connector = aiohttp.UnixConnector(self._socket_path) if self._socket_path else None
        headers = {"Authorization": self._authorization}
        async with (
            aiohttp.ClientSession(connector=connector, timeout=TIMEOUT, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.ws_connect(self._url, headers=headers, heartbeat=HEARTBEAT_S, max_msg_size=MOST_BYTES) as channel,
        ):
            self._say(None)
            await channel.send_str(orjson.dumps(self._hello()).decode())
            self._channel = channel
            async for message in channel:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return
                try:
                    said = orjson.loads(message.data)
                except orjson.JSONDecodeError:
                    said = None
                answer = self._take(said)
                if answer is not None:
                    await channel.send_str(orjson.dumps(answer).decode())

    def _say(self, trouble: str | None) -> None:
        """Logs when trouble begins, changes or ends."""
        if trouble != self._trouble:
            self._trouble = trouble
            log.log(logging.INFO if trouble is None else logging.WARNING, "%s", trouble or "commands can come")
