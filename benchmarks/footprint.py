"""What watching many idle workers costs: reflexd against three other tools, one after the other on the same workers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

from benchmarks.cpu_group import CpuGroup, cpu_group
from benchmarks.crowd import Crowd
from benchmarks.options import Options
from benchmarks.tools import netdata, process_exporter, psutil_loop, reflexd
from benchmarks.tools.tool import MissingTool, Watch

TITLE = "CPU and memory of reflexd, psutil, process-exporter and netdata while they watch idle workers"
SERVICES = 4
SETTLE_S = 10.0
MEASURE_S, QUICK_S = 60, 5
MIB = 1024 * 1024

Watching: TypeAlias = Callable[[Crowd, CpuGroup], AbstractAsyncContextManager[Watch]]
TOOLS: dict[str, Watching] = {
    "reflexd": reflexd.watching,
    "psutil": psutil_loop.watching,
    "process_exporter": process_exporter.watching,
    "netdata": netdata.watching,
}


async def measure(options: Options) -> dict[str, Any]:
    """CPU in per cent of one core and memory in MB of each tool; null for one that is not installed."""
    seconds = QUICK_S if options.quick else MEASURE_S
    load_average = [round(one, 2) for one in os.getloadavg()]
    found: dict[str, dict[str, Any] | None] = {}
    notes: dict[str, str] = {}
    async with Crowd(services=min(SERVICES, options.workers), workers=options.workers) as crowd:
        for name, watching in TOOLS.items():
            try:
                with cpu_group(name) as group:
                    async with watching(crowd, group) as watch:
                        found[name] = await _observed(watch, group, seconds)
            except MissingTool as missing:
                found[name], notes[name] = None, str(missing)
    return {
        "workers": options.workers,
        "seconds": seconds,
        "load_average_before": load_average,
        **found,
        "times_less_cpu_than_best_other": times_less_cpu(
            {name: cells["cpu_percent"] for name, cells in found.items() if cells is not None}
        ),
        "notes": notes,
    }


def times_less_cpu(cpu_percent: Mapping[str, float]) -> float | None:
    """The least CPU of the others, divided by reflexd's; None when there is nothing to compare."""
    own = cpu_percent.get("reflexd")
    others = [percent for name, percent in cpu_percent.items() if name != "reflexd"]
    return round(min(others) / own, 1) if own and others else None


async def _observed(watch: Watch, group: CpuGroup, seconds: int) -> dict[str, Any]:
    """What the group uses once the tool has settled; each second begins with a look where the tool wants one."""
    await _look_each_second(watch, SETTLE_S)
    records = await watch.records() if watch.records is not None else 0
    before_ns, started_s = group.cpu_ns(), time.monotonic()
    await _look_each_second(watch, seconds)
    used_ns, passed_s = group.cpu_ns() - before_ns, time.monotonic() - started_s
    memory = group.memory()
    cells = {
        "cpu_percent": round(used_ns / passed_s / 1e7, 3),
        "rss_mb": round(memory.rss / MIB, 1),
        "pss_mb": round(memory.pss / MIB, 1),
        "processes": memory.processes,
        "watched": await watch.watched(),
    }
    if watch.records is not None:
        cells["records"] = await watch.records() - records
    return cells


async def _look_each_second(watch: Watch, seconds: float) -> None:
    started_s = time.monotonic()
    for second in range(round(seconds)):
        await watch.look()
        await asyncio.sleep(max(started_s + second + 1 - time.monotonic(), 0))
