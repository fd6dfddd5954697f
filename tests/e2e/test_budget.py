"""An agent with hardly any budget: it sheds samples and says so, and every event still comes. Real parts only."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from agent.budget import LEVELS, WINDOW_S
from agent.procfs import ProcFs
from demo.stage import ShopOptions, Stage, end

SHOP = ShopOptions(workers=4, import_s=0)
KILLS = 40
PROCFS = ProcFs(Path("/proc"))


async def _restart_agent(stage: Stage, *options: str) -> None:
    assert stage.agent is not None
    await end(stage.agent)
    await stage.start_agent(*options)


async def _first(stage: Stage, kind: str) -> dict[str, Any]:
    async def told() -> dict[str, Any] | None:
        return next(iter(await stage.events(kind=kind)), None)

    event: dict[str, Any] = await stage.until(told, f"{kind} is not told", within_s=3 * WINDOW_S)
    return event


async def test_a_tiny_budget_sheds_samples_and_no_events(stage: Stage) -> None:
    await _restart_agent(stage, "--cpu-budget-percent", "0.01", "--memory-budget-mb", "10")
    await stage.start_shop(SHOP)
    shed = await _first(stage, "agent.shedding")
    assert (shed["severity"], shed["attrs"]["level"], shed["attrs"]["over"]) == ("warning", 1, "cpu, memory")
    assert f"samples less: {LEVELS[1].samples}. Events go on. It gave free memory back to the system." in shed["text"]

    async def shown() -> bool:
        status = (await stage.get("/v1/hosts"))["hosts"][0]["status"]
        return bool(status["budget"]["level"] == 1 and status["budget"]["samples"] == LEVELS[1].samples)

    await stage.until(shown, "the status does not show the level")

    (up,) = await stage.events(kind="service.started", service=stage.service)
    killed: set[int] = set()
    while len(killed) < KILLS:
        for pid in set(PROCFS.children(up["attrs"]["master_pid"])) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)

    async def all_told() -> bool:
        exits = await stage.events(kind="worker.exited", service=stage.service, limit="500")
        return killed <= {event["worker"]["pid"] for event in exits}

    await stage.until(all_told, "not every death is told")
