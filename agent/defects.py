"""Defects of the agent itself: each is logged and told, and ends no more than what met it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from agent.clock import Clock
from agent.reporter import Reporter

PAUSE_S = 1.0
TOLD_EVERY_US = 60_000_000

log = logging.getLogger(__name__)


class Defects:
    """All of this agent's."""

    def __init__(self, host: str, reporter: Reporter, clock: Clock) -> None:
        self._host = host
        self._reporter = reporter
        self._clock = clock
        self._told_us = 0

    async def outlive(self, beat: Callable[[], Awaitable[None]]) -> None:
        """Runs a beat for ever. A defect in one must neither silence it nor the others."""
        while True:
            try:
                await beat()
            except Exception as defect:  # noqa: BLE001 - told on the timeline; the agent must outlive its defects
                self.tell(getattr(beat, "__name__", "a beat").strip("_").replace("_", " "), defect)
                await asyncio.sleep(PAUSE_S)

    def tell(self, where: str, defect: Exception) -> None:
        """Logs every one; tells the timeline once in a while, so that a defect in a storm is no storm itself."""
        log.error("a defect in %s", where, exc_info=defect)
        now_us = self._clock.now_us()
        if now_us - self._told_us < TOLD_EVERY_US:
            return
        self._told_us = now_us
        self._reporter.about_agent(
            "agent.defect",
            f"The agent on {self._host} met a defect of its own in {where} and went on: {defect!r:.200}.",
            severity="warning",
            attrs={"where": where, "error": f"{defect!r:.1000}"},
        )
