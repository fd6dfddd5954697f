"""One pulse a second for all beats of the agent: waking once for all of them costs less than waking for each."""

from __future__ import annotations

import asyncio
import time

AFTER_THE_SECOND_NS = 50_000_000
"""The pulse is a little after the turn of the second of the boot clock, so that the second is over on all CPUs."""

SECOND_NS = 1_000_000_000


async def next_pulse(seconds: int = 1) -> None:
    """Sleeps until the pulse after that many turns of the second."""
    into_second_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) % SECOND_NS
    await asyncio.sleep((seconds * SECOND_NS + AFTER_THE_SECOND_NS - into_second_ns) / SECOND_NS)
