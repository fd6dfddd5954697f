"""What the footprint asks of each tool: to start within a cgroup, to watch the crowd, and to say whether it does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cpu_group import CpuGroup
from demo.stage import ROOT, StageError, end


class MissingTool(Exception):
    """A tool is not installed; the text says what is missing."""


async def _nothing() -> None:
    """For tools that read by themselves."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A tool at work. `look` is called once a second; `watched` tells how many of the crowd it has readings of.

    `records` counts what woke the tool up beside its own clock since it started, for tools that know.
    """

    watched: Callable[[], Awaitable[int]]
    look: Callable[[], Awaitable[None]] = _nothing
    records: Callable[[], Awaitable[int]] | None = None


@asynccontextmanager
async def running(
    argv: Sequence[str], group: CpuGroup, log: Path, *, environment: dict[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The program in the group, with its default priority; it is asked to end with the context."""
    launcher = [sys.executable, str(ROOT / "demo" / "cgroup.py"), str(group.procs), *argv]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *launcher, stdout=output, stderr=output, env=environment, cwd=ROOT, start_new_session=True
        )
    try:
        yield process
    finally:
        await end(process)


async def until(ready: Callable[[], Awaitable[bool]], problem: str, log: Path, *, within_s: float = 30.0) -> None:
    """Waits for the answer True; raises StageError with the end of the tool's log."""
    try:
        async with asyncio.timeout(within_s):
            while not await ready():
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise StageError(f"{problem} within {within_s:g} s; the end of its log:\n{_end_of(log)}") from None


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-1500:]
