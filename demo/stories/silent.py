"""A node is alive, answers, and has stopped consuming its queue."""

from __future__ import annotations

from demo.chain import Link, StoredEvent
from demo.queue_of_jobs import NODE, Jobs, JobsOptions

NAME = "silent"
TITLE = "a Celery node is alive and answers, but consumes its queue no more"
WAITING = 30
OPTIONS = JobsOptions()

LINKS = (
    Link(
        "celery.consumer_silent",
        None,
        "which node, which queue, how many tasks wait, and why Reflex says so",
        lambda event: event["service"].startswith(NODE) and event["attrs"]["length"] >= WAITING,
    ),
)


async def play(jobs: Jobs) -> StoredEvent:
    """Stops the consumer, as a command from elsewhere does, and sends tasks that nobody takes."""
    await jobs.make_deaf()
    await jobs.send("shop.mail", WAITING)
    return await jobs.first("celery.consumer_silent")
