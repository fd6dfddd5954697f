"""The status as people read it: what is wrong first, in words; then services, lanes and queues; then what happened lately."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.status_tables import brief_table, celery_lines, listener_lines, service_lines, workers_table

Document = Mapping[str, Any]

NARROW = 100
LATELY = 5
SCREENS = 4
"""A page that is printed once may be so many screens long before healthy services take one line each."""

_HINT = "One that starts now shows up here within a second. What Reflex does not recognise by its command line can be named in /etc/reflex/services.toml (docs/services.md)."


def render(status: Document, width: int, rows: int | None = None) -> RenderableType:
    """The whole page for a terminal of this width; healthy services take one line each if it would have more rows."""
    status = _clean(status)
    return Group(*_page(status, width, brief=rows is not None and _rows(status) > rows))


def show(status: Document, *, whole: bool = False) -> None:
    """Prints it once; a `whole` page leaves nothing out."""
    console = Console(highlight=False)
    rows = None if whole or not console.is_terminal else SCREENS * console.height
    console.print(render(status, console.width, rows))


def _page(status: Document, width: int, *, brief: bool) -> Iterable[RenderableType]:
    yield from _head(status, width)
    yield from _troubles(status)
    ill = {trouble["service"] for trouble in status["troubles"]}
    services = sorted(status["services"], key=lambda one: one["name"] not in ill)
    in_full = [one for one in services if not brief or one["name"] in ill]
    for service in in_full:
        yield ""
        yield from service_lines(service)
        yield from listener_lines(service["listeners"])
        if service["workers"]:
            yield workers_table(service["workers"], wide=width >= NARROW)
        yield from celery_lines(service["celery"])
    if len(in_full) < len(services):
        yield ""
        yield brief_table([one for one in services if one not in in_full])
        yield Text("reflexd status --service NAME shows one of them in full", style="dim")
    if not services:
        yield from ("", *_empty(status))
    yield from _lately(status)


def _head(status: Document, width: int) -> Iterable[RenderableType]:
    when = _local(status["now_us"])
    right = f"reflexd {status['version']}"
    left = Text.assemble((status["host"], "bold"), f"  {when:%a %d %b %H:%M:%S} {when.tzname()}")
    space = max(2, width - left.cell_len - len(right))
    yield Text.assemble(left, " " * space, (right, "dim"))
    if status["source"] == "look":
        yield Text("One look into /proc, no agent was asked: deaths, queues and health are not known.", "yellow")
        return
    yield Text(f"{_hearing(status['probes'])}; {_link(status['server'])}", style="dim")


def _hearing(probes: Sequence[Mapping[str, Any]]) -> str:
    lesser = [probe["signal"] for probe in probes if probe["state"] == "degraded"]
    off = [probe["signal"] for probe in probes if probe["state"] == "off"]
    parts = [f"{len(probes) - len(off)} of {len(probes)} kernel signals heard"]
    parts += [f"by lesser means: {', '.join(lesser)}"] if lesser else []
    return ", ".join(parts)


def _link(server: Mapping[str, Any]) -> str:
    if server["trouble"]:
        return "server not reached"
    return f"{'sends' if server['connected'] else 'has not sent yet'} to {server['url']}"


def _troubles(status: Document) -> Iterable[RenderableType]:
    troubles = status["troubles"]
    if troubles:
        yield _hanging([(Text("!"), Text(trouble["text"])) for trouble in troubles], "bold red")
    elif status["source"] != "look":
        yield Text("Nothing is wrong that Reflex can see.", style="green")


def _lately(status: Document) -> Iterable[RenderableType]:
    if status["source"] == "look":
        return
    for title, rows in (("Last deaths", status["deaths"]), ("Last events", status["events"])):
        if rows:
            yield ""
            yield Text(title, style="bold")
            yield _hanging([(Text(_moment(row, status), "dim"), Text(row["text"])) for row in rows[:LATELY]], "")
    if not status["deaths"]:
        yield ""
        yield Text("No death that nobody asked for since the agent started.", style="dim")


def _moment(row: Mapping[str, Any], status: Document) -> str:
    when, now = _local(row["ts_us"]), _local(status["now_us"])
    return f"{when:%H:%M:%S}" if when.date() == now.date() else f"{when:%d %b %H:%M}"


def _local(ts_us: int) -> datetime:
    return datetime.fromtimestamp(ts_us / 1e6).astimezone()


def _hanging(rows: Iterable[tuple[Text, Text]], style: str) -> Table:
    """A sign or a time, and beside it a sentence that keeps to its own column."""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    for row in rows:
        table.add_row(*row, style=style)
    return table


def _empty(status: Document) -> Iterable[RenderableType]:
    name = status.get("only")
    if name is not None:
        others = ", ".join(status["others"]) or "none at all"
        yield Text(f"No service has {name!r} in its name. There are: {others}.")
        return
    yield Text("No Gunicorn, uWSGI, uvicorn or Celery runs on this host.")
    yield Text(_HINT, style="dim")


def _rows(status: Document) -> int:
    """How many rows the page has at least: laying it out costs a second where a host has hundreds of workers."""
    services = (4 + len(one["listeners"]) + len(one["workers"]) + _queues(one) for one in status["services"])
    return 3 + sum(services) + sum(len(status[key][:LATELY]) for key in ("deaths", "events")) + len(status["troubles"])


def _queues(service: Mapping[str, Any]) -> int:
    return len(service["celery"]["queues"]) if service["celery"] is not None else 0


def _clean(value: Any) -> Any:
    """Names of processes and tasks are anybody's: what a terminal would obey is no part of the page."""
    if isinstance(value, str):
        return (
            value
            if value.isprintable()
            else "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in value)
        )
    if isinstance(value, Mapping):
        return {key: _clean(one) for key, one in value.items()}
    return [_clean(one) for one in value] if isinstance(value, list) else value
