"""A release that turns bad after its watch: a real Gunicorn, real crashes, and the library's playbook, armed."""

from __future__ import annotations

import asyncio
import os
import shutil

import pytest

from demo.deploying import Deploying, DeployOptions, Visitors
from demo.repair import armed
from demo.stage import Stage, StageError, demo_python

ENDS = ("playbook.verified", "playbook.escalated", "playbook.failed")
CRASHES = 3


async def crash(port: int) -> None:
    """One request that a worker dies under."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /crash HTTP/1.1\r\nHost: market\r\n\r\n")
    assert await reader.read() == b""
    writer.close()


@pytest.mark.timeout(400)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: builds run as another user")
async def test_a_release_that_turns_bad_after_its_watch_is_taken_back() -> None:
    try:
        demo_python()
    except StageError as error:
        pytest.skip(str(error))
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: ./reflex setup --dev installs it")
    books = {f"{name}.yaml": text for name, text in armed("deploy-regression").items()}
    stage = Stage(playbooks=books)
    deploying = Deploying(stage, DeployOptions(watch="5s"))
    (stage.folder / "policy.toml").write_text(deploying.policy)
    async with stage, deploying:
        deploying.commit("v1")
        await deploying.take_on()
        assert (await deploying.deploy())["outcome"] == "kept"
        await deploying.start_programs()
        deploying.commit("v2")
        assert (await deploying.deploy())["outcome"] == "kept"
        for count in range(1, CRASHES + 1):
            await crash(deploying.port)

            async def died(count: int = count) -> bool:
                deaths = await stage.events(kind="worker.exited", service="market-web")
                return sum(one["attrs"]["death"] == "crash_signal" for one in deaths) == count

            await stage.until(died, f"crash {count} is not told")
        async with Visitors(deploying.port) as visitors:

            async def ended() -> bool:
                return any(one["kind"] in ENDS for one in await stage.events(kind="playbook.*"))

            await stage.until(ended, "the playbook does not end", within_s=120)
            visitors.turn()
            await asyncio.sleep(1)
            seen = visitors.turn()
        assert (set(seen.versions), seen.failed) == ({"v1"}, 0)
        chain = await stage.get(f"/v1/chain/{(await stage.events(kind='release.regressed'))[0]['id']}")
        kinds = [one["kind"] for one in chain["events"]]
        assert {
            "worker.exited",
            "playbook.started",
            "deploy.started",
            "release.rolled_back",
            "playbook.verified",
        } <= set(kinds)
        waits = await deploying.begin("main")
        assert waits["stage"] == "queued"
