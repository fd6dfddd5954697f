"""`reflexd status`: asks the running agent, or looks by itself, and shows what it finds."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

import orjson

from agent import __version__
from agent.clock import Clock
from agent.ids import new_event_id
from agent.overrides import OverridesError, load_overrides
from agent.procfs import ProcFs, own_network
from agent.rollup import Rollup
from agent.settings import Settings
from agent.status import VERSION, Look, document
from agent.status_past import Past
from agent.status_socket import NoAgentError, ask
from agent.watcher import Watcher

OK, WRONG, NO_AGENT = 0, 1, 3
LOOK_FOR_S = 1.0
EVERY_S = 0.05
NO_LINK = {"url": None, "connected": None, "trouble": None, "spool_bytes": None}


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Exit codes: 0 nothing is wrong, 1 something is, 3 no agent answers."""

    def look() -> dict[str, Any]:
        return _only(_own_look(settings) if options.look else _asked(settings), options.service)

    try:
        if options.watch is not None:
            return _watch(look, options)
        status = look()
    except (NoAgentError, OverridesError) as error:
        print(f"reflexd: {error}", file=sys.stderr)
        return NO_AGENT
    except BrokenPipeError:
        return OK
    if options.json:
        sys.stdout.write(orjson.dumps(status, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        from agent.status_view import show

        show(status, whole=options.service is not None)
    return WRONG if status["troubles"] else OK


def _watch(look: Callable[[], dict[str, Any]], options: argparse.Namespace) -> int:
    from agent.status_watch import watch, watch_json

    with contextlib.suppress(KeyboardInterrupt):
        (watch_json if options.json else watch)(look, options.watch)
    return OK


def _asked(settings: Settings) -> dict[str, Any]:
    status = ask(settings.state_dir)
    if status.get("document") != VERSION:
        told = status.get("version", "of another version")
        raise NoAgentError(
            f"the running agent ({told}) and this command ({__version__}) do not fit; restart the agent: "
            "sudo systemctl restart reflexd"
        )
    return status


def _only(status: dict[str, Any], name: str | None) -> dict[str, Any]:
    """What is told of services whose name contains `name`. That there is none is a trouble."""
    if name is None:
        return status
    names = list(dict.fromkeys(service["name"] for service in status["services"]))
    only = {key: [one for one in status[key] if _is_of(one, name)] for key in ("troubles", "deaths", "events")}
    services = [service for service in status["services"] if name in service["name"]]
    if not services and not only["troubles"]:
        only["troubles"] = [{"service": name, "text": f"No service has {name!r} in its name now."}]
    return {**status, **only, "services": services, "only": name, "others": names}


def _is_of(one: dict[str, Any], name: str) -> bool:
    return name in (one["service"] or "")


def _own_look(settings: Settings) -> dict[str, Any]:
    """What a scan of /proc sees: services and workers, but neither their past nor their queues."""
    clock, rollup = Clock(), Rollup(new_event_id)
    overrides = load_overrides(settings.services_file)
    network = own_network() if settings.only_own_network else None
    procfs = ProcFs(settings.proc_root)
    watcher = Watcher(procfs, rollup, clock, None, overrides=overrides, network=network, believes_titles=True)
    watcher.scan()
    until_s = time.monotonic() + LOOK_FOR_S
    while watcher.waits_since_us() is not None and time.monotonic() < until_s:
        time.sleep(EVERY_S)
        watcher.look_for_ready()
    look = Look(
        host=settings.host,
        version=__version__,
        now_us=clock.now_us(),
        now_s=clock.monotonic_ns() / 1e9,
        boot_s=float(clock.boot_second()),
        services=[service for service in rollup.services.values() if service.stopped_event is None],
        queues={},
        saturated=frozenset(),
        memory={},
        read_s=None,
        celery=(),
        probes=(),
        link=NO_LINK,
        source="look",
    )
    return document(look, Past())
