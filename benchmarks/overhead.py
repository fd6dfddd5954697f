"""What the agent costs the programs beside it: throughput with and without it, and ns/event of each BPF program."""

from __future__ import annotations

import os
import platform
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import per_event
from benchmarks.crowd import Crowd
from benchmarks.drivers import Storm, build, run_round, storms, wrk_storm
from benchmarks.options import Options
from benchmarks.pairs import compare, order
from benchmarks.switch import Switch
from benchmarks.tools.installed import find
from demo.stage import Stage

TITLE = "throughput with and without the agent, and ns/event of each BPF program"
PAIRS, QUICK_PAIRS = 15, 3
ROUND_S, QUICK_ROUND_S = 1.0, 0.5
WARM_UP_S = 0.5


async def measure(options: Options) -> dict[str, Any]:
    """Every storm in pairs of rounds, off and on next to each other; then the storms again under the kernel's clock.

    The server is on this host in both states, with nothing to do but this agent's events and samples: what it costs
    to store them counts as the agent's.
    """
    pairs, round_s = (QUICK_PAIRS, QUICK_ROUND_S) if options.quick else (PAIRS, ROUND_S)
    load_average = [round(one, 2) for one in os.getloadavg()]
    with tempfile.TemporaryDirectory(prefix="reflex-bench-") as name:
        folder = Path(name)
        await build(folder)
        async with Crowd(services=1, workers=2) as crowd, Stage() as stage:
            switch = Switch(stage, crowd)
            results: dict[str, Any] = {}
            for storm in storms(folder):
                results[storm.name] = await _in_pairs(storm, switch, pairs, round_s)
            wrk = find("wrk")
            if wrk is not None:
                storm = wrk_storm(wrk, crowd.members[0].port)
                results[storm.name] = await _in_pairs(storm, switch, pairs, round_s)
            await switch.turn(on=True)
            assert stage.agent is not None
            programs = await per_event.measure(folder, stage.agent.pid, crowd.members[0])
    return {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "load_average_before": load_average,
        "round_s": round_s,
        "storms": results if wrk is not None else results | {"gunicorn": None},
        **programs,
        "notes": {} if wrk is not None else {"gunicorn": "wrk is not installed"},
    }


async def _in_pairs(storm: Storm, switch: Switch, pairs: int, round_s: float) -> dict[str, Any]:
    await switch.turn(on=False)
    await run_round(storm, WARM_UP_S)
    rates: dict[bool, list[float]] = {False: [], True: []}
    for on in order(pairs):
        await switch.turn(on=on)
        rates[on].append(await run_round(storm, round_s))
    return {"unit": storm.unit, **asdict(compare(rates[False], rates[True]))}
