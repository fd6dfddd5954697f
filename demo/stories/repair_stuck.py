"""Threads of a worker wait for ever for a neighbour; what they wait for is kept, and the worker is replaced."""

from __future__ import annotations

import asyncio

from demo.chain import Link, StoredEvent
from demo.repair import armed, repair_links
from demo.stage import ShopOptions, Stage

NAME = "repair-stuck"
TITLE = "a worker whose threads stand still is replaced, with its stacks kept"
AFTER_S, THREADS = 5, 3
OPTIONS = ShopOptions(workers=2, extra=("--threads", str(THREADS)), agent=("--stuck-after-s", str(AFTER_S)))
PLAYBOOKS = armed("gunicorn-stuck-worker")
WITHIN_S = 180.0

LINKS = (
    Link(
        "worker.threads_stuck",
        "worker.started",
        "which worker, since when, and the lines that its threads stand in",
        lambda event: "payment" in event["text"],
    ),
    *repair_links("gunicorn-stuck-worker", "worker.threads_stuck", "snapshot.take", "gunicorn.recycle_worker"),
)


async def play(stage: Stage) -> StoredEvent:
    """Somebody pays, and the payment provider never answers; the root is what Reflex says of the worker."""
    paying = asyncio.create_task(stage.visit("/payment", method="POST"))
    try:
        root: StoredEvent = await stage.until(
            lambda: _first(stage, "worker.threads_stuck"), "no stuck", within_s=WITHIN_S
        )
        await stage.until(lambda: _first(stage, "playbook.verified"), "the run does not end well", within_s=WITHIN_S)
    finally:
        paying.cancel()
        await asyncio.gather(paying, return_exceptions=True)
    return root


async def _first(stage: Stage, kind: str) -> StoredEvent | None:
    return next(iter(await stage.events(kind=kind, service=stage.service)), None)
