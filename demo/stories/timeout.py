"""A worker hangs in one request until its own master loses patience."""

from __future__ import annotations

import asyncio

from demo.chain import Link, StoredEvent, replacement_links
from demo.stage import SERVICE, ShopOptions, Stage

NAME = "timeout"
TITLE = "Gunicorn's master kills a worker that is stuck in a request"
OPTIONS = ShopOptions(timeout_s=3)

LINKS = (
    Link(
        "worker.stuck",
        None,
        "which worker stopped beating, for how long, against which timeout",
        lambda event: (
            event["service"].startswith(SERVICE)
            and event["attrs"]["timeout_s"] == OPTIONS.timeout_s
            and event["attrs"]["heartbeat_age_s"] >= OPTIONS.timeout_s
        ),
    ),
    Link(
        "worker.exited",
        "worker.stuck",
        "its certificate: the master did it, not the kernel, not a person",
        lambda event: event["attrs"]["death"] == "master_timeout" and event["attrs"]["sender_pid"] > 0,
    ),
    *replacement_links(),
)


async def play(stage: Stage) -> StoredEvent:
    """Asks for the payment that never answers; the root of the chain that follows."""
    before = {event["id"] for event in await stage.events(kind="worker.stuck")}
    request = asyncio.create_task(stage.visit("/payment", method="POST"))

    async def stuck() -> StoredEvent | None:
        found = await stage.events(kind="worker.stuck", service=stage.service)
        return next((event for event in found if event["id"] not in before), None)

    event: StoredEvent = await stage.until(stuck, "no stuck worker came onto the timeline")
    await request
    return event
