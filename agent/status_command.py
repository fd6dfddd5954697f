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
from agent.procfs import ProcFs
from agent.rollup import Rollup
from agent.settings import Settings
from agent.status import LastDeaths, Look, document
from agent.status_socket import NoAgentError, ask
from agent.watcher import Watcher

OK, WRONG, NO_AGENT = 0, 1, 3
LOOK_FOR_S = 1.0
EVERY_S = 0.05


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Exit codes: 0 nothing is wrong, 1 something is, 3 no agent answers."""

    def look() -> dict[str, Any]:
        status = _own_look(settings) if options.look else ask(settings.state_dir)
        return _only(status, options.service)

    try:
        if options.watch and not options.json:
            return _watch(look, options.watch)
        status = look()
    except (NoAgentError, OverridesError) as error:
        print(f"reflexd: {error}", file=sys.stderr)
        return NO_AGENT
    if options.json:
        sys.stdout.write(orjson.dumps(status, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        from agent.status_view import show

        show(status)
    return WRONG if status["troubles"] else OK


def _watch(look: Callable[[], dict[str, Any]], every_s: float) -> int:
    from agent.status_view import watch

    with contextlib.suppress(KeyboardInterrupt):
        watch(look, every_s)
    return OK


def _only(status: dict[str, Any], name: str | None) -> dict[str, Any]:
    if name is None:
        return status
    services = [service for service in status["services"] if name in service["name"]]
    deaths = [death for death in status["deaths"] if name in (death["service"] or "")]
    troubles = [trouble for trouble in status["troubles"] if name in trouble.partition(":")[0]]
    return {**status, "services": services, "deaths": deaths, "troubles": troubles}


def _own_look(settings: Settings) -> dict[str, Any]:
    """What a scan of /proc sees: services and workers, but neither their past nor their queues."""
    clock, rollup = Clock(), Rollup(new_event_id)
    overrides = load_overrides(settings.services_file)
    watcher = Watcher(ProcFs(settings.proc_root), rollup, clock, None, overrides=overrides)
    watcher.scan()
    until_s = time.monotonic() + LOOK_FOR_S
    while watcher.waits_since_us() is not None and time.monotonic() < until_s:
        time.sleep(EVERY_S)
        watcher.look_for_ready()
    services = [service for service in rollup.services.values() if service.stopped_event is None]
    now_s = clock.monotonic_ns() / 1e9
    look = Look(settings.host, __version__, clock.now_us(), now_s, services, {}, frozenset(), {}, (), (), {}, "look")
    return document(look, LastDeaths())
