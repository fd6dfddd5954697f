"""kill -9 of the server and of the agent while workers die: every event arrives, and arrives once. Real parts only."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.procfs import ProcFs
from demo.stage import HOST, ShopOptions, Stage, StageError

SHOP = ShopOptions(workers=6, import_s=0)
KILLS = 200
SERVER_KILLS_AT = (40, 90, 150)
PROCFS = ProcFs(Path("/proc"))


async def _kill(process: asyncio.subprocess.Process | None) -> None:
    assert process is not None
    process.send_signal(signal.SIGKILL)
    await process.wait()


async def _restart_server(stage: Stage) -> None:
    """kill -9 and a new server on the same port and the same store."""
    port = urlsplit(stage.url).port
    assert port is not None
    await _kill(stage.server)
    await stage.start_server(port)


async def _master_pid(stage: Stage) -> int:
    (up,) = await stage.events(kind="service.started", service=stage.service)
    pid: int = up["attrs"]["master_pid"]
    return pid


async def _kill_a_worker(master_pid: int, spared: set[int]) -> int:
    """kill -9 of one worker that was not killed before; its pid."""
    while True:
        fresh = [pid for pid in PROCFS.children(master_pid) if pid not in spared]
        if fresh:
            spared.add(fresh[0])
            os.kill(fresh[0], signal.SIGKILL)
            return fresh[0]
        await asyncio.sleep(0.005)


async def _all_exits(stage: Stage) -> list[dict[str, Any]]:
    """All deaths of workers on the timeline, page by page."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        paging = {"cursor": cursor} if cursor else {}
        page = await stage.get("/v1/timeline", kind="worker.exited", service=stage.service, limit="500", **paging)
        found += page["events"]
        cursor = page["next_cursor"]
        if not cursor:
            return found


async def _arrived(stage: Stage, pids: set[int]) -> list[dict[str, Any]]:
    async def all_there() -> list[dict[str, Any]]:
        found = await _all_exits(stage)
        return found if pids <= {event["worker"]["pid"] for event in found} else []

    try:
        found: list[dict[str, Any]] = await stage.until(
            all_there, "not every death came onto the timeline", within_s=60
        )
    except StageError as error:
        there = {event["worker"]["pid"] for event in await _all_exits(stage)}
        raise AssertionError(f"deaths that are missing: {sorted(pids - there)}") from error
    return found


def _assert_each_once(found: list[dict[str, Any]], pids: set[int]) -> None:
    counted = Counter(event["worker"]["pid"] for event in found)
    assert set(counted) == pids
    assert set(counted.values()) == {1}
    assert len({event["id"] for event in found}) == len(found)


async def test_the_server_is_killed_during_200_kills(stage: Stage) -> None:
    await stage.start_shop(SHOP)
    master_pid = await _master_pid(stage)
    killed: set[int] = set()
    restarts: list[asyncio.Task[None]] = []
    for number in range(KILLS):
        if number in SERVER_KILLS_AT:
            await asyncio.gather(*restarts)
            restarts.append(asyncio.create_task(_restart_server(stage)))
        await _kill_a_worker(master_pid, killed)
        await asyncio.sleep(0.01)
    await asyncio.gather(*restarts)
    _assert_each_once(await _arrived(stage, killed), killed)


async def test_the_agent_is_killed_between_spool_and_send(stage: Stage) -> None:
    """With the server away everything waits in the spool; the agent dies; a new one sends it, once."""
    await stage.start_shop(SHOP)
    master_pid = await _master_pid(stage)
    port = urlsplit(stage.url).port
    assert port is not None
    killed: set[int] = set()
    await _kill(stage.server)
    for _ in range(20):
        await _kill_a_worker(master_pid, killed)
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    await _kill(stage.agent)
    await stage.start_server(port)
    await stage.start_agent()
    _assert_each_once(await _arrived(stage, killed), killed)


async def test_the_agent_is_killed_again_and_again_while_it_sends(stage: Stage) -> None:
    """Deaths while no agent runs are not seen; what is on the timeline is there once, with ids of its own."""
    await stage.start_shop(SHOP)
    master_pid = await _master_pid(stage)
    killed: set[int] = set()
    for _ in range(4):
        for _ in range(10):
            await _kill_a_worker(master_pid, killed)
            await asyncio.sleep(0.01)
        await _kill(stage.agent)
        await stage.start_agent()
    seen_alive = {await _kill_a_worker(master_pid, killed) for _ in range(5)}
    found = await _arrived(stage, seen_alive)
    counted = Counter(event["worker"]["pid"] for event in found)
    assert set(counted) <= killed
    assert set(counted.values()) == {1}
    hosts = {event["host"] for event in found}
    assert hosts == {HOST}
