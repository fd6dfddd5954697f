"""A node stops consuming its queue; it is told to begin anew, and the queue is worked off."""

from __future__ import annotations

from demo.chain import Link, StoredEvent
from demo.queue_of_jobs import NODE, Jobs, JobsOptions
from demo.repair import armed, repair_links
from demo.stories import silent

NAME = "repair-silent"
TITLE = "a Celery node that consumes its queue no more is told to begin anew"
OPTIONS = JobsOptions()
PLAYBOOKS = armed("celery-silent-consumer")

LINKS = (
    Link("celery.consumer_silent", None, "which node, which queue", lambda event: event["service"].startswith(NODE)),
    *repair_links("celery-silent-consumer", "celery.consumer_silent", "celery.replace_consumer"),
    Link(
        "celery.consumer_back",
        "celery.consumer_silent",
        "the node consumes again, as the broker sees it",
        lambda event: event["service"].startswith(NODE),
    ),
)


async def play(jobs: Jobs) -> StoredEvent:
    """Stops the consumer, as a command from elsewhere does; the root is what Reflex says of it."""
    root = await silent.play(jobs)
    await jobs.first("playbook.verified")
    return root
