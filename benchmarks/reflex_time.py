"""From a fact in the kernel to the first act on the host: a worker is killed, and a playbook asks its master for another."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from benchmarks.options import Options
from benchmarks.report import spread
from demo.stage import HOST, ShopOptions, Stage

TITLE = "kernel kill -> first act of a playbook on the host"
RUNS, WORKERS = 50, 2
SETTLE_S = 0.5
"""So that the run before has verified its effect: one run at a time is at work on a target."""

PLAYBOOK = """
name: reflex-time
title: ask the master for a worker when one was killed
on:
  - event: worker.exited
    where: event.attrs.death.startsWith("killed")
steps:
  - action: gunicorn.scale
    with: {by: 1, ready_s: 30}
    timeout: 1m
limits: {cooldown: 0s, per_hour: 1000, fleet_per_hour: 1000}
recurring: {times: 100, within: 1m}
mode: armed
"""


async def measure(chosen: Options) -> dict[str, Any]:
    """Times of every reflex, in ms: with the server, and of the host alone while there is no server.

    `quick` makes a tenth of them, to see that the measurement works. Both ends are the kernel's own times: of the worker's
    end, and of the signal that its master gets. With the server, the event's way there, its storing, the decision and its
    rows, and the way back lie between them; alone, the decision and its rows; with both the host's journal and checks.
    """
    runs = RUNS // 10 if chosen.quick else RUNS
    return {"server": spread(await _with_server(runs)), "host": spread(await _alone(runs))}


async def _with_server(runs: int) -> list[float]:
    times_ms: list[float] = []
    async with Stage(playbooks={"reflex-time.yaml": PLAYBOOK}) as stage:
        await stage.start_shop(ShopOptions(workers=WORKERS, import_s=0))
        while len(times_ms) < runs:
            times_ms.append(await _one(stage))
    return times_ms


async def _alone(runs: int) -> list[float]:
    """The server lends the playbook and goes; what the host has told is read once it is back."""
    async with Stage(playbooks={"reflex-time.yaml": f"{PLAYBOOK}runs_on: host\n"}) as stage:
        await stage.start_shop(ShopOptions(workers=WORKERS, import_s=0))

        async def is_lent() -> bool:
            held = (await stage.get("/v1/hosts"))["hosts"][0]["status"].get("playbooks") or {}
            return "reflex-time" in held.get("held", [])

        await stage.until(is_lent, "the playbook is not lent to the host", within_s=30)
        await stage.stop_server()
        victims = [await _one_alone(stage) for _ in range(runs)]
        await stage.start_server_again()
        last = victims[-1]
        await stage.until(lambda: _death(stage, last), "the history of the host does not come", within_s=60)
        signals = sorted(event["ts_us"] for event in await _signals(stage))
        deaths = [(await _death(stage, victim))[0]["ts_us"] for victim in victims]
    return [(next(one for one in signals if one > died_us) - died_us) / 1000 for died_us in deaths]


async def _one_alone(stage: Stage) -> int:
    """The pid of a worker that was killed, once its master has one more than before and is back at its number."""
    assert stage.shop is not None
    victim = _workers(stage)[0]
    os.kill(victim, signal.SIGKILL)

    async def has(count: int) -> bool:
        return len(_workers(stage)) == count and victim not in _workers(stage)

    await stage.until(lambda: has(WORKERS + 1), "no playbook asked the master for a worker", within_s=30)
    await asyncio.sleep(SETTLE_S)
    os.kill(stage.shop.pid, signal.SIGTTOU)
    await stage.until(lambda: has(WORKERS), "the worker is not taken away", within_s=30)
    return victim


async def _death(stage: Stage, pid: int) -> list[dict[str, Any]]:
    found = await stage.events(kind="worker.exited", service=stage.service, limit="500")
    return [event for event in found if event["worker"]["pid"] == pid]


async def _one(stage: Stage) -> float:
    before = {event["id"] for event in await _signals(stage)}
    verified = len(await stage.events(kind="playbook.verified", limit="500"))
    victim = _workers(stage)[0]
    os.kill(victim, signal.SIGKILL)

    async def signalled() -> tuple[int, int] | None:
        fresh = [event for event in await _signals(stage) if event["id"] not in before]
        died = [
            event
            for event in await stage.events(kind="worker.exited", service=stage.service)
            if event["worker"]["pid"] == victim
        ]
        return (died[0]["ts_us"], fresh[-1]["ts_us"]) if died and fresh else None

    died_us, signalled_us = await stage.until(signalled, "no playbook asked the master for a worker", within_s=30)

    async def is_over() -> bool:
        return len(await stage.events(kind="playbook.verified", limit="500")) > verified

    await stage.until(is_over, "the run does not end", within_s=60)
    await _back(stage)
    return float(signalled_us - died_us) / 1000


async def _back(stage: Stage) -> None:
    """Takes the workers that were added away again."""
    while len(_workers(stage)) > 2 * WORKERS:
        asked = await stage.post(
            f"/v1/hosts/{HOST}/act", {"action": "gunicorn.scale", "service": stage.service, "params": {"to": WORKERS}}
        )

        async def is_done(command: str = asked["command"]) -> bool:
            done = await stage.events(kind="action.done")
            return any(event["attrs"]["command"] == command for event in done)

        await stage.until(is_done, "the workers are not taken away", within_s=60)


async def _signals(stage: Stage) -> list[dict[str, Any]]:
    """Signals to the master by which the agent asked for a worker."""
    found = await stage.events(kind="service.signalled", service=stage.service, limit="500")
    return [event for event in found if event["attrs"]["signal"] == signal.SIGTTIN]


def _workers(stage: Stage) -> list[int]:
    """Pids of the workers now, as the master's children."""
    assert stage.shop is not None
    pid = stage.shop.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
