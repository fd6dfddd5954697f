"""A person at a terminal types `kill -9` with a worker's pid."""

from __future__ import annotations

import asyncio
import os
import pty

from demo.chain import Link, StoredEvent, replacement_links
from demo.stage import SERVICE, ShopOptions, Stage

NAME = "kill9"
TITLE = "a person at a terminal kills a worker with kill -9"
OPTIONS = ShopOptions()

LINKS = (
    Link(
        "worker.exited",
        None,
        "its certificate: a person did it, from which terminal, not the kernel, not the master",
        lambda event: (
            event["service"].startswith(SERVICE)
            and event["attrs"]["death"] == "killed_by_person"
            and event["attrs"]["sender"] == "bash"
            and event["attrs"]["sender_uid"] == os.getuid()
            and "terminal pts" in event["text"]
        ),
    ),
    *replacement_links(),
)


async def play(stage: Stage) -> StoredEvent:
    """Kills the newest worker from a shell on a terminal of its own; the root of the chain that follows."""
    before = {event["id"] for event in await stage.events(kind="worker.exited")}
    newest = (await stage.events(kind="worker.ready", service=stage.service))[0]
    await asyncio.to_thread(_type_at_a_terminal, f"kill -9 {newest['worker']['pid']}")

    async def killed() -> StoredEvent | None:
        found = await stage.events(kind="worker.exited", service=stage.service)
        return next((event for event in found if event["id"] not in before), None)

    event: StoredEvent = await stage.until(killed, "no death came onto the timeline")
    return event


def _type_at_a_terminal(line: str) -> None:
    """Runs one line in a shell whose controlling terminal is a new pseudo terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-c", line])
    try:
        while os.read(terminal, 1024):
            pass
    except OSError:
        pass  # a pseudo terminal whose other side has closed reads as EIO
    os.close(terminal)
    os.waitpid(pid, 0)
