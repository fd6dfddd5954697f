"""A task waits for a lock that nobody gives back."""

from __future__ import annotations

from demo.chain import Link, StoredEvent
from demo.queue_of_jobs import NODE, Jobs, JobsOptions

NAME = "stuck"
TITLE = "a Celery task waits for ever, and its process with it"
AFTER_S = 15
OPTIONS = JobsOptions(agent=("--celery-stuck-after-s", str(AFTER_S)))

LINKS = (
    Link(
        "celery.task_stuck",
        "worker.started",
        "which task, how old, without CPU, and the line that it waits in",
        lambda event: (
            event["service"].startswith(NODE)
            and "shop.sync_stock" in event["text"]
            and any("sync_stock (jobs/jobs.py" in evidence["fact"] for evidence in event["evidence"])
        ),
    ),
)


async def play(jobs: Jobs) -> StoredEvent:
    """Sends the task that never ends."""
    await jobs.send("shop.sync_stock")
    return await jobs.first("celery.task_stuck")
