"""Every export eats all memory and dies. What of them has not begun is put aside, and mail goes on being sent."""

from __future__ import annotations

from demo.chain import Link, StoredEvent
from demo.queue_of_jobs import NODE, Jobs, JobsOptions
from demo.repair import armed, repair_links

NAME = "repair-poison"
TITLE = "tasks that kill their processes again and again are put aside, and the others go on"
EXPORTS = 10
OPTIONS = JobsOptions(limit_bytes=256 * 1024 * 1024)
PLAYBOOKS = armed("celery-poison-task", within="30s")

LINKS = (
    Link(
        "celery.task_poisonous",
        "celery.task_lost",
        "under which tasks processes die again and again",
        lambda event: event["service"].startswith(NODE) and event["attrs"]["task"] == "shop.export",
    ),
    *repair_links("celery-poison-task", "celery.task_poisonous", "celery.quarantine_task", "notify"),
)


async def play(jobs: Jobs) -> StoredEvent:
    """Sends exports that cannot end well; the root is the first death, and the story ends when the run has."""
    await jobs.send("shop.export", EXPORTS)
    root = await jobs.first("celery.task_poisonous")
    await jobs.first("playbook.verified")
    return root
