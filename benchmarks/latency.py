"""From the kernel's kill to a row that the API answers with, over real OOM kills of real Gunicorn workers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.report import spread
from demo.stage import ShopOptions, Stage

TITLE = "kernel kill -> row queryable through the API"
KILLS = 50
ASK_EVERY_S = 0.01
MIB = 1024 * 1024


async def measure(*, quick: bool) -> dict[str, Any]:
    """Times of every kill, in ms. `quick` makes a tenth of the kills, to see that the measurement works."""
    kills = KILLS // 10 if quick else KILLS
    options = ShopOptions(workers=2, limit_bytes=128 * MIB, import_s=0, report_pause_s=0)
    times_ms: list[float] = []
    async with Stage() as stage:
        await stage.start_shop(options)
        last_id = ""
        while len(times_ms) < kills:
            request = asyncio.create_task(stage.visit("/report", method="POST"))
            event, answered_us = await _next_kill(stage, last_id)
            times_ms.append((answered_us - event["ts_us"]) / 1000)
            last_id = event["id"]
            await request
            await _all_ready_again(stage, options.workers, len(times_ms))
    return spread(times_ms)


async def _next_kill(stage: Stage, last_id: str) -> tuple[dict[str, Any], int]:
    """Asks for the newest kill until it is another one; the kill, and when the answer was there (UTC, in us)."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = await stage.events(kind="worker.oom_killed", service=stage.service, limit="1")
        answered_us = time.time_ns() // 1000
        if found and found[0]["id"] != last_id:
            return found[0], answered_us
        await asyncio.sleep(ASK_EVERY_S)
    raise TimeoutError(f"no kill came onto the timeline within 30 s:\n{stage.last_lines()}")


async def _all_ready_again(stage: Stage, workers: int, replaced: int) -> None:
    async def ready() -> bool:
        return len(await stage.events(kind="worker.ready", service=stage.service, limit="500")) >= workers + replaced

    await stage.until(ready, "the replacement does not become ready")
