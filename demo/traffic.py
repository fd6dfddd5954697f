"""Light traffic: somebody looks at the shop's front page a few times a second, or sends a task now and then."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Self

from demo.queue_of_jobs import Jobs
from demo.stage import Stage

PAUSE_S = 0.1
TASK_PAUSE_S = 2.0


@dataclass(slots=True)
class Traffic:
    """Counts of what the visitors saw. Use as an async context manager."""

    of: Stage | Jobs
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
            ok = await self.of.visit() if isinstance(self.of, Jobs) else await self.of.visit("/") == 200
            self.requests += 1
            self.failed += not ok
            await asyncio.sleep(TASK_PAUSE_S if isinstance(self.of, Jobs) else PAUSE_S)
