"""A Celery node is killed, with tasks that it had fetched; its supervisor starts it again, and the tasks go back."""

from __future__ import annotations

import os
import signal

from demo.chain import Link, StoredEvent
from demo.queue_of_jobs import NODE, Jobs, JobsOptions
from demo.repair import armed, repair_links

NAME = "repair-celery-dead"
TITLE = "a Celery node that was killed is started again, and what it had fetched goes back into its queue"
OPTIONS = JobsOptions(supervised=True)
PLAYBOOKS = armed("celery-worker-dead")
LONG_S, TASKS = 300, 6

LINKS = (
    Link(
        "service.stopped",
        "service.signalled",
        "which node died, and who killed it",
        lambda event: event["service"].startswith(NODE) and event["attrs"]["death"].startswith("killed_by"),
    ),
    *repair_links("celery-worker-dead", "service.stopped", "celery.restart", "celery.return_unacked"),
)


async def play(jobs: Jobs) -> StoredEvent:
    """Lets the node fetch more than it can do at once, and kills it; the root is its end."""
    await jobs.send("shop.mail", TASKS, LONG_S)
    await jobs.until_busy(reserved=2)
    node = (await jobs.stage.events(kind="service.started", service=jobs.service))[0]
    os.kill(node["attrs"]["master_pid"], signal.SIGKILL)
    root = await jobs.first("service.stopped")
    await jobs.first("playbook.verified")
    return root
