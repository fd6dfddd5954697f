"""Starts a service of an app that does not run on this host, by who the app's file names for it. The policy has allowed that."""

from __future__ import annotations

import time

from agent.acting import ActFailed, Performer
from agent.actions.action import CannotAct, ServiceView
from agent.actions.steps import AskSupervisor, RunCommand, Step, WaitNewReady
from agent.release.failure import ReleaseFailed
from agent.wire import Target
from agent.wire.app import Start
from agent.workers.settings import ServiceSettings

AGAIN_S = 3.0
"""After so long a manager is asked again: of a program that has just ended it may say that it runs, and not start it."""


def start_step(start: Start, supervisor: str, within_s: float) -> Step:
    """What starts it and leaves it alone if it runs; `supervisor` is the socket that supervisor listens on."""
    if start.unit:
        return RunCommand(("systemctl", "start", start.unit), within_s, "start by systemd")
    return AskSupervisor(supervisor, start.supervisor, within_s, only_start=True)


def workers_to_wait_for(kind: str, settings: ServiceSettings) -> int:
    """How many workers have to be ready; none where the master does the work itself."""
    forks = {
        "uvicorn": (settings.workers or 1) > 1,
        "celery": settings.role != "beat" and settings.worker_class in (None, "prefork", "processes"),
    }
    return max(settings.workers or 1, 1) if forks.get(kind, True) else 0


async def started(
    performer: Performer, start: Step, service: str, *, besides: Target | None, within_s: float
) -> ServiceView:
    """The service under a master that is not `besides`, once its manager has been asked to start it. Raises ActFailed."""
    ends_s = time.monotonic() + within_s
    while (left_s := ends_s - time.monotonic()) > 0:
        await performer.perform((start,), None)
        await performer.until(lambda: performer.successor(service, besides) is not None, min(AGAIN_S, left_s))
        if (view := performer.successor(service, besides)) is not None:
            return view
    raise ActFailed(f"no new master of {service} was seen within {within_s:g} s")


async def start_absent(
    performer: Performer, service: str, start: Start | None, *, supervisor: str, within_s: float
) -> ServiceView:
    """The service, started and ready; without `start` it is only waited for. Raises ReleaseFailed."""
    name = "it" if start is None else start.name
    try:
        if start is None:
            view = performer.view(service, None)
        else:
            step = start_step(start, supervisor, within_s)
            view = await started(performer, step, service, besides=None, within_s=within_s)
        if view is None:
            raise ActFailed("it ended right after its start")
        if count := workers_to_wait_for(view.kind, performer.settings(view)):
            await performer.perform((WaitNewReady(frozenset(), count, within_s),), view)
        return view
    except (ActFailed, CannotAct) as error:
        why = f"{service} did not come up when {name} was started: {error}"
        raise ReleaseFailed(
            "start", f"{why} (its own log says more; reflexctl hosts shows under which names services run)"
        ) from None
