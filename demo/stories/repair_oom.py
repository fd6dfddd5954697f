"""The kernel kills a worker for want of memory; its siblings, which have run as long, are replaced before they are next."""

from __future__ import annotations

from demo.chain import Link, StoredEvent
from demo.repair import armed, repair_links
from demo.stage import ShopOptions, Stage
from demo.stories import oom

NAME = "repair-oom"
TITLE = "after an OOM kill the siblings are replaced one by one, and no request fails"
OPTIONS = ShopOptions()
PLAYBOOKS = armed("gunicorn-worker-oom", within="10s")

LINKS = (
    Link("worker.oom_killed", None, "which worker the kernel killed", lambda event: event["worker"] is not None),
    *repair_links("gunicorn-worker-oom", "worker.oom_killed", "gunicorn.rotate"),
)


async def play(stage: Stage) -> StoredEvent:
    """One request eats all memory; the root is the kill, and the story ends when the run has."""
    root = await oom.play(stage)
    await stage.until(lambda: stage.events(kind="playbook.verified"), "the run does not end well", within_s=120)
    return root
