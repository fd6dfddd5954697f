"""Actions upon single processes, cgroups, units and by commands that the host's policy names. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agent.actions.action import Action, CannotAct, Context, ServiceView
from agent.actions.steps import (
    AskCircus,
    AskSupervisor,
    LimitMemory,
    Renice,
    RunCommand,
    SendSignal,
    Step,
    TakeSnapshot,
    WaitGone,
    WaitNewMaster,
)
from agent.managers import CIRCUS_ENDPOINT, Manager
from agent.wire import ACTS

ORPHAN_S = 30.0


def _signal(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    return (SendSignal(context.process, params["signal"], "asked for"),)


def _renice(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    return (Renice(context.process, params["nice"]),)


def _set_limit(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    if context.view.cgroup in ("", "/"):
        raise CannotAct(f"{context.view.name} has no cgroup of its own")
    return (LimitMemory(context.view.cgroup, params["memory_bytes"]),)


def _snapshot(context: Context, _params: Mapping[str, Any]) -> tuple[Step, ...]:
    return (TakeSnapshot(context.process),)


def _restart(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    """Whoever started the service starts it again, also where it is dead now."""
    manager, within_s = context.view.manager, params["within_s"]
    if manager is None:
        text = (
            f"no systemd unit, no supervisor and no circus is known that starts {context.view.name}; "
            "name a command in the policy"
        )
        raise CannotAct(text)
    if manager.kind == "systemd":
        run: Step = RunCommand(("systemctl", "restart", manager.name), within_s, "restart by systemd")
    elif manager.kind == "supervisor":
        run = AskSupervisor(manager.socket, manager.name, within_s)
    else:
        run = _ask_circus(context.view, manager, within_s)
    return (*_end_orphans(context), run, *_then_new_master(context, params))


def _ask_circus(service: ServiceView, manager: Manager, within_s: float) -> AskCircus:
    if not manager.name:
        raise CannotAct(f"circus has not told which of its watchers starts {service.name}")
    return AskCircus(manager.socket, manager.name, within_s, manager.child if service.is_alive else 0)


def _end_orphans(context: Context) -> Iterator[Step]:
    """Workers that have outlived their master hold its sockets, so that a new one could not listen."""
    if context.view.is_alive:
        return
    for worker in context.view.workers:
        yield SendSignal(worker.target, "TERM", "its master is dead, and it holds the socket")
    for worker in context.view.workers:
        yield WaitGone(worker.target, ORPHAN_S)


def _restart_unit(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    manager = None if context.service is None else context.service.manager
    unit = params.get("unit") or (manager.name if manager is not None and manager.kind == "systemd" else "")
    if not unit:
        raise CannotAct("no unit is named, and none is known of the service")
    run = RunCommand(("systemctl", "restart", unit), params["within_s"], "restart by systemd")
    return (run, *_then_new_master(context, params))


def _restart_program(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    run = RunCommand(("supervisorctl", "restart", params["program"]), params["within_s"], "restart by supervisor")
    return (run, *_then_new_master(context, params))


def _restart_watcher(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    manager = None if context.service is None else context.service.manager
    known = manager.socket if manager is not None and manager.kind == "circus" else ""
    endpoint = params.get("endpoint") or known or CIRCUS_ENDPOINT
    run = AskCircus(endpoint, params["watcher"], params["within_s"], with_all=True)
    return (run, *_then_new_master(context, params))


def _then_new_master(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    if context.service is None:
        return ()
    return (WaitNewMaster(context.service.name, context.service.master, params["within_s"]),)


def _run(context: Context, params: Mapping[str, Any]) -> tuple[Step, ...]:
    command = (context.commands or {}).get(params["name"])
    if command is None:
        raise CannotAct(f"the policy of this host names no command {params['name']}", "policy")
    return (RunCommand(command.argv, command.within_s, f"{params['name']} of the policy", uid=command.uid),)


ACTIONS = (
    Action(ACTS["process.signal"], _signal),
    Action(ACTS["process.renice"], _renice),
    Action(ACTS["snapshot.take"], _snapshot),
    Action(ACTS["cgroup.set_limit"], _set_limit),
    Action(ACTS["unit.restart"], _restart_unit),
    Action(ACTS["supervisor.restart"], _restart_program),
    Action(ACTS["circus.restart"], _restart_watcher),
    Action(ACTS["command.run"], _run),
    *(Action(ACTS[f"{kind}.restart"], _restart) for kind in ("gunicorn", "uwsgi", "uvicorn", "celery")),
)
