"""Reads server-sent events out of bytes that come in pieces of any size. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ctl.errors import ServerFailing

MAX_MESSAGE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its event name, its id or None, its data."""

    event: str
    id: str | None
    data: str


class SseReader:
    """Feed it what arrives. It keeps at most one unfinished message."""

    def __init__(self) -> None:
        self._rest = b""
        self._size = 0
        self._event = "message"
        self._id: str | None = None
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[Message]:
        """The messages that this piece completes; raises ServerFailing for one that never ends."""
        self._rest += piece
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            self._size += len(line)
            if message := self._take(line.removesuffix(b"\r").decode("utf-8", "replace")):
                yield message
        if self._size + len(self._rest) > MAX_MESSAGE_BYTES:
            raise ServerFailing(f"the server's stream sent a message of more than {MAX_MESSAGE_BYTES} bytes")

    def _take(self, line: str) -> Message | None:
        if not line:
            message = Message(self._event, self._id, "\n".join(self._data)) if self._data else None
            self._event, self._id, self._data, self._size = "message", None, [], 0
            return message
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._event = value
        elif name == "id":
            self._id = value
        elif name == "data":
            self._data.append(value)
        return None
