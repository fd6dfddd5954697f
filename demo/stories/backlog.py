"""More work comes in than the node gets done."""

from __future__ import annotations

import asyncio

from demo.chain import Link, StoredEvent
from demo.queue_of_jobs import NODE, Jobs, JobsOptions

NAME = "backlog"
TITLE = "a Celery queue grows faster than it is consumed"
WINDOW_S = 45
OPTIONS = JobsOptions(agent=("--celery-backlog-window-s", str(WINDOW_S)))

LINKS = (
    Link(
        "celery.backlog",
        None,
        "which queue, how long, how fast it grows",
        lambda event: event["service"].startswith(NODE) and event["attrs"]["length"] > 0,
    ),
)


async def play(jobs: Jobs) -> StoredEvent:
    """Sends pictures to resize, ever more than two processes can."""
    sending = asyncio.create_task(_send(jobs))
    try:
        return await jobs.first("celery.backlog")
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _send(jobs: Jobs) -> None:
    while True:
        await jobs.send("shop.resize", 20)
        await asyncio.sleep(1)
