"""One request makes a worker's memory grow until the kernel's OOM killer takes it."""

from __future__ import annotations

from demo.chain import Link, StoredEvent, replacement_links
from demo.stage import SERVICE, ShopOptions, Stage

NAME = "oom"
TITLE = "the kernel kills a worker that grew beyond its memory cgroup's limit"
OPTIONS = ShopOptions()

LINKS = (
    Link(
        "worker.oom_killed",
        None,
        "which worker the kernel killed, by whose allocation, with how much memory, against which limit, how old",
        lambda event: (
            event["service"].startswith(SERVICE)
            and event["worker"] is not None
            and event["attrs"]["limit_bytes"] == OPTIONS.limit_bytes
            and event["attrs"]["anon_bytes"] > OPTIONS.limit_bytes // 4
            and {"file_bytes", "shmem_bytes", "allocator_pid", "age_s"} <= event["attrs"].keys()
        ),
    ),
    Link(
        "worker.exited",
        "worker.oom_killed",
        "its certificate: the kernel did it, not the master, not a person",
        lambda event: event["attrs"]["death"] == "kernel_oom" and event["attrs"]["signal"] == 9,
    ),
    *replacement_links(),
)


async def play(stage: Stage) -> StoredEvent:
    """Asks for the report that eats all memory; the root of the chain that follows."""
    before = {event["id"] for event in await stage.events(kind="worker.oom_killed")}
    await stage.visit("/report", method="POST")

    async def killed() -> StoredEvent | None:
        found = await stage.events(kind="worker.oom_killed", service=stage.service)
        return next((event for event in found if event["id"] not in before), None)

    event: StoredEvent = await stage.until(killed, "no OOM kill came onto the timeline")
    return event
