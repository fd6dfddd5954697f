"""What the agent costs the programs beside it: throughput with and without it, and ns/event of each BPF program."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks import per_event, web_storm
from benchmarks.crowd import Crowd
from benchmarks.drivers import Round, Storm, build, run_round, storms
from benchmarks.options import Options
from benchmarks.pairs import compare, order
from benchmarks.switch import Switch
from benchmarks.tools.installed import find
from demo.stage import Stage

TITLE = "throughput with and without the agent, and ns/event of each BPF program"
QUICK_PAIRS = 3
ROUND_S, QUICK_ROUND_S = 1.0, 0.5
WARM_UP_S = 0.5

RunRound: TypeAlias = Callable[[float], Awaitable[Round]]
"""Runs one round for about so many seconds."""


async def measure(options: Options) -> dict[str, Any]:
    """Every storm in pairs of rounds, off and on next to each other; then the storms again under the kernel's clock.

    The server is on this host in both states, with nothing to do but this agent's events and samples: what it costs
    to store them counts as the agent's.
    """
    pairs, round_s = (QUICK_PAIRS, QUICK_ROUND_S) if options.quick else (options.pairs, ROUND_S)
    load_average = [round(one, 2) for one in os.getloadavg()]
    with tempfile.TemporaryDirectory(prefix="reflex-bench-") as name:
        folder = Path(name)
        await build(folder)
        async with Crowd(services=1, workers=2) as crowd, Stage() as stage:
            switch = Switch(stage, crowd)
            loads = {storm.name: _load(storm) for storm in storms(folder)}
            wrk = find("wrk")
            if wrk is not None:
                loads["gunicorn"] = (web_storm.UNIT, partial(web_storm.run_round, wrk, crowd.members[0]))
            results: dict[str, Any] = {} if wrk is not None else {"gunicorn": None}
            for name, (unit, run) in loads.items():
                results[name] = {"unit": unit, **await _in_pairs(run, switch, pairs, round_s)}
            await switch.turn(on=True)
            assert stage.agent is not None
            programs = await per_event.measure(folder, stage.agent.pid, crowd.members[0])
    return {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "load_average_before": load_average,
        "round_s": round_s,
        "storms": results,
        **programs,
        "notes": {} if wrk is not None else {"gunicorn": "wrk is not installed"},
    }


def _load(storm: Storm) -> tuple[str, RunRound]:
    return storm.unit, partial(run_round, storm)


async def _in_pairs(run: RunRound, switch: Switch, pairs: int, round_s: float) -> dict[str, Any]:
    await switch.turn(on=False)
    await run(WARM_UP_S)
    rounds: dict[bool, list[Round]] = {False: [], True: []}
    for on in order(pairs):
        await switch.turn(on=on)
        rounds[on].append(await run(round_s))
    off, with_agent = rounds[False], rounds[True]
    throughput = compare([one.per_s for one in off], [one.per_s for one in with_agent])
    per_cpu_s = compare([one.per_cpu_s for one in off], [one.per_cpu_s for one in with_agent])
    return {**asdict(throughput), "per_cpu_second": asdict(per_cpu_s)}
