"""A shop leaks. Left alone, the kernel kills its workers; with the playbook none is killed and no request fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from demo.chain import Link, StoredEvent
from demo.repair import armed, repair_links
from demo.stage import ShopOptions, Stage, StageError

NAME = "repair-leak"
TITLE = "leaking workers are replaced before the kernel kills one: no request fails, and without the playbook some do"
LIMIT_BYTES = 384 * 1024 * 1024
OPTIONS = ShopOptions(workers=2, limit_bytes=LIMIT_BYTES)
PLAYBOOK = "gunicorn-leak-surge"
PLAYBOOKS = armed(PLAYBOOK, within="20s")
LEAK_BYTES, PAUSE_S, VISITORS = 96 * 1024, 0.1, 4
REQUESTS = 5_000
WITHIN_S = 400.0

LINKS = (
    Link(
        "worker.leaking",
        "worker.started",
        "which worker, how fast, and how long the limit will hold",
        lambda event: event["attrs"]["limit_bytes"] == LIMIT_BYTES,
    ),
    *repair_links(PLAYBOOK, "worker.leaking", "gunicorn.rotate"),
)


@dataclass(slots=True)
class Visitors:
    """Counts of what the visitors saw."""

    stage: Stage
    requests: int = 0
    failed: list[str] = field(default_factory=list)

    def counts(self, killed: Sequence[StoredEvent]) -> dict[str, int]:
        """As the story's result has them."""
        return {"requests": self.requests, "failed": len(self.failed), "oom_kills": len(killed)}

    async def shop(self) -> None:
        """Puts something into the cart again and again, each time on a connection of its own."""
        while True:
            began_s = time.monotonic()
            status = await self.stage.visit(f"/cart?bytes={LEAK_BYTES}", method="POST")
            self.requests += 1
            if status != 200:
                self.failed.append(f"request {self.requests}: {status}")
            await asyncio.sleep(max(PAUSE_S - (time.monotonic() - began_s), 0))


async def play(stage: Stage) -> StoredEvent:
    """First without the playbook until the kernel kills, then with it; the root is the leak that was repaired."""
    await stage.put(f"/v1/playbooks/{PLAYBOOK}/mode", {"mode": "shadow"})
    left_alone = Visitors(stage)
    await _while_shopping(left_alone, lambda: _first(stage, "worker.oom_killed"), "left alone, the shop is not killed")
    stage.figures["without the playbook"] = left_alone.counts(await _all(stage, "worker.oom_killed"))
    await stage.end_programs()
    await stage.put(f"/v1/playbooks/{PLAYBOOK}/mode", {"mode": "armed"})
    began = max(event["ts_us"] for event in await stage.events())
    await stage.start_shop(OPTIONS)
    repaired = Visitors(stage)

    async def is_done() -> bool:
        verified = await _first(stage, "playbook.verified")
        return verified is not None and repaired.requests >= REQUESTS

    await _while_shopping(repaired, is_done, "the leak is not repaired")
    killed = [event for event in await _all(stage, "worker.oom_killed") if event["ts_us"] > began]
    stage.figures["with it"] = repaired.counts(killed)
    if repaired.failed:
        raise StageError(f"{len(repaired.failed)} of {repaired.requests} requests failed: {repaired.failed[:5]}")
    if killed:
        raise StageError(f"the kernel killed all the same: {killed[0]['text']}")
    leaks = [event for event in await _all(stage, "worker.leaking") if event["ts_us"] > began]
    return leaks[-1]


async def _while_shopping(visitors: Visitors, is_done: Callable[[], Awaitable[object]], problem: str) -> None:
    """Until then, with several visitors at once, so that every worker has work."""
    shopping = asyncio.gather(*(visitors.shop() for _ in range(VISITORS)))
    try:
        await visitors.stage.until(is_done, problem, within_s=WITHIN_S)
    finally:
        shopping.cancel()
        await asyncio.gather(shopping, return_exceptions=True)


async def _first(stage: Stage, kind: str) -> StoredEvent | None:
    return next(iter(await _all(stage, kind)), None)


async def _all(stage: Stage, kind: str) -> Sequence[StoredEvent]:
    """Of this shop: others may run on this host."""
    return await stage.events(kind=kind, service=stage.service)
