"""Hands every new event to the live streams that want it, and never waits for a slow one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from server.errors import try_later
from server.filters import EventFilter
from server.stored import StoredEvent, stored_to_json

MAX_WAITING = 1_000
"""Messages that a reader may be behind; one more and it is disconnected, to come back with its last id."""


@dataclass(frozen=True, slots=True)
class Message:
    """One server-sent message; `arrival` is 0 for what is no event."""

    data: bytes
    arrival: int = 0


@dataclass(slots=True)
class Reader:
    """One open stream. None in `queue` means: end the stream."""

    wanted: EventFilter
    queue: asyncio.Queue[Message | None] = field(default_factory=lambda: asyncio.Queue(MAX_WAITING))

    def put(self, message: Message) -> bool:
        """Whether there was room; if not, the stream ends."""
        try:
            self.queue.put_nowait(message)
        except asyncio.QueueFull:
            self.end()
            return False
        return True

    def end(self) -> None:
        """Ends the stream at once, without what still waits."""
        while not self.queue.empty():
            self.queue.get_nowait()
        self.queue.put_nowait(None)


class Live:
    """All open streams."""

    def __init__(self, *, max_readers: int) -> None:
        self._max_readers = max_readers
        self._readers: list[Reader] = []
        self._closed = False

    def join(self, wanted: EventFilter) -> Reader:
        """A new reader, who hears of every event from now on. Raises ApiError 503 when there are too many."""
        if self._closed or len(self._readers) >= self._max_readers:
            raise try_later(503, "too_many_streams", f"{len(self._readers)} live streams are open already", after_s=5)
        reader = Reader(wanted)
        self._readers.append(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        """Forgets a reader; harmless when it is gone already."""
        if reader in self._readers:
            self._readers.remove(reader)

    def publish(self, events: Sequence[StoredEvent]) -> None:
        """These events have just become visible, in this order."""
        for stored in events:
            readers = [reader for reader in self._readers if reader.wanted.matches(stored)]
            if readers:
                self._send(readers, event_message(stored))

    def publish_hosts(self, data: bytes) -> None:
        """The answer of /v1/hosts has changed."""
        self._send(list(self._readers), hosts_message(data))

    def close(self) -> None:
        """Ends all streams, and takes no more."""
        self._closed = True
        for reader in self._readers:
            reader.end()
        self._readers.clear()

    def _send(self, readers: Sequence[Reader], message: Message) -> None:
        for reader in readers:
            if not reader.put(message):
                self.leave(reader)


def event_message(stored: StoredEvent) -> Message:
    """The event as `event: timeline`."""
    data = orjson.dumps(stored_to_json(stored))
    return Message(b"event: timeline\nid: %b\ndata: %b\n\n" % (stored.event.id.encode(), data), stored.arrival)


def hosts_message(data: bytes) -> Message:
    """The answer of /v1/hosts as `event: hosts`."""
    return Message(b"event: hosts\ndata: %b\n\n" % data)
