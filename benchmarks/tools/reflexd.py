"""reflexd itself: the real agent, with its server on this host, whose cost is not counted."""

from __future__ import annotations

import compileall
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.cpu_group import CpuGroup
from benchmarks.crowd import Crowd
from benchmarks.switch import known_workers, until_known
from benchmarks.tools.tool import Watch
from demo.stage import HOST, ROOT, Stage


@asynccontextmanager
async def watching(crowd: Crowd, group: CpuGroup) -> AsyncIterator[Watch]:
    """The agent knows every worker before the context is entered. It is compiled before, as pip does it when it installs one:
    what compiling takes at the start would stay in the agent's memory."""
    for package in ("agent", "playbooks"):
        compileall.compile_dir(ROOT / package, quiet=2)
    async with Stage() as stage:
        assert stage.agent is not None
        group.procs.write_text(str(stage.agent.pid))
        await until_known(stage, crowd)

        async def watched() -> int:
            return await known_workers(stage, crowd)

        async def records() -> int:
            hosts = (await stage.get("/v1/hosts"))["hosts"]
            return sum(sum(host["status"]["records"].values()) for host in hosts if host["name"] == HOST)

        yield Watch(watched, records=records)
