"""`reflexctl act ACTION`: asks a host for one act, waits for its outcome and prints that."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ctl.client import Client
from ctl.entry import mapping, read_entry
from ctl.errors import ActNotDone, Misused, NothingFound, ServerFailing
from ctl.screen import show, show_json

LOOK_S = 0.2
OUTCOMES = ("action.done", "action.failed", "action.refused", "action.planned")


async def act(client: Client, options: argparse.Namespace) -> None:
    """Prints the outcome; raises ActNotDone when it was refused or failed, and other CtlErrors."""
    host, target = place_of((await client.get("/v1/hosts")).get("hosts", []), options)
    body: dict[str, Any] = {"action": options.action, "params": read_params(options.param), "dry_run": options.dry_run}
    body |= {} if options.service is None else {"service": options.service}
    body |= {} if target is None else {"target": target}
    asked = await client.post(f"/v1/hosts/{host}/act", body)
    event = await _outcome(client, host, str(asked.get("command")), options.wait)
    if options.json:
        show_json(event)
    else:
        show(read_entry(event).text)
    if event["kind"] not in ("action.done", "action.planned"):
        raise ActNotDone(f"{options.action} was not done ({event['kind'].partition('.')[2]})")


def read_params(given: Sequence[str]) -> dict[str, Any]:
    """`name=value` as parameters: whole numbers, numbers, true and false as such, all else as text. Raises Misused."""
    params: dict[str, Any] = {}
    for pair in given:
        name, found, value = pair.partition("=")
        if not found or not name:
            raise Misused(f"{pair!r:.60} must look like name=value")
        params[name] = _value(value)
    return params


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def place_of(hosts: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> tuple[str, dict[str, int] | None]:
    """The host that has the service, and the worker that is meant; raises NothingFound and Misused."""
    fitting = [host for host in hosts if options.host in (None, host["name"])]
    if options.service is None:
        if len(fitting) != 1:
            raise Misused("say which host is meant by --host, or which service by --service")
        return str(fitting[0]["name"]), None
    found = [
        (str(host["name"]), service)
        for host in fitting
        for service in host["status"].get("services", [])
        if service["name"] == options.service
    ]
    if not found:
        raise NothingFound(f"no host that is known runs a service {options.service}")
    if len({name for name, _ in found}) > 1:
        raise Misused(f"{options.service} runs on {', '.join(sorted(name for name, _ in found))}; say --host")
    if options.worker is None:
        return found[0][0], None
    for name, service in found:
        for worker in service["workers"]:
            if worker["slot"] == options.worker:
                return name, {"pid": worker["pid"], "start_ticks": worker["start_ticks"]}
    raise NothingFound(f"{options.service} has no worker in slot {options.worker} now")


async def _outcome(client: Client, host: str, command: str, within_s: float) -> Mapping[str, Any]:
    ends_s = time.monotonic() + within_s
    params = [("host", host), ("limit", "200"), *(("kind", kind) for kind in OUTCOMES)]
    while time.monotonic() < ends_s:
        for event in (await client.get("/v1/timeline", params)).get("events", []):
            if mapping(event, "event").get("attrs", {}).get("command") == command:
                return dict(event)
        await asyncio.sleep(LOOK_S)
    raise ServerFailing(f"no outcome within {within_s:g} s; it may still come: reflexctl timeline --kind 'action.*'")
