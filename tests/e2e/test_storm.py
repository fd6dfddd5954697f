"""Storms of processes and of OOM kills under a whole agent: nothing is lost, or every loss is counted and told."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import pytest

from demo.cgroup import CgroupError, make_group
from demo.stage import ShopOptions, Stage

PROCESSES = 20_000
KILLS = 100
MIB = 1024 * 1024
SHOP = ShopOptions(workers=2, import_s=0)
FORK = "import os, sys\nfor _ in range(int(sys.argv[1])):\n    os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)"
GROW = """
import os, sys
open(sys.argv[1], "w").write(str(os.getpid()))
sys.stdin.read(1)
held = []
while True: held.append(os.urandom(1) * 1_000_000)
"""


async def _told_lost(stage: Stage) -> dict[str, int]:
    told: dict[str, int] = {}
    for event in await stage.events(kind="probe.lost", limit="500"):
        for kind, count in event["attrs"].items():
            told[kind] = told.get(kind, 0) + int(count)
    return told


async def _counted_lost(stage: Stage) -> dict[str, int]:
    (host,) = (await stage.get("/v1/hosts"))["hosts"]
    return {kind: count for kind, count in host["status"]["lost"].items() if count}


async def test_a_death_amid_twenty_thousand_processes_is_told(stage: Stage) -> None:
    """The spawner is a Python program, so the agent follows it and its children until it knows better."""
    await stage.start_shop(SHOP)
    spawners = [
        await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", FORK, str(PROCESSES // 2))
        for _ in range(2)
    ]
    victim = (await stage.events(kind="worker.ready", service=stage.service))[0]["worker"]["pid"]
    os.kill(victim, signal.SIGKILL)

    async def replaced() -> bool:
        died = [e for e in await stage.events(kind="worker.exited") if e["worker"]["pid"] == victim]
        started = await stage.events(kind="worker.started", service=stage.service)
        return bool(died) and any(event["cause"] == died[0]["id"] for event in started)

    await stage.until(replaced, "the death is not told", within_s=60)
    for spawner in spawners:
        await spawner.wait()

    async def settled() -> bool:
        return await _told_lost(stage) == await _counted_lost(stage)

    await stage.until(settled, "losses are counted that nobody tells", within_s=30)


async def test_a_hundred_oom_kills_at_once_are_all_told(stage: Stage) -> None:
    try:
        groups = [make_group(f"reflex-storm-{os.getpid()}-{number}", 16 * MIB) for number in range(KILLS)]
    except CgroupError as error:
        pytest.skip(str(error))
    read_end, write_end = os.pipe()
    try:
        victims = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-c", GROW, str(group.procs), stdin=read_end
            )
            for group in groups
        ]
        os.close(write_end)
        assert {await victim.wait() for victim in victims} == {-signal.SIGKILL}
    finally:
        os.close(read_end)
        for group in groups:
            group.remove()
    names = {group.folder.name for group in groups}

    async def told() -> list[dict[str, Any]]:
        events = await stage.events(kind="process.oom_killed", limit="500")
        mine = [event for event in events if event["attrs"].get("cgroup") in names]
        return mine if len(mine) >= KILLS else []

    events = await stage.until(told, "not every OOM kill is told", within_s=60)
    assert {event["attrs"]["victim_pid"] for event in events} == {victim.pid for victim in victims}
    assert await _counted_lost(stage) == {}
