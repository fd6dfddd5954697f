"""What hosts say while they work on orders: the last lines of each deploy, for who follows it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_LINES = 5_000
MOST_DEPLOYS = 20
MOST_LINE_CHARS = 2_000
MOST_BEHIND = 2_000


@dataclass(slots=True)
class _Log:
    lines: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MOST_LINES))
    readers: set[asyncio.Queue[dict[str, Any]]] = field(default_factory=set)


class Logs:
    """Lines by deploy, in memory: the whole log of each phase is an artifact of the event that tells its end."""

    def __init__(self) -> None:
        self._logs: dict[str, _Log] = {}

    def add(self, host: str, said: Mapping[str, Any]) -> None:
        """One line of a host; what is not well formed is passed over."""
        deploy, line, ts_us = said.get("deploy"), said.get("line"), said.get("ts_us")
        if not isinstance(deploy, str) or not isinstance(line, str) or not isinstance(ts_us, int):
            return
        log = self._logs.get(deploy)
        if log is None:
            return
        entry = {"host": host, "line": line[:MOST_LINE_CHARS], "ts_us": ts_us}
        log.lines.append(entry)
        for reader in list(log.readers):
            if reader.qsize() < MOST_BEHIND:
                reader.put_nowait(entry)

    def begin(self, deploy: str) -> None:
        """From now on lines of this deploy are kept."""
        self._logs.setdefault(deploy, _Log())
        while len(self._logs) > MOST_DEPLOYS:
            del self._logs[next(iter(self._logs))]

    def lines(self, deploy: str) -> list[dict[str, Any]]:
        """What is there now."""
        log = self._logs.get(deploy)
        return [] if log is None else list(log.lines)

    async def follow(self, deploy: str) -> AsyncGenerator[dict[str, Any]]:
        """What is there, and what comes, for ever."""
        log = self._logs.setdefault(deploy, _Log())
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for line in log.lines:
            queue.put_nowait(line)
        log.readers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            log.readers.discard(queue)
