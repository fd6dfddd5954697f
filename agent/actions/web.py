"""Actions upon web servers that fork workers: Gunicorn, and uvicorn and uWSGI as far as their masters take signals. Pure.

A worker that has just died and is not replaced yet counts as one that is there: its successor comes meanwhile.

Gunicorn's TTOU retires the oldest worker. So the oldest is replaced by TTIN, wait, TTOU; any other by TTIN, wait, TERM to
it, wait for its replacement, TTOU, which retires the oldest as well: the count stays right and capacity never falls below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agent.actions.action import Action, CannotAct, Context, ServiceView
from agent.actions.steps import RunCommand, SendSignal, Step, TellMaster, WaitCount, WaitGone, WaitNewReady
from agent.wire import ACTS, MOST_WORKERS


def _recycle(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    service, target = context.view, context.process
    ready_s, gone_s, force = params["ready_s"], params["gone_s"], params["force"]
    before = frozenset(worker.target for worker in service.workers)
    count, owed = service.size, service.owed
    surge = (SendSignal(service.master, "TTIN", "one worker more"), WaitNewReady(before, owed + 1, ready_s))
    if service.workers[0].target == target:
        retire = SendSignal(service.master, "TTOU", "retires the oldest worker, which is the target")
        return (*surge, retire, WaitGone(target, gone_s, force), WaitCount(count, ready_s))
    return (
        *surge,
        SendSignal(target, "TERM", "finish its requests and end"),
        WaitGone(target, gone_s, force),
        WaitNewReady(before, owed + 2, ready_s),
        SendSignal(service.master, "TTOU", "back to the count before; retires the oldest worker"),
        WaitGone(service.workers[0].target, gone_s),
        WaitCount(count, ready_s),
    )


def _rotate(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    service = context.view
    old = [worker.target for worker in service.workers]
    steps: list[Step] = []
    for done, worker in enumerate(old, 1):
        steps += (
            SendSignal(service.master, "TTIN", "one worker more"),
            WaitNewReady(frozenset(old), service.owed + done, params["ready_s"]),
            SendSignal(service.master, "TTOU", f"retires the oldest worker, pid {worker.pid}"),
            WaitGone(worker, params["gone_s"]),
            WaitCount(service.size, params["ready_s"]),
        )
    return tuple(steps)


def _scale(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    service = context.view
    steps: list[Step] = []
    for count, is_more in _counts(service.size, params, MOST_WORKERS):
        sent = ("TTIN", "one worker more") if is_more else ("TTOU", "one worker less; retires the oldest")
        steps += (SendSignal(service.master, *sent), WaitCount(count, params["ready_s"]))
    return tuple(steps)


def _counts(now: int, params: Mapping[str, Any], most: int) -> Iterator[tuple[int, bool]]:
    """How many workers there are to be after each step, and whether that is one more."""
    if ("by" in params) == ("to" in params):
        raise CannotAct("scale needs either by or to")
    wanted = params["to"] if "to" in params else now + params["by"]
    if not 1 <= wanted <= most:
        raise CannotAct(f"scale must end with 1 to {most} workers, not {wanted}")
    step = 1 if wanted > now else -1
    yield from ((count, step > 0) for count in range(now + step, wanted + step, step) if wanted != now)


def _scale_uwsgi(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    """By orders into the master's pipe, which have an effect only where `cheaper` lets the number of workers change.

    Only workers that are there count: one that such an order has ended is not owed, and the last one must not go.
    """
    service, said = context.view, context.view.settings
    if said.fifo is None or said.workers is None:
        text = f"{service.name} has no master-fifo, by which alone uWSGI changes the number of its workers"
        raise CannotAct(text)
    if said.cheaper is None:
        text = f"{service.name} runs without cheaper, so it always has all its workers: set cheaper, and cheaper-algo = manual"
        raise CannotAct(text)
    if said.cheaper != "manual":
        text = f"uWSGI itself decides how many workers {service.name} has (cheaper-algo {said.cheaper:.40}) and would undo it"
        raise CannotAct(f"{text}; cheaper-algo = manual leaves it to others")
    steps: list[Step] = []
    for count, is_more in _counts(len(service.workers), params, said.workers):
        order = ("+", "one worker more", 0) if is_more else ("-", "one worker less", 2)
        steps += (TellMaster(service.master, said.fifo, *order), WaitCount(count, params["ready_s"]))
    return tuple(steps)


def _reload(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    service = context.view
    if not service.argv:
        raise CannotAct(
            f"the command line of {service.name} is hidden by setproctitle, so its configuration cannot be checked first"
        )
    if service.uid < 0:
        raise CannotAct(f"it is not known whose {service.name} is, so as whom its configuration could be checked first")
    old = frozenset(worker.target for worker in service.workers)
    check = RunCommand(
        (*service.argv, "--check-config"),
        params["ready_s"],
        "the release must load before the master is asked to take it",
        service.folder,
        service.uid,
        service.environment,
    )
    return (check, *_hup(service, old, params))


def _plain_reload(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    service = context.view
    return _hup(service, frozenset(worker.target for worker in service.workers), params)


def _hup(service: ServiceView, old: frozenset[Any], params: Mapping[str, Any]) -> tuple[Step, ...]:
    return (
        SendSignal(service.master, "HUP", "load configuration and release again"),
        WaitNewReady(old, max(service.size, 1), params["ready_s"]),
        *(WaitGone(worker.target, params["gone_s"]) for worker in service.workers),
    )


def _recycle_uwsgi(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    before = frozenset(worker.target for worker in context.view.workers)
    return (
        SendSignal(context.process, "HUP", "finish its request and end; the master forks another"),
        WaitGone(context.process, params["gone_s"], params["force"]),
        WaitNewReady(before, context.view.owed + 1, params["ready_s"]),
    )


def _rotate_uwsgi(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    old = [worker.target for worker in context.view.workers]
    steps: list[Step] = []
    for done, worker in enumerate(old, 1):
        steps += (
            SendSignal(worker, "HUP", "finish its request and end; the master forks another"),
            WaitGone(worker, params["gone_s"]),
            WaitNewReady(frozenset(old), context.view.owed + done, params["ready_s"]),
        )
    return tuple(steps)


ACTIONS = (
    *(
        action
        for kind in ("gunicorn", "uvicorn")
        for action in (
            Action(ACTS[f"{kind}.recycle_worker"], _recycle),
            Action(ACTS[f"{kind}.rotate"], _rotate),
            Action(ACTS[f"{kind}.scale"], _scale),
        )
    ),
    Action(ACTS["gunicorn.reload"], _reload),
    Action(ACTS["uvicorn.reload"], _plain_reload),
    Action(ACTS["uwsgi.recycle_worker"], _recycle_uwsgi),
    Action(ACTS["uwsgi.rotate"], _rotate_uwsgi),
    Action(ACTS["uwsgi.scale"], _scale_uwsgi),
    Action(ACTS["uwsgi.reload"], _plain_reload),
)
