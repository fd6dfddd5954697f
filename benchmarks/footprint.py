"""What the agent costs while it watches 64 idle Gunicorn workers: CPU and resident memory of reflexd."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from agent.procfs import ProcFs
from demo.stage import ShopOptions, Stage

TITLE = "reflexd with 64 idle workers"
WORKERS = 64
SETTLE_S = 5.0
MEASURE_S = 60.0
MIB = 1024 * 1024


async def measure(*, quick: bool) -> dict[str, Any]:
    """CPU in per cent of one core over a minute (`quick`: over five seconds), and RSS at its end, in MB."""
    seconds = MEASURE_S / 12 if quick else MEASURE_S
    async with Stage() as stage:
        await stage.start_shop(ShopOptions(workers=WORKERS, limit_bytes=8192 * MIB, import_s=0, extra=("--preload",)))
        await asyncio.sleep(SETTLE_S)
        assert stage.agent is not None
        before_ns, started = on_cpu_ns(stage.agent.pid), time.monotonic()
        await asyncio.sleep(seconds)
        passed_s, used_ns = time.monotonic() - started, on_cpu_ns(stage.agent.pid) - before_ns
        usage = ProcFs(Path("/proc")).usage(stage.agent.pid)
    assert usage is not None
    return {
        "workers": WORKERS,
        "seconds": round(passed_s, 1),
        "reflexd": {"cpu_percent": round(used_ns / passed_s / 1e7, 3), "rss_mb": round(usage.rss_bytes / MIB, 1)},
    }


def on_cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process, in ns, from the scheduler's own books."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)
