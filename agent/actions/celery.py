"""Actions upon Celery nodes: signals to the master, and Celery's own remote control. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.actions.action import Action, CannotAct, Context
from agent.actions.steps import AskNode, GiveBack, PutAside, SendSignal, Step, WaitCount, WaitGone
from agent.wire import ACTS

POOL_S = 30.0
"""How long a pool may take to start or end processes; one that runs a task ends when that is done."""


def _warm_shutdown(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    master = context.view.master
    return (SendSignal(master, "TERM", "warm shutdown"), WaitGone(master, params["drain_s"]))


def _grow(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    return (AskNode("pool_grow", {"n": params["by"]}), *_comes_to(context, params["by"]))


def _shrink(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    if 0 < len(context.view.workers) <= params["by"]:
        raise CannotAct(f"{context.view.name} has {len(context.view.workers)} processes, of which one must stay")
    return (AskNode("pool_shrink", {"n": params["by"]}), *_comes_to(context, -params["by"]))


def _comes_to(context: Context, by: int) -> tuple[Step, ...]:
    """The node says yes before it has done so; a pool without processes of its own cannot be counted."""
    workers = context.view.workers
    return (WaitCount(len(workers) + by, POOL_S),) if workers else ()


def _cancel(_context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    return (AskNode("cancel_consumer", {"queue": params["queue"]}),)


def _add(_context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    return (AskNode("add_consumer", {"queue": params["queue"]}),)


def _replace(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    return (*_cancel(context, params), *_add(context, params))


def _revoke(_context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    return (AskNode("revoke", {"task_id": params["task_id"], "terminate": params["terminate"]}),)


def _quarantine(_context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    return (PutAside(params["task"]),)


def _return_unacked(_context: Context, _params: Mapping[str, Any]) -> tuple[Step, ...]:
    return (GiveBack(),)


ACTIONS = (
    Action(ACTS["celery.warm_shutdown"], _warm_shutdown),
    Action(ACTS["celery.grow"], _grow),
    Action(ACTS["celery.shrink"], _shrink),
    Action(ACTS["celery.cancel_consumer"], _cancel),
    Action(ACTS["celery.add_consumer"], _add),
    Action(ACTS["celery.replace_consumer"], _replace),
    Action(ACTS["celery.revoke"], _revoke),
    Action(ACTS["celery.quarantine_task"], _quarantine),
    Action(ACTS["celery.return_unacked"], _return_unacked),
)
