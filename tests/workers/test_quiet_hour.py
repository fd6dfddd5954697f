"""Everyday life is no alarm: traffic, reloads, recycling, hand-made deploys and idle stretches, watched by a real agent.

It lasts a minute; REFLEX_QUIET_S=3600 makes it the hour. The judges that need hours are run over simulated weeks in tests/agent.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator

import pytest

from demo.queue_of_jobs import Jobs, JobsOptions
from demo.stage import ROOT, ShopOptions, Stage, StageError

QUIET_S = float(os.environ.get("REFLEX_QUIET_S", "60"))
EAGER = (
    "--boot-hang-s",
    "20",
    "--stuck-after-s",
    "10",
    "--celery-stuck-after-s",
    "20",
    "--celery-backlog-window-s",
    "40",
)
"""The judges are made more eager than anybody would have them: what they leave alone now, they leave alone."""

ALARMS = (
    *(
        "worker.stuck",
        "worker.threads_stuck",
        "worker.boot_hung",
        "worker.leaking",
        "worker.oom_killed",
        "worker.snapshot",
    ),
    *("queue.saturated", "celery.backlog", "celery.task_stuck", "celery.consumer_silent", "celery.task_lost"),
    *("celery.task_poisonous", "celery.tasks_stranded", "celery.broker_unreachable", "agent.defect", "probe.lost"),
)
SHOP = ShopOptions(
    workers=2, import_s=0.2, extra=("--threads", "3", "--max-requests", "60", "--max-requests-jitter", "20")
)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    if os.geteuid() != 0:
        pytest.skip("needs root: the stage loads BPF programs")
    async with Stage(agent=EAGER) as entered:
        yield entered


@pytest.mark.timeout(QUIET_S + 180)
async def test_nothing_of_everyday_life_is_an_alarm(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        jobs = Jobs(stage, JobsOptions(extra=("--max-tasks-per-child", "20")))
        await jobs.start()
    except StageError as error:
        pytest.skip(str(error))
    await stage.start_shop(SHOP)
    until_s = time.monotonic() + QUIET_S
    requests, _, deeds = await asyncio.gather(_visit(stage, until_s), _work(jobs, until_s), _operate(stage, until_s))
    ours = (stage.service, jobs.service, None)  # other tests may run on this host
    told = [event for kind in ALARMS for event in await stage.events(kind=kind, limit="500")]
    alarms = [event["text"] for event in told if event["service"] in ours]
    assert alarms == []
    lives = len(await stage.events(kind="worker.exited", limit="500"))
    checks = await _checks(stage)
    assert requests > 100
    assert lives > 5
    assert checks > 100
    with capsys.disabled():
        print(
            f"\n{QUIET_S:.0f} s, {requests} requests, {deeds} reloads and the like, {lives} workers ended, {checks} judgements: no alarm"
        )


async def _visit(stage: Stage, until_s: float) -> int:
    """Bursts of requests, and stretches without any."""
    chance, requests = random.Random(4), 0
    while time.monotonic() < until_s:
        for _ in range(chance.randint(20, 120)):
            await stage.visit("/")
            requests += 1
        await asyncio.sleep(chance.choice((0.2, 1, 5)))
    return requests


async def _work(jobs: Jobs, until_s: float) -> None:
    """Tasks short and long, in bursts that are worked off."""
    chance = random.Random(5)
    while time.monotonic() < until_s:
        await jobs.send("shop.mail", chance.randint(1, 60))
        await jobs.send("shop.resize", chance.randint(1, 3), chance.choice((0.2, 3.0)))
        await asyncio.sleep(chance.choice((1, 4, 8)))


async def _operate(stage: Stage, until_s: float) -> int:
    """What people and their scripts send to a master: a reload, one worker more, one less."""
    chance, deeds = random.Random(6), 0
    assert stage.shop is not None
    while time.monotonic() < until_s - 5:
        await asyncio.sleep(chance.uniform(3, 8))
        stage.shop.send_signal(chance.choice((signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)))
        deeds += 1
    return deeds


async def _checks(stage: Stage) -> int:
    """How often the agent judged something, by its own count."""
    command = [sys.executable, "-m", "agent", "status", "--json", "--state-dir", str(stage.folder / "agent")]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    judgements: int = json.loads(output)["judgements"]
    return judgements
