"""How long a starting agent takes to know 50 services with 500 processes, and what it costs to go on knowing them."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent.procfs import ProcFs
from agent.status_socket import NoAgentError, ask
from benchmarks.crowd import Crowd
from benchmarks.options import Options
from benchmarks.report import spread
from demo.stage import Stage, StageError, end, free_port

TITLE = "agent start -> every service and worker known, and CPU and memory from then on"
SERVICES, PROCESSES = 50, 500
UWSGI_SERVICES, UWSGI_WORKERS = 6, 10
STARTS, QUICK_STARTS = 7, 2
SETTLE_S, MEASURE_S, QUICK_S = 15.0, 60.0, 5.0
FIRST_PICTURE_WITHIN_S = 30.0
LOOK_S = 0.005
UWSGI_BOOT_S = 30.0
_PROC = ProcFs(Path("/proc"))


async def measure(options: Options) -> dict[str, Any]:
    """Times in ms from the start of the agent's process, and from when it had attached to the kernel; cost in % of a core."""
    uwsgi = UWSGI_SERVICES if shutil.which("uwsgi") else 0
    services = SERVICES - uwsgi
    workers = PROCESSES - SERVICES - uwsgi * UWSGI_WORKERS
    async with Crowd(services=services, workers=workers) as crowd, _uwsgis(uwsgi) as masters, Stage() as stage:
        known = {member.master for member in crowd.members} | set(masters)
        wanted = workers + uwsgi * UWSGI_WORKERS
        from_start, from_attached = [], []
        for _ in range(QUICK_STARTS if options.quick else STARTS):
            assert stage.agent is not None
            await end(stage.agent)
            (stage.folder / "agent" / "services.json").unlink(missing_ok=True)
            began_us = time.time_ns() // 1000
            from_start.append(await _first_picture(stage, known, wanted))
            from_attached.append(await _found_after_ms(stage, known, began_us))
        cost = await _cost(stage, QUICK_S if options.quick else MEASURE_S)
    return {
        "services": SERVICES,
        "processes": PROCESSES,
        "mix": {"gunicorn": services, "uwsgi": uwsgi},
        "from_process_start_ms": spread(from_start),
        "from_attached_ms": spread(from_attached),
        **cost,
    }


async def _first_picture(stage: Stage, masters: set[int], workers: int) -> float:
    """Milliseconds from the start of the agent's process until it knows all."""
    began_s = time.monotonic()
    starting = asyncio.create_task(stage.start_agent())
    while time.monotonic() - began_s < FIRST_PICTURE_WITHIN_S:
        status = await asyncio.to_thread(_status, stage.folder / "agent")
        now_ms = (time.monotonic() - began_s) * 1000
        if status is not None and _knows(status, masters, workers):
            await starting
            return now_ms
        await asyncio.sleep(LOOK_S)
    starting.cancel()
    raise StageError(f"the agent does not know all {workers} workers after {FIRST_PICTURE_WITHIN_S:g} s")


async def _found_after_ms(stage: Stage, masters: set[int], began_us: int) -> float:
    """From when the agent had attached to the kernel to when it had the last service with all its workers, by its own events."""

    async def told() -> tuple[int, int] | None:
        starts = [e["ts_us"] for e in await stage.events(kind="agent.started") if e["ts_us"] >= began_us]
        found = await stage.events(kind="service.found", limit="500")
        times = [event["ts_us"] for event in found if event["ts_us"] >= began_us]
        return (min(starts), max(times)) if starts and len(times) >= len(masters) else None

    started_us, found_us = await stage.until(told, "the agent does not tell of all services")
    return float(found_us - started_us) / 1000


def _status(folder: Path) -> dict[str, Any] | None:
    try:
        return ask(folder)
    except NoAgentError:
        return None


def _knows(status: dict[str, Any], masters: set[int], workers: int) -> bool:
    found = [service for service in status["services"] if service["master_pid"] in masters]
    ready = sum(worker["state"] not in ("booting", "boot hung") for service in found for worker in service["workers"])
    return len(found) == len(masters) and ready == workers


async def _cost(stage: Stage, seconds: float) -> dict[str, float]:
    """CPU over that time and resident memory at its end."""
    assert stage.agent is not None
    pid = stage.agent.pid
    await asyncio.sleep(SETTLE_S)
    before, began_s = _PROC.usage(pid), time.monotonic()
    await asyncio.sleep(seconds)
    after, passed_s = _PROC.usage(pid), time.monotonic() - began_s
    if before is None or after is None:
        raise StageError("the agent has ended")
    cpu_percent = (after.cpu_ns - before.cpu_ns) / passed_s / 1e7
    return {"cpu_percent": round(cpu_percent, 2), "rss_mb": round(after.rss_bytes / 1048576, 1)}


@asynccontextmanager
async def _uwsgis(services: int) -> AsyncIterator[list[int]]:
    """Running uWSGI masters, each with UWSGI_WORKERS workers."""
    processes: list[asyncio.subprocess.Process] = []
    try:
        for _ in range(services):
            command = ["uwsgi", "--plugin", "python3", "--master", "--http-socket", f"127.0.0.1:{free_port()}"]
            command += [
                "--processes",
                str(UWSGI_WORKERS),
                "--wsgi-file",
                "hello.py",
                "--callable",
                "app",
                "--die-on-term",
            ]
            processes.append(
                await asyncio.create_subprocess_exec(
                    *command,
                    cwd=Path(__file__).parent,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
        deadline = time.monotonic() + UWSGI_BOOT_S
        while any(len(_PROC.children(process.pid)) < UWSGI_WORKERS for process in processes):
            if time.monotonic() > deadline:
                raise StageError("the uWSGIs to be watched do not come up")
            await asyncio.sleep(0.1)
        yield [process.pid for process in processes]
    finally:
        await asyncio.gather(*(end(process) for process in processes))
