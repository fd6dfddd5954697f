"""Services, lanes and queues of the status as lines and tables of a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

_MIB = 1024 * 1024
UNKNOWN = "-"
TASKS_SHOWN = 5
_GOOD_STATES = ("busy", "idle", "ready")
_STYLES = {
    "busy": "green",
    "idle": "green",
    "ready": "green",
    "booting": "yellow",
    "leaking": "bold yellow",
    "stuck": "bold red",
    "boot hung": "bold red",
}


def short(seconds: float | None) -> str:
    """A span of time for a narrow column: `850ms`, `42s`, `3m12s`, `2h04m`, `5d03h`; `-` when it is not known."""
    if seconds is None:
        return UNKNOWN
    whole = round(seconds)
    if whole < 1:
        return f"{max(0.0, seconds) * 1000:.0f}ms"
    if whole < 60:
        return f"{whole}s"
    for unit_s, unit, part_s, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= unit_s:
            return f"{whole // unit_s}{unit}{whole % unit_s // part_s:02}{part}"
    return f"{whole}s"


def service_lines(service: Mapping[str, Any]) -> Iterable[Text]:
    """What it is, and how it was told to run."""
    age = "" if service["master_age_s"] is None else f", up {short(service['master_age_s'])}"
    head = Text.assemble((service["name"], "bold cyan"), f"  {service['kind']}, pid {service['master_pid']}{age}")
    if service["release"]:
        head.append(f", release {service['release']}")
    yield head
    told = ", ".join(_told(service))
    if told:
        yield Text(f"  {told}", style="dim")


def _told(service: Mapping[str, Any]) -> Iterable[str]:
    settings = service["settings"]
    named = {
        "{} workers": settings["workers"],
        "{} threads each": settings["threads"] if (settings["threads"] or 1) > 1 else None,
        "{}": settings["worker_class"],
        "timeout {:g} s": settings["timeout_s"],
        "replaced after {} requests": settings["max_requests"] or None,
        "preload{}": "" if settings["preload"] else None,
    }
    yield from (words.format(value) for words, value in named.items() if value is not None)
    yield from [service["unit"]] if service["unit"] else []
    yield from [f"container {service['container']}"] if service["container"] else []


def listener_lines(listeners: Sequence[Mapping[str, Any]]) -> Iterable[Text]:
    """Each queue with its depth of the last second."""
    for one in listeners:
        rate = "" if one["arrivals"] is None else f", {one['arrivals']} new in the last second"
        away = f", {one['turned_away']} turned away" if one["turned_away"] else ""
        waits = f", {one['blocked']} found it full" if one["blocked"] else ""
        queue = f"queue {_number(one['depth'])} of {_number(one['limit'])}"
        yield Text(f"  {one['address']}  {queue}{rate}{away}{waits}", style="bold red" if one["saturated"] else "")


def workers_table(workers: Sequence[Mapping[str, Any]], *, wide: bool) -> Table:
    """One row a lane. Columns that would say nothing are left out; a narrow terminal has those that matter at night."""
    columns: dict[str, Sequence[str | Text]] = {
        "slot": [str(one["slot"]) for one in workers],
        "pid": [str(one["pid"]) for one in workers],
        "state": [Text(one["state"], style=_STYLES.get(one["state"], "")) for one in workers],
        "age": [short(one["age_s"]) for one in workers],
        "request": [short(one["request_age_s"]) for one in workers],
        "CPU": [_percent(one["cpu_percent"]) for one in workers],
        "memory": [_memory(one) for one in workers],
    }
    if any(one["leak_bytes_per_s"] is not None for one in workers):
        columns["full in"] = [short(one["memory_time_left_s"]) for one in workers]
    if any(one["ended_last_hour"] for one in workers):
        columns["ends/h"] = [str(one["ended_last_hour"]) for one in workers]
    if wide:
        columns["grows/min"] = [_growth(one["leak_bytes_per_s"]) for one in workers]
        columns["unshared"] = [UNKNOWN if one["uss_bytes"] is None else _amount(one["uss_bytes"]) for one in workers]
        columns["generation"] = [str(one["generation"]) for one in workers]
        columns["release"] = [str(one["release"] or UNKNOWN) for one in workers]
    return _table(columns, left=("state", "release"))


def brief_table(services: Sequence[Mapping[str, Any]]) -> Table:
    """One row a service."""
    columns: dict[str, Sequence[str | Text]] = {
        "service": [Text(one["name"], style="cyan") for one in services],
        "kind": [one["kind"] for one in services],
        "workers": [_states(one["workers"]) for one in services],
        "queue": [_fullest(one["listeners"]) for one in services],
        "memory": [_together(one["workers"]) for one in services],
    }
    return _table(columns, left=("service", "kind", "workers"))


def celery_lines(celery: Mapping[str, Any] | None) -> Iterable[Text]:
    """Its broker, its queues and the tasks that run."""
    if celery is None:
        return
    if not celery["broker"]:
        yield Text(f"  {celery['trouble']}", style="dim")
        return
    unacked = "" if celery["unacked"] is None else f", {celery['unacked']} not acknowledged"
    node = "" if celery["answers"] else ", the node has not answered"
    yield Text(f"  broker {celery['broker']}{unacked}{node}", style="dim")
    for queue in celery["queues"]:
        oldest = "" if queue["oldest_wait_s"] is None else f", the next one for {short(queue['oldest_wait_s'])}"
        marks = "".join(f"  {mark}" for mark in ("silent", "backlog") if queue[mark])
        waiting = f"{_number(queue['length'])} waiting"
        yield Text(f"  queue {queue['name']}: {waiting}{oldest}{marks}", style="bold red" if marks else "")
    tasks = sorted(celery["active"] or (), key=lambda task: not task["stuck"])
    for task in tasks[:TASKS_SHOWN]:
        age = "" if task["age_s"] is None else f" for {short(task['age_s'])}"
        where = "" if task["pid"] is None else f" in pid {task['pid']}"
        yield Text(f"  runs {task['name']}{where}{age}", style="bold red" if task["stuck"] else "")
    more = (celery["active_count"] or 0) - TASKS_SHOWN
    if more > 0:
        yield Text(f"  and {more} more tasks", style="dim")


def _table(columns: Mapping[str, Sequence[str | Text]], left: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 0, 0, 2), header_style="dim", show_edge=False)
    for title in columns:
        table.add_column(title, justify="left" if title in left else "right", no_wrap=True)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _states(workers: Sequence[Mapping[str, Any]]) -> Text:
    if not workers:
        return Text("serves by itself", style="dim")
    told = Text(f"{len(workers)}: ")
    states = Counter(one["state"] for one in workers)
    for state, count in sorted(states.items(), key=lambda one: (one[0] in _GOOD_STATES, one[0])):
        told.append(f"{', ' if told.plain[-2:] != ': ' else ''}{count} ")
        told.append(state, style=_STYLES.get(state, ""))
    return told


def _fullest(listeners: Sequence[Mapping[str, Any]]) -> str:
    known = [one for one in listeners if one["depth"] is not None]
    fullest = max(known, key=lambda one: one["depth"] / max(1, one["limit"] or 1), default=None)
    return UNKNOWN if fullest is None else f"{fullest['depth']} of {_number(fullest['limit'])}"


def _together(workers: Sequence[Mapping[str, Any]]) -> str:
    """The sum; only PSS may be added up."""
    amounts = [one["memory_bytes"] for one in workers if one["memory_of"] == "pss"]
    return f"{_amount(sum(amounts))} pss" if workers and len(amounts) == len(workers) else UNKNOWN


def _memory(worker: Mapping[str, Any]) -> str:
    amount = worker["memory_bytes"]
    return UNKNOWN if amount is None else f"{_amount(amount)} {worker['memory_of']}"


def _amount(amount_bytes: float) -> str:
    """Bytes for a narrow column: `61.2 MiB`, `183 MiB`, `1.50 GiB`."""
    mib = amount_bytes / _MIB
    if mib >= 1024:
        return f"{mib / 1024:.2f} GiB"
    return f"{mib:.0f} MiB" if mib >= 100 else f"{mib:.1f} MiB"


def _growth(slope: float | None) -> str:
    return UNKNOWN if slope is None else _amount(slope * 60)


def _percent(percent: float | None) -> str:
    return UNKNOWN if percent is None else f"{percent:.0f}%"


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)
