"""`reflexctl hosts`: every host with its agent, its probes and its services."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from ctl.client import Client
from ctl.entry import mapping
from ctl.errors import NothingFound, ServerFailing
from ctl.safe import clean, pad, wrap
from ctl.screen import Screen, show, show_json
from ctl.spell import UNKNOWN, age, number, size

INDENT = "  "
_PROBE_SEVERITY: Mapping[str, str] = {"attached": "info", "degraded": "warning"}
_NARROWEST_TEXT = 30


async def print_hosts(client: Client, screen: Screen, *, as_json: bool) -> None:
    """Prints all hosts; raises CtlError."""
    answer = await client.get("/v1/hosts")
    hosts = answer.get("hosts")
    if not isinstance(hosts, list):
        raise ServerFailing(f"{client.url}/v1/hosts did not answer with a list of hosts; is it reflex-server?")
    if as_json:
        show_json(answer)
    else:
        show(
            *(
                line
                for host in hosts
                for line in draw_host(mapping(host, "host"), screen, now_us=time.time_ns() // 1000)
            )
        )
    if not hosts:
        raise NothingFound("no host has been heard of yet; on the server: reflex-server host-key add NAME")


def draw_host(host: Mapping[str, Any], screen: Screen, *, now_us: int) -> Iterator[str]:
    """The lines of one host; what its agent has not told is called unknown."""
    live = host.get("state") == "live"
    heard = age(_whole(host, "last_seen_us"), now_us=now_us)
    state = f"live, heard {heard} ago" if live else screen.paint(f"silent, last heard {heard} ago", "critical")
    yield f"{screen.shape('info' if live else 'critical')} {screen.paint(_text(host, 'name'), 'bold')}  {state}"
    status = host.get("status")
    if not isinstance(status, dict) or not status:
        yield f"{INDENT}the agent has told nothing about itself yet"
        return
    yield from (INDENT + line for line in _about_the_agent(status, live=live, now_us=now_us))
    yield from (INDENT + line for line in _probes(status, screen))
    yield from (INDENT + line for line in _services(status, screen, now_us=now_us))


def _about_the_agent(status: Mapping[str, Any], *, live: bool, now_us: int) -> Iterator[str]:
    up = age(_whole(status, "started_us") or None, now_us=now_us)
    since = f"started {up} ago" if up != UNKNOWN else "start unknown"
    yield f"agent {_text(status, 'version')} on Linux {_text(status, 'kernel')}, {since}{'' if live else '; as last told:'}"
    cpu, rss, spool = (_number(status, key) for key in ("cpu_percent", "rss_bytes", "spool_bytes"))
    yield f"CPU {number(cpu, '%')}, RSS {size(rss)}, spool {size(spool)}, {_losses(status)}"


def _losses(status: Mapping[str, Any]) -> str:
    """Lost kernel records by kind; without any count, unknown and not none."""
    lost, records = _counts(status, "lost"), _counts(status, "records")
    if lost is None:
        return f"lost records {UNKNOWN}"
    read = "" if records is None else f" of {sum(records.values()) + sum(lost.values())}"
    by_kind = ", ".join(f"{count} {clean(kind)}" for kind, count in lost.items() if count)
    return f"lost records {sum(lost.values())}{read}" + (f" ({by_kind})" if by_kind else "")


def _probes(status: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    probes = _list(status, "probes")
    if not probes:
        yield f"probes: {UNKNOWN if probes is None else 'none; the agent hears nothing of the kernel'}"
        return
    yield "probes"
    widths = [max(len(_text(probe, key)) for probe in probes) for key in ("signal", "state", "rung")]
    for probe in probes:
        signal, state, rung = (
            pad(_text(probe, key), w) for key, w in zip(("signal", "state", "rung"), widths, strict=True)
        )
        shape = screen.shape(_PROBE_SEVERITY.get(state.strip(), "critical"))
        yield f"{INDENT}{shape} {signal}  {state}  {rung}".rstrip()
        if reason := _text(probe, "reason", ""):
            yield from (INDENT * 3 + screen.paint(line, "dim") for line in _wrapped(reason, screen, 8))


def _services(status: Mapping[str, Any], screen: Screen, *, now_us: int) -> Iterator[str]:
    services = _list(status, "services")
    if not services:
        yield f"services: {UNKNOWN if services is None else 'none found'}"
        return
    yield "services"
    for service in services:
        listeners = [clean(str(one)) for one in service.get("listeners") or []]
        where = f", {', '.join(listeners)}" if listeners else ""
        yield f"{INDENT}{screen.paint(_text(service, 'name'), 'bold')}  {_text(service, 'kind')}, master {_text(service, 'master_pid')}{where}"
        workers = _list(service, "workers")
        if not workers:
            yield f"{INDENT * 2}workers: {UNKNOWN if workers is None else 'none'}"
        for worker in workers or []:
            yield INDENT * 2 + _worker(worker, screen, now_us=now_us)


def _worker(worker: Mapping[str, Any], screen: Screen, *, now_us: int) -> str:
    state = _text(worker, "state")
    shape = screen.shape("info" if state == "ready" else "warning")
    since_us = _whole(worker, "since_us")
    since = f" for {age(since_us, now_us=now_us)}" if since_us else ""
    slot, generation, pid = (_text(worker, key) for key in ("slot", "generation", "pid"))
    return f"{shape} slot {slot:>3}  generation {generation:>3}  pid {pid:>7}  {state}{since}"


def _wrapped(text: str, screen: Screen, indent: int) -> list[str]:
    return [text] if screen.width is None else wrap(text, max(_NARROWEST_TEXT, screen.width - indent))


def _text(value: Mapping[str, Any], key: str, missing: str = UNKNOWN) -> str:
    found = value.get(key)
    return missing if found is None or isinstance(found, dict | list) else clean(str(found))


def _number(value: Mapping[str, Any], key: str) -> float | None:
    found = value.get(key)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def _whole(value: Mapping[str, Any], key: str) -> int | None:
    found = _number(value, key)
    return None if found is None else int(found)


def _counts(value: Mapping[str, Any], key: str) -> dict[str, int] | None:
    found = value.get(key)
    if not isinstance(found, dict) or not found:
        return None
    return {kind: count for kind, count in found.items() if isinstance(count, int)}


def _list(value: Mapping[str, Any], key: str) -> list[Mapping[str, Any]] | None:
    found = value.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else None
