"""After a reload the application waits for something while it is imported, and no timeout applies."""

from __future__ import annotations

import signal

from demo.chain import Link, StoredEvent
from demo.stage import SERVICE, ShopOptions, Stage, StageError

NAME = "boothang"
TITLE = "a worker hangs while it boots, which Gunicorn's own timeout never ends"
HANG_S = 5.0
OPTIONS = ShopOptions(workers=1, agent=("--boot-hang-s", str(HANG_S)))

LINKS = (
    Link(
        "worker.started",
        "service.signalled",
        "the worker was forked because of the reload",
        lambda event: event["service"].startswith(SERVICE),
    ),
    Link(
        "worker.boot_hung",
        "worker.started",
        "which worker, for how long, and the line that it waits in",
        lambda event: event["attrs"]["age_s"] >= HANG_S and "app.py" in event["text"],
    ),
)


async def play(stage: Stage) -> StoredEvent:
    """Takes the application's neighbour away and reloads; the signal that began it."""
    (stage.folder / "warehouse-is-down").touch()
    if stage.shop is None:
        raise StageError("there is no shop")
    stage.shop.send_signal(signal.SIGHUP)
    found: StoredEvent = await stage.until(lambda: _hung(stage), "no boot hang", within_s=60)
    started = await stage.get(f"/v1/events/{found['cause']}")
    reload: StoredEvent = await stage.get(f"/v1/events/{started['cause']}")
    return reload


async def _hung(stage: Stage) -> StoredEvent | None:
    return next(iter(await stage.events(kind="worker.boot_hung", service=stage.service)), None)
