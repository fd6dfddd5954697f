"""The kernel kills a process of the pool in the middle of a task, and the task is gone."""

from __future__ import annotations

from demo.chain import Link, StoredEvent, replacement_links
from demo.queue_of_jobs import NODE, Jobs, JobsOptions

NAME = "losttask"
TITLE = "the kernel kills a Celery process for its memory, and Reflex names the task that was lost"
OPTIONS = JobsOptions(limit_bytes=256 * 1024 * 1024)

LINKS = (
    Link(
        "worker.oom_killed",
        None,
        "the kernel's OOM killer did it",
        lambda event: event["service"].startswith(NODE) and event["attrs"]["limit_bytes"] == OPTIONS.limit_bytes,
    ),
    Link(
        "worker.exited",
        "worker.oom_killed",
        "its certificate",
        lambda event: event["attrs"]["death"] == "kernel_oom",
    ),
    Link(
        "celery.task_lost",
        "worker.exited",
        "the task that it was running, and that it will not come back",
        lambda event: "shop.export" in event["text"],
    ),
    *replacement_links(),
)


async def play(jobs: Jobs) -> StoredEvent:
    """Sends the export that reads everything into memory."""
    await jobs.send("shop.export")
    await jobs.first("celery.task_lost")
    return await jobs.first("worker.oom_killed")
