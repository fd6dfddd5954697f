"""The library's host-memory-pressure: a real Gunicorn on a host whose memory is small enough to be filled by it.

The host itself is left its memory: the agent reads a meminfo that has the real workers' memory in it and a smaller total.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.procfs import ProcFs
from demo.repair import armed
from demo.stage import StageError
from tests.e2e.scene import Program, are_there, open_scene, visited
from tests.e2e.test_library import links

MIB = 1024 * 1024
TOTAL, OTHERS = 2048 * MIB, 1200 * MIB
"""What the small host has, and what others than the service hold of it."""

GROWN = 760 * MIB
PLAYBOOK = "host-memory-pressure"


class SmallHost:
    """Its meminfo: a file that is always of one size, and so always whole."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._procfs = ProcFs()
        self.holds([])

    @property
    def launcher(self) -> tuple[str, ...]:
        """A command that becomes the one that follows it, on the small host."""
        return ("unshare", "--mount", sys.executable, str(Path(__file__).with_name("small_host.py")), str(self._file))

    def holds(self, pids: list[int]) -> None:
        """These processes hold what they hold."""
        rss = sum(self._procfs.figures(pid).get("rss_bytes", 0) for pid in pids)
        lines = {"MemTotal": TOTAL, "MemAvailable": max(TOTAL - OTHERS - rss, 0)}
        text = "".join(f"{name}: {value // 1024:>16} kB\n" for name, value in lines.items())
        with self._file.open("r+" if self._file.exists() else "w") as opened:
            opened.write(text)

    @asynccontextmanager
    async def of(self, program: Program) -> AsyncIterator[None]:
        """As long as a program is looked at."""

        async def look() -> None:
            while True:
                self.holds(program.children())
                await asyncio.sleep(0.2)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the agent gets a mount namespace of its own")
@pytest.mark.skipif(not are_there(), reason="run ./reflex setup --dev")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare of util-linux is not installed")
async def test_the_largest_worker_is_replaced_and_the_host_has_memory_again(tmp_path: Path) -> None:
    host = SmallHost(tmp_path / "meminfo")
    try:
        async with open_scene(armed(PLAYBOOK), agent_launcher=host.launcher) as scene:
            shop = await scene.gunicorn("large", workers=2)
            async with host.of(shop):
                assert "200" in await visited(shop.port, f"keep/{GROWN}")
                fault = await scene.told(shop, "host.memory_pressure")
                end = await scene.end_of(shop, PLAYBOOK)
            await scene.shows(end, *links(PLAYBOOK, "host.memory_pressure", "snapshot.take", "process.signal"))
            assert fault["worker"]["pid"] not in shop.children()
            assert len(shop.children()) == 2
            assert end["attrs"]["ran_on"] == "host"
    except StageError as error:
        pytest.skip(str(error))
