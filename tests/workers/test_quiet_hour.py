"""Everyday life is no alarm: traffic, reloads, recycling, deploys by hand and idle stretches, watched by a real agent.

Gunicorn, Celery, uWSGI and uvicorn live through it side by side.

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
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from demo.queue_of_jobs import Jobs, JobsOptions
from demo.stage import ROOT, ShopOptions, Stage, StageError, free_port
from tests.workers.requests import visit
from tests.workers.variants import APP, PROGRAMS

QUIET_S = float(os.environ.get("REFLEX_QUIET_S", "60"))
RECORD = os.environ.get("REFLEX_RECORD")
"""A file to keep the timeline in, for benchmarks/recorded."""

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
OTHERS = {
    "uwsgi": (
        "uwsgi",
        "--plugin",
        "python3",
        "--master",
        "--processes",
        "2",
        "--max-requests",
        "40",
        "--harakiri",
        "20",
    )
    + ("--worker-reload-mercy", "3", "--http-socket", "127.0.0.1:{port}", "--wsgi-file", "app.py"),
    "uvicorn": (f"{PROGRAMS}/uvicorn-newest/bin/uvicorn", "--workers", "2", "--limit-max-requests", "90")
    + ("--port", "{port}", "app:asgi"),
    "gunicorn": (f"{PROGRAMS}/gunicorn-newest/bin/gunicorn", "-w", "2", "-b", "127.0.0.1:{port}", "--pid", "master.pid")
    + ("--graceful-timeout", "3", "app:app"),
}
"""Programs beside the shop."""

RELOADS = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)
HAND_OVERS = (signal.SIGHUP, signal.SIGUSR2)
OTHERS_FOLDER = f"quiet-{os.getpid()}"
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
    assert stage.shop is not None
    shop, folder = stage.shop.pid, stage.folder / OTHERS_FOLDER
    others = {name: await _start_other(stage, folder, name, words) for name, words in OTHERS.items()}
    until_s = time.monotonic() + QUIET_S
    ports = [port for _, port in others.values()]
    reloaded = [process.pid for name, (process, _) in others.items() if name != "gunicorn"]
    try:
        requests, deeds, _ = await asyncio.gather(
            _sum(_visit(stage, until_s), *(_visit_beside(port, until_s) for port in ports)),
            _sum(
                _operate(lambda: shop, RELOADS, until_s),
                _operate(lambda: _master(folder), HAND_OVERS, until_s),
                *(_operate(lambda pid=pid: pid, (signal.SIGHUP,), until_s) for pid in reloaded),
            ),
            _work(jobs, until_s),
        )
    finally:
        if (master := _master(folder)) is not None:
            os.kill(master, signal.SIGTERM)  # after a hand-over it is no child of the stage
    told = [event for kind in ALARMS for event in await stage.events(kind=kind, limit="500")]
    alarms = [event["text"] for event in told if _is_ours(event["service"], stage, jobs)]
    assert alarms == []
    repairs = await stage.events(kind="playbook.*", limit="500")
    repaired = [event["text"] for event in repairs if _is_ours(event["service"], stage, jobs)]
    assert repaired == [], "nothing that the library of playbooks would have repaired"
    if RECORD is not None:
        await stage.record(Path(RECORD))
    lives = len(await stage.events(kind="worker.exited", limit="500"))
    checks = await _checks(stage)
    assert requests > 100
    assert lives > 5
    assert checks > 100
    with capsys.disabled():
        print(
            f"\n{QUIET_S:.0f} s, {requests} requests, {deeds} reloads and the like, {lives} workers ended, {checks} judgements: no alarm"
        )


def _is_ours(service: str | None, stage: Stage, jobs: Jobs) -> bool:
    """Whether an event is of this test's own services: other tests may run on this host."""
    return service in (stage.service, jobs.service, None) or service.startswith(OTHERS_FOLDER)


async def _start_other(
    stage: Stage, folder: Path, name: str, words: Sequence[str]
) -> tuple[asyncio.subprocess.Process, int]:
    """Starts a program beside the shop; its process and its port."""
    port = await asyncio.to_thread(_prepare, folder)
    command = [word.replace("{port}", str(port)) for word in words]
    process = await stage.start_program(name, command, folder)

    async def is_ready() -> bool:
        ready = await stage.events(kind="worker.ready", limit="100")
        return any((event["service"] or "").startswith(OTHERS_FOLDER) for event in ready)

    await stage.until(is_ready, f"{name} has no ready worker")
    return process, port


def _prepare(folder: Path) -> int:
    folder.mkdir(exist_ok=True)
    (folder / "app.py").write_text(APP)
    return free_port()


async def _sum(*works: Awaitable[int]) -> int:
    return sum(await asyncio.gather(*works))


async def _visit_beside(port: int, until_s: float) -> int:
    """Requests in bursts."""
    chance, requests = random.Random(port), 0
    while time.monotonic() < until_s:
        for _ in range(chance.randint(10, 60)):
            await asyncio.to_thread(visit, Path("none"), port, "/")
            requests += 1
        await asyncio.sleep(chance.choice((0.5, 2, 6)))
    return requests


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


async def _operate(master: Callable[[], int | None], signals: Sequence[signal.Signals], until_s: float) -> int:
    """What people and their scripts do to a master: a reload, one worker more, one less, a hand-over to a new master."""
    chance, deeds = random.Random(str(signals)), 0
    while time.monotonic() < until_s - 15:
        await asyncio.sleep(chance.uniform(3, 8))
        deed, pid = chance.choice(signals), master()
        assert pid is not None
        os.kill(pid, deed)
        deeds += 1
        if deed is signal.SIGUSR2:
            await asyncio.sleep(5)
            os.kill(pid, signal.SIGTERM)
            async with asyncio.timeout(30):
                while master() in (pid, None):
                    await asyncio.sleep(0.1)
    return deeds


def _master(folder: Path) -> int | None:
    """The pid that Gunicorn wrote down; None between the end of an old master and the promotion of the new."""
    try:
        return int((folder / "master.pid").read_text())
    except (FileNotFoundError, ValueError):
        return None


async def _checks(stage: Stage) -> int:
    """How often the agent judged something, by its own count."""
    command = [sys.executable, "-m", "agent", "status", "--json", "--state-dir", str(stage.folder / "agent")]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    judgements: int = json.loads(output)["judgements"]
    return judgements
