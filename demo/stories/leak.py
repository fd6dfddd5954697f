"""Each request leaves a little memory behind, until the limit is in sight."""

from __future__ import annotations

import asyncio

from demo.chain import Link, StoredEvent
from demo.stage import SERVICE, ShopOptions, Stage

NAME = "leak"
TITLE = "a worker's memory grows with every request, and Reflex says when it will be too much"
LIMIT_BYTES = 256 * 1024 * 1024
OPTIONS = ShopOptions(workers=1, limit_bytes=LIMIT_BYTES)
LEAK_BYTES, PAUSE_S = 256 * 1024, 0.1
WITHIN_S = 180.0

LINKS = (
    Link(
        "worker.leaking",
        "worker.started",
        "which worker, how fast, since when, and how long the limit will hold",
        lambda event: (
            event["service"].startswith(SERVICE)
            and 0.3 < event["attrs"]["slope_bytes_per_s"] * PAUSE_S / LEAK_BYTES < 1.2
            and event["attrs"]["limit_bytes"] == LIMIT_BYTES
            and 0 < event["attrs"]["time_left_s"] < WITHIN_S
        ),
    ),
    Link(
        "worker.snapshot",
        "worker.leaking",
        "what it was doing was kept while it was still there",
        lambda event: "MiB" in event["attrs"]["memory_map"] and event["attrs"]["stack"] != "",
    ),
)


async def play(stage: Stage) -> StoredEvent:
    """Asks for carts until the leak is told, and on until the snapshot; the start of the worker that leaks."""
    visitors = asyncio.create_task(_visit(stage))
    try:
        event: StoredEvent = await stage.until(lambda: _first(stage, "worker.leaking"), "no leak", within_s=WITHIN_S)
        await stage.until(lambda: _first(stage, "worker.snapshot"), "no snapshot", within_s=WITHIN_S)
    finally:
        visitors.cancel()
        await asyncio.gather(visitors, return_exceptions=True)
    return event


async def _visit(stage: Stage) -> None:
    while True:
        await stage.visit(f"/cart?bytes={LEAK_BYTES}", method="POST")
        await asyncio.sleep(PAUSE_S)


async def _first(stage: Stage, kind: str) -> StoredEvent | None:
    return next(iter(await stage.events(kind=kind, service=stage.service)), None)
