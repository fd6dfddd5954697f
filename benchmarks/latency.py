"""From the kernel's kill to a row that the API answers with, over real OOM kills of real Gunicorn workers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.options import Options
from benchmarks.report import spread
from demo.stage import ShopOptions, Stage

TITLE = "kernel kill -> row queryable through the API"
KILLS = 50
WAIT_S = 30.0
MIB = 1024 * 1024


async def measure(chosen: Options) -> dict[str, Any]:
    """Times of every kill, in ms. `quick` makes a tenth of the kills, to see that the measurement works.

    The stream says when to ask; the clock stops when the API has answered with the row.
    """
    kills = KILLS // 10 if chosen.quick else KILLS
    options = ShopOptions(workers=2, limit_bytes=128 * MIB, import_s=0, report_pause_s=0)
    times_ms: list[float] = []
    async with Stage() as stage:
        await stage.start_shop(options)
        async with stage.follow(kind="worker.oom_killed", service=stage.service) as killed:
            while len(times_ms) < kills:
                request = asyncio.create_task(stage.visit("/report", method="POST"))
                streamed = await asyncio.wait_for(anext(killed), WAIT_S)
                row = await stage.get(f"/v1/events/{streamed['id']}")
                times_ms.append((time.time_ns() / 1000 - row["ts_us"]) / 1000)
                await request
                await _all_ready_again(stage, options.workers, len(times_ms))
    return spread(times_ms)


async def _all_ready_again(stage: Stage, workers: int, replaced: int) -> None:
    async def ready() -> bool:
        return len(await stage.events(kind="worker.ready", service=stage.service, limit="500")) >= workers + replaced

    await stage.until(ready, "the replacement does not become ready")
