"""How a service comes to serve another release, and whether it does. Pure.

Gunicorn hands over to a second master (USR2): it loads everything anew, the old one serves until the new one is ready,
and no connection is lost. That ends the process which a unit or a supervisor started, so it is for services that nobody
manages, or that are kept (agent/release/keep.py), and that was not started as `python -m gunicorn`: the second master would
have Gunicorn's own folder before the standard library, and most applications fail to import `http`. A managed one reads its
release anew (HUP): no request fails, and all wait for as long as the import takes. uvicorn's HUP begins its workers in the
folder that it was started in, which is that of the old release: it hands over by a keeper that holds its socket, as uWSGI
can, too. What can do none of it is started again by its manager, if the app allows that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agent.actions.action import ServiceView
from agent.wire.app import Web

Way = Literal["handover", "reload", "restart"]
BY_KEEPER = ("uvicorn", "uwsgi")
"""Kinds whose server takes its socket as a descriptor."""

MOST_BRIDGE_CHARS = 60
_DROPPED = {
    "-B": 0,
    "--beat": 0,
    "-D": 0,
    "--detach": 0,
    "--pidfile": 1,
    "-f": 1,
    "--logfile": 1,
    "-n": 1,
    "--hostname": 1,
}
"""Options of a Celery node that a second node beside it must not have, and how many words each takes besides itself."""


class NoWay(ValueError):
    """The service cannot be made to serve another release as the app asks for; the text ends a sentence."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides it: who started the service, and whether the application is loaded before workers are forked.

    `holds_socket`: the keeper has opened the listening socket, and can start a second master beside the one that serves.
    `finishes`: a master that gets TERM lets its workers finish their requests. `is_inside`: it works in the app's folder.
    """

    is_kept: bool
    preloads: bool
    holds_socket: bool = False
    finishes: bool = True
    is_inside: bool = True


def way_of(web: Web, service: ServiceView, standing: Standing) -> Way:
    """The way, which is what the app names or the best that is safe; raises NoWay."""
    if web.strategy != "auto":
        _check(web, web.strategy, service, standing)
        return web.strategy
    if not standing.is_inside:
        _check(web, "restart", service, standing)
        return "restart"
    if service.kind == "gunicorn" and (service.manager is None or standing.is_kept) and not is_module(service.argv):
        return "handover"
    if service.kind in BY_KEEPER and standing.holds_socket and standing.finishes:
        return "handover"
    if (service.kind == "gunicorn" and not standing.preloads) or service.kind == "uwsgi":
        return "reload"
    _check(web, "restart", service, standing)
    return "restart"


def _check(web: Web, way: Way, service: ServiceView, standing: Standing) -> None:
    can_restart = web.restart_may_fail_requests and service.manager is not None
    if not standing.is_inside and not (way == "restart" and can_restart):
        raise NoWay(
            f"{service.name} works outside of the app's folder, so it would load what it has loaded before, or it is "
            "another app's; start it by the link current (docs/deploys.md)"
        )
    if way == "handover" and service.kind in BY_KEEPER and not standing.holds_socket:
        raise NoWay(
            f"{service.name} is {service.kind}, which hands over by a keeper that holds its socket; start it by "
            "reflex-keep --listen (docs/deploys.md)"
        )
    if way == "handover" and service.kind in BY_KEEPER and not standing.finishes:
        raise NoWay(
            f"{service.name} would cut its requests off when it gets TERM; it finishes them with "
            "hook-master-start = unix_signal:15 gracefully_kill_them_all"
        )
    if way == "handover" and service.kind not in ("gunicorn", *BY_KEEPER):
        raise NoWay(f"{service.name} is {service.kind}, which cannot hand over to a second master")
    if way == "handover" and service.kind == "gunicorn" and service.manager is not None and not standing.is_kept:
        raise NoWay(
            f"{service.manager.kind} would take the handover of {service.name} for its end; start it by the keeper "
            "(docs/deploys.md), or let the strategy be auto"
        )
    if way == "handover" and is_module(service.argv):
        raise NoWay(
            f"{service.name} was started as python -m gunicorn, of which a second master cannot import http; start it by "
            "the keeper, or as current/venv/bin/python current/venv/bin/gunicorn (docs/deploys.md)"
        )
    if way == "reload" and service.kind not in ("gunicorn", "uwsgi"):
        raise NoWay(f"{service.name} is {service.kind}, which cannot load another release by itself")
    if way == "reload" and service.kind == "gunicorn" and standing.preloads:
        raise NoWay(f"{service.name} preloads its application, so a reload would serve the old one")
    if way == "restart" and service.manager is None:
        raise NoWay(f"nobody is known who starts {service.name} again")
    if way == "restart" and not web.restart_may_fail_requests:
        raise NoWay(
            f"only a restart makes {service.name} serve another release, and requests fail while it starts; "
            "restart_may_fail_requests allows that, a keeper makes it needless for Gunicorn and uvicorn (docs/deploys.md)"
        )


def is_module(argv: Sequence[str]) -> bool:
    """Whether Gunicorn was started as a module, or handed over from one that was."""
    return tuple(argv[1:3]) == ("-m", "gunicorn") or any(word.endswith("/gunicorn/__main__.py") for word in argv[1:2])


def runs_release(folder: str, real_venv: str | None, release: str, release_venv: str | None) -> str:
    """Why a master does not run the release, as a sentence's end; empty if it does.

    `folder` is its working folder now, `real_venv` the virtual environment that its interpreter belongs to, links
    resolved, None where that is not known. `release_venv` is None for a release that others have made without one of its own.
    """
    if folder != release and not folder.startswith(f"{release}/"):
        return f"its working folder is {folder or 'unknown'} and not {release}: it was not started by the link current"
    if real_venv is not None and release_venv is not None and real_venv != release_venv:
        return (
            f"its packages are those of {real_venv} and not of {release_venv}: start it by current/venv/bin/python -m …"
        )
    return ""


def venv_of(argv: Sequence[str]) -> str | None:
    """The virtual environment that a command line names by its interpreter's full path, links not resolved."""
    program = argv[0] if argv else ""
    folder, _, name = program.rpartition("/")
    if not program.startswith("/") or not name.startswith("python") or not folder.endswith("/bin"):
        return None
    return folder.removesuffix("/bin")


def bridge_name(service: str, release: str = "") -> str:
    """What a node is called that a deploy begins for a service, before `@`; without a release the part that all have."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "-", service)[:MOST_BRIDGE_CHARS]
    return f"reflex-{plain}-{release.rpartition('-')[2]}"


def bridge_argv(argv: Sequence[str], name: str) -> tuple[str, ...]:
    """The command of a node that consumes beside the one of `argv`, under a name of its own; never a second beat."""
    kept: list[str] = []
    words = iter(argv)
    for word in words:
        option, sign, _ = word.partition("=")
        if option in _DROPPED:
            for _ in range(_DROPPED[option] if not sign else 0):
                next(words, None)
            continue
        kept.append(word)
    return (*kept, "-n", name)


def without_supervisor(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what tells whose program a process is."""
    return {name: value for name, value in environment.items() if not name.startswith("SUPERVISOR_")}
