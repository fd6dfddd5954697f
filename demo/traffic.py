"""Light traffic: somebody looks at the shop's front page a few times a second."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Self

from demo.stage import Stage

PAUSE_S = 0.1


@dataclass(slots=True)
class Traffic:
    """Counts of what the visitors saw. Use as an async context manager."""

    stage: Stage
    requests: int = 0
    failed: int = 0
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._visit_for_ever())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _visit_for_ever(self) -> None:
        while True:
            status = await self.stage.visit("/")
            self.requests += 1
            self.failed += status != 200
            await asyncio.sleep(PAUSE_S)
