"""A loop over psutil that reads the same workers once a second."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.cpu_group import CpuGroup
from benchmarks.crowd import Crowd
from benchmarks.tools.tool import MissingTool, Watch, running, until

READER = Path(__file__).with_name("psutil_reader.py")


@asynccontextmanager
async def watching(crowd: Crowd, group: CpuGroup) -> AsyncIterator[Watch]:
    """The loop is told the workers' pids, so that it need not look for them."""
    if importlib.util.find_spec("psutil") is None:
        raise MissingTool("psutil is not in this Python environment")
    with tempfile.TemporaryDirectory(prefix="reflex-bench-psutil-") as folder:
        log = Path(folder) / "log"
        argv = [sys.executable, "-I", str(READER), *map(str, crowd.workers())]
        async with running(argv, group, log):

            async def watched() -> int:
                return last_count(log.read_text())

            async def begun() -> bool:
                return await watched() > 0

            await until(begun, "the psutil loop does not begin", log)
            yield Watch(watched)


def last_count(output: str) -> int:
    """How many processes the loop read in its last second; 0 before its first."""
    lines = output.split()
    return int(lines[-1]) if lines and lines[-1].isdigit() else 0
