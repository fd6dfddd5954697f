"""The kernel's counts of OOM kills: the only source where its records cannot be had, else the check on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from agent.clock import Clock
from agent.kernel.kernel import Kernel
from agent.oom_check import OomCheck
from agent.oom_counting import OomCounting
from agent.oom_counts import CountReader
from agent.procfs import ProcFs
from agent.reporter import Reporter
from agent.rollup import Rollup
from agent.wire import Event


class OomBeat(Protocol):
    """What the daemon does with either."""

    def notice(self, events: list[Event]) -> list[Event]:
        """What is about to be told; what is to be told instead."""

    async def oom_beat(self) -> None:
        """Looks at the counts for ever."""

    def finish(self) -> None:
        """The last look."""


class _NoOomBeat:
    """For a host where OOM kills are neither heard nor counted, or are not wanted."""

    def notice(self, events: list[Event]) -> list[Event]:
        return events

    async def oom_beat(self) -> None:
        await asyncio.Event().wait()

    def finish(self) -> None:
        pass


def oom_beat(kernel: Kernel, procfs: ProcFs, rollup: Rollup, reporter: Reporter, clock: Clock, host: str) -> OomBeat:
    """The beat for the means by which `kernel` hears of OOM kills."""
    reader = CountReader(procfs, lambda: tuple(rollup.services.values()), clock.now_us)
    tell: Callable[[list[Event]], None] = reporter.events
    match kernel.probe("oom").means:
        case "off":
            return _NoOomBeat()
        case "counters":
            return OomCounting(reader, tell, host)
        case _:
            return OomCheck(reader, tell, host, lambda: kernel.counts()["oom"].sent)
