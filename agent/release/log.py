"""The log of one order: what its programs say, without secrets, bounded; kept as an artifact and sent on as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import orjson

from agent.release.words import redactor
from agent.wire import Artifact

KIND = "release_log"
MOST_LINES = 4_000
MOST_CHARS = 200_000


class Log:
    """Lines with their time (UTC, us). Of too many, those in the middle are left out and counted."""

    def __init__(self, secrets: Iterable[str], now_us: Callable[[], int], send: Callable[[int, str], None]) -> None:
        """`send` gets each line as it comes."""
        self._redact = redactor(secrets)
        self._now_us = now_us
        self._send = send
        self._first: list[tuple[int, str]] = []
        self._last: list[tuple[int, str]] = []
        self._chars = 0
        self._left_out = 0

    def say(self, line: str) -> None:
        """Adds a line."""
        line = self._redact(line)
        now_us = self._now_us()
        self._send(now_us, line)
        if len(self._first) < MOST_LINES // 2 and self._chars < MOST_CHARS // 2:
            self._first.append((now_us, line))
            self._chars += len(line)
            return
        self._last.append((now_us, line))
        self._chars += len(line)
        while self._last and (len(self._last) > MOST_LINES // 2 or self._chars > MOST_CHARS):
            self._chars -= len(self._last.pop(0)[1])
            self._left_out += 1

    def clean(self, text: str) -> str:
        """A text without secrets."""
        return self._redact(text)

    def artifact(self, id_: str) -> Artifact:
        """All of it, to be named by the event that tells the outcome."""
        content = {"first": self._first, "left_out": self._left_out, "last": self._last}
        return Artifact(id_, self._now_us(), KIND, orjson.dumps(content))
