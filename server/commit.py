"""Group commit: what arrives while one insert is under way goes into the next one, and nothing waits for a timer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from server.errors import StoreError

Item = TypeVar("Item")

Write = Callable[[Sequence[Item]], Awaitable[None]]


class GroupCommit(Generic[Item]):
    """Hands items to `write`, one group at a time, in the order in which they came.

    Waiting items are bounded by the callers: ingest lets in only so many bytes at once.
    """

    def __init__(self, write: Write[Item], *, most_items: int) -> None:
        """A group holds at most `most_items`, or one caller's items if those are more."""
        self._write = write
        self._most_items = most_items
        self._waiting: deque[tuple[Sequence[Item], asyncio.Future[None]]] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._run(), name="group-commit")

    async def commit(self, items: Sequence[Item]) -> None:
        """Returns when the items are stored. Raises StoreError, then they may or may not be."""
        if self._closing:
            raise StoreError("the server is stopping")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, done))
        self._wake.set()
        await done

    async def close(self) -> None:
        """Stores what is waiting and ends."""
        self._closing = True
        self._wake.set()
        await self._task

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._write_group(self._next_group())
            if self._closing:
                return

    def _next_group(self) -> list[tuple[Sequence[Item], asyncio.Future[None]]]:
        group = [self._waiting.popleft()]
        size = len(group[0][0])
        while self._waiting and size + len(self._waiting[0][0]) <= self._most_items:
            group.append(self._waiting.popleft())
            size += len(group[-1][0])
        return group

    async def _write_group(self, group: list[tuple[Sequence[Item], asyncio.Future[None]]]) -> None:
        failure: Exception | None = None
        try:
            await self._write([item for items, _ in group for item in items])
        except Exception as error:  # noqa: BLE001 - a defect must reach every waiting sender, not leave them hanging
            failure = error
        for _, done in group:
            if done.cancelled():
                continue
            if failure is None:
                done.set_result(None)
            else:
                done.set_exception(failure)
