"""`reflexctl timeline --follow`: prints events as they happen, over every loss of the connection."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from typing import Any

import orjson

from ctl.client import Client
from ctl.entry import mapping
from ctl.errors import NothingFound, ServerFailing
from ctl.screen import note
from ctl.sse import Message, SseReader
from ctl.timeline import Question, TimelinePrinter, newest

BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.25, 15.0
MAX_REMEMBERED = 100_000
"""Ids of printed events that are remembered, so that none is printed twice; at least as many as one question may bring."""


class Follower:
    """Prints each event once: those that answer the question first, then all that come."""

    def __init__(self, client: Client, question: Question, printer: TimelinePrinter) -> None:
        self._client = client
        self._question = question
        self._printer = printer
        self._printed: OrderedDict[str, None] = OrderedDict()
        self._last_id: str | None = None
        self._was_connected = False
        self._is_connected = False

    async def run(self) -> None:
        """Never returns. Raises CtlError when the first connection fails, and later for what trying again cannot mend."""
        backoff_s = BACKOFF_FIRST_S
        while True:
            try:
                await self._follow_once()
                trouble = ServerFailing(f"{self._client.url} ended the stream")
            except ServerFailing as error:
                trouble = error
            if not self._was_connected:
                raise trouble
            if self._is_connected:
                note(f"{trouble}; trying again until it is back")
                self._is_connected, backoff_s = False, BACKOFF_FIRST_S
            await asyncio.sleep(trouble.retry_after_s or backoff_s * random.uniform(0.5, 1.0))
            backoff_s = min(backoff_s * 2, BACKOFF_MOST_S)

    async def _follow_once(self) -> None:
        """One connection, until the server ends it. The stream is open before the store is asked, so nothing falls between."""
        reader = SseReader()
        async with self._client.stream(self._question.filters, self._last_id) as pieces:
            await self._catch_up()
            if self._was_connected:
                note(f"connected to {self._client.url} again")
            self._was_connected = self._is_connected = True
            async for piece in pieces:
                for message in reader.feed(piece):
                    self._take(message)

    async def _catch_up(self) -> None:
        """Prints what the stream does not bring by itself: everything before it, unless it continues from an event."""
        if self._last_id is not None:
            try:
                await self._client.get(f"/v1/events/{self._last_id}")
            except NothingFound:
                note("the server has lost the event that was printed last; some events may be missing here")
            else:
                return
        events, _ = await newest(self._client, self._question)
        self._print(events)
        if events:
            self._last_id = _id_of(events[-1])
        elif not self._was_connected:
            note("nothing yet; waiting for events")

    def _take(self, message: Message) -> None:
        if message.event != "timeline":
            return
        self._last_id = message.id or self._last_id
        try:
            self._print([orjson.loads(message.data)])
        except orjson.JSONDecodeError:
            raise ServerFailing(f"{self._client.url} streamed an event that is not JSON") from None

    def _print(self, events: list[Any]) -> None:
        fresh = {id_: event for event in events if (id_ := _id_of(event)) not in self._printed}
        if fresh:
            self._printer.print(list(fresh.values()))
        self._printed.update(dict.fromkeys(fresh))
        while len(self._printed) > MAX_REMEMBERED:
            self._printed.popitem(last=False)


def _id_of(event: Any) -> str:
    return str(mapping(event, "event").get("id"))
