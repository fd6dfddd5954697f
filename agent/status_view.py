"""The status as people read it: what is wrong first, then services, lanes, queues and the last deaths."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.words import size, span

NARROW = 100
_STATES = {
    "busy": "green",
    "idle": "dim",
    "ready": "green",
    "booting": "yellow",
    "leaking": "yellow",
    "stuck": "bold red",
    "boot hung": "bold red",
}
_UNKNOWN = "-"


def render(status: Mapping[str, Any], width: int) -> RenderableType:
    """The whole page for a terminal of this width."""
    parts: list[RenderableType] = [*_head(status)]
    if status["source"] == "look" and not status["troubles"]:
        parts.append(
            Text("One look into /proc, no agent was asked: deaths, queues and health are not known.", "yellow")
        )
    else:
        parts += _troubles(status["troubles"])
    for service in status["services"]:
        parts += ["", _service_line(service), *_listener_lines(service)]
        if service["workers"]:
            parts.append(_workers(service["workers"], width))
        parts += _celery_lines(service["celery"])
    if not status["services"]:
        parts += ["", *_empty()]
    parts += ["", *_deaths(status["deaths"])]
    return Group(*parts)


def show(status: Mapping[str, Any]) -> None:
    """Prints it once."""
    console = Console(highlight=False)
    console.print(render(status, console.width))


def watch(ask: Any, every_s: float) -> None:
    """Shows it again and again until Ctrl-C; `ask` gives a document or raises."""
    console = Console(highlight=False)
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            live.update(render(ask(), console.width), refresh=True)
            time.sleep(every_s)


def _head(status: Mapping[str, Any]) -> list[RenderableType]:
    when = datetime.fromtimestamp(status["now_us"] / 1e6).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    degraded = [probe["signal"] for probe in status["probes"] if probe["state"] == "degraded"]
    server = status["server"]
    link = (
        "server not reached"
        if server.get("trouble")
        else f"sending to {server.get('url')}"
        if server.get("url")
        else ""
    )
    line = Text.assemble((status["host"], "bold"), f"  {when}  reflexd {status['version']}")
    if link:
        line.append(f"  {link}", style="red" if server.get("trouble") else "dim")
    lines: list[RenderableType] = [line]
    if degraded:
        lines.append(Text(f"heard by lesser means: {', '.join(degraded)} (reflexd probes says why)", style="dim"))
    return lines


def _troubles(troubles: Sequence[str]) -> list[RenderableType]:
    if not troubles:
        return [Text("Nothing is wrong that Reflex can see.", style="green")]
    return [_hanging((Text("!"), Text(trouble)) for trouble in troubles)]


def _service_line(service: Mapping[str, Any]) -> Text:
    settings = service["settings"]
    told = [
        f"{settings['workers']} workers" if settings["workers"] else "",
        f"{settings['threads']} threads" if (settings["threads"] or 1) > 1 else "",
        settings["worker_class"] or "",
        f"timeout {settings['timeout_s']:g} s" if settings["timeout_s"] else "",
        f"max_requests {settings['max_requests']}" if settings["max_requests"] else "",
        f"release {service['release']}" if service["release"] else "",
        service["unit"] or "",
        f"container {service['container']}" if service["container"] else "",
    ]
    detail = ", ".join(part for part in told if part)
    return Text.assemble(
        (service["name"], "bold cyan"), f"  {service['kind']} master {service['master_pid']}", (f"  {detail}", "dim")
    )


def _listener_lines(service: Mapping[str, Any]) -> Iterable[Text]:
    for one in service["listeners"]:
        depth, limit = one["depth"], one["limit"]
        queue = "" if limit is None else f"  queue {_number(depth)} of {limit}"
        rate = "" if one["arrivals"] is None else f", {one['arrivals']} connections in the last second"
        away = f", {one['turned_away']} turned away" if one["turned_away"] else ""
        yield Text(f"  {one['address']}{queue}{rate}{away}", style="bold red" if one["saturated"] else "")


def _workers(workers: Sequence[Mapping[str, Any]], width: int) -> Table:
    wide = width >= NARROW
    table = Table(box=None, padding=(0, 1), header_style="dim", show_edge=False)
    table.add_column("slot", justify="right")
    for title in ("pid", "state", "age", "request", "CPU", "memory"):
        table.add_column(title, justify="left" if title == "state" else "right", no_wrap=True)
    if wide:
        for title in ("grows", "full in", "gen", "ended/h"):
            table.add_column(title, justify="right", no_wrap=True)
    for worker in workers:
        style = _STATES.get(worker["state"], "")
        cells: list[str | Text] = [
            str(worker["slot"]),
            str(worker["pid"]),
            Text(worker["state"], style=style),
            span(worker["age_s"]),
            _UNKNOWN if worker["request_age_s"] is None else span(worker["request_age_s"]),
            _UNKNOWN if worker["cpu_percent"] is None else f"{worker['cpu_percent']:.1f} %",
            _UNKNOWN if worker["memory_bytes"] is None else f"{size(worker['memory_bytes'])} {worker['memory_of']}",
        ]
        if wide:
            slope, left_s = worker["leak_bytes_per_s"], worker["memory_time_left_s"]
            cells += [
                "" if slope is None else f"{size(slope * 60)}/min",
                "" if left_s is None else span(left_s),
                str(worker["generation"]),
                str(worker["ended_last_hour"] or ""),
            ]
        table.add_row(*cells)
    return table


def _celery_lines(celery: Mapping[str, Any] | None) -> Iterable[Text]:
    if celery is None:
        return
    broker = celery["broker"] or celery["trouble"]
    unacked = "" if celery["unacked"] is None else f", {celery['unacked']} not acknowledged"
    yield Text(f"  broker {broker}{unacked}" if celery["broker"] else f"  {broker}", style="dim")
    for queue in celery["queues"]:
        oldest = "" if queue["oldest_wait_s"] is None else f", oldest for {span(queue['oldest_wait_s'])}"
        marks = [mark for mark in ("silent", "backlog") if queue[mark]]
        style = "bold red" if marks else ""
        yield Text(
            f"  queue {queue['name']}: {_number(queue['length'])} waiting{oldest} {' '.join(marks)}", style=style
        )
    for task in celery["active"] or ():
        age = "" if task["age_s"] is None else f" for {span(task['age_s'])}"
        yield Text(
            f"  task {task['name']} in pid {_number(task['pid'])}{age}", style="bold red" if task["stuck"] else ""
        )


def _deaths(deaths: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    if not deaths:
        return [Text("No death that nobody asked for since the agent started.", style="dim")]
    times = [datetime.fromtimestamp(death["ts_us"] / 1e6).astimezone() for death in deaths]
    rows = zip(times, deaths, strict=True)
    return [
        Text("Last deaths that nobody asked for", style="bold"),
        _hanging(((Text(when.strftime("%H:%M:%S"), "dim"), Text(death["text"])) for when, death in rows), style=""),
    ]


def _hanging(rows: Iterable[tuple[Text, Text]], style: str = "bold red") -> Table:
    """A sign or a time, and beside it a sentence that keeps to its own column."""
    table = Table.grid(padding=(0, 1))
    for row in rows:
        table.add_row(*row, style=style)
    return table


def _empty() -> list[RenderableType]:
    return [
        Text("No Gunicorn, uWSGI, uvicorn or Celery runs on this host."),
        Text(
            "One that starts now shows up here within a second. A service that Reflex does not recognise", style="dim"
        ),
        Text("by its command line can be named in /etc/reflex/services.toml (docs/services.md).", style="dim"),
    ]


def _number(value: int | None) -> str:
    return _UNKNOWN if value is None else str(value)
