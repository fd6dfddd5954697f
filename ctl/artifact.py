"""`reflexctl artifact ID`: what an event names because it is too long for it, such as a snapshot of a process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ctl.chain import RECENT, match, whole_id
from ctl.client import Client
from ctl.entry import mapping
from ctl.errors import NothingFound
from ctl.safe import cells, clean
from ctl.screen import Screen, show, show_json
from ctl.timeline import recent

_MIB = 1024 * 1024


async def print_artifact(client: Client, wanted: str, screen: Screen, *, as_json: bool) -> None:
    """Prints the artifact of this id, or the one that the event of this id names; raises CtlError."""
    answer = await _find(client, whole_id(wanted) or match(wanted, await recent(client, RECENT)))
    if as_json:
        show_json(answer)
    else:
        show(*_fitting(draw(answer, screen), screen))


async def _find(client: Client, id_: str) -> dict[str, Any]:
    try:
        return await client.get(f"/v1/artifacts/{id_}")
    except NothingFound:
        named = mapping((await client.get(f"/v1/events/{id_}")).get("attrs"), "attrs").get("artifact")
        if not isinstance(named, str) or named == id_:
            raise
        return await client.get(f"/v1/artifacts/{whole_id(named) or named}")


def draw(answer: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    """The artifact as lines: what it is, then all of it."""
    content = mapping(answer.get("content"), "content")
    ts_us = answer.get("ts_us")
    when = screen.date_and_clock(ts_us) if isinstance(ts_us, int) else "at an unknown time"
    yield screen.paint(f"{_said(answer, 'kind')} {_said(answer, 'host')} {when} {_said(answer, 'id')}", "bold")
    yield from _log(content, screen) if answer.get("kind") == "release_log" else _snapshot(answer, content, screen)


def _log(content: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    """What the programs of one phase of a release said."""
    yield from _lines(content.get("first"), screen)
    left_out = content.get("left_out")
    if isinstance(left_out, int) and left_out:
        yield screen.paint(f"{left_out} lines between these were too many to be kept", "dim")
    yield from _lines(content.get("last"), screen)


def _lines(found: object, screen: Screen) -> Iterator[str]:
    for one in found if isinstance(found, list) else ():
        match one:
            case [int() as ts_us, str() as line]:
                yield f"{screen.clock(ts_us)}  {clean(line)}"


def _snapshot(answer: Mapping[str, Any], content: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    """Whose it is and why, the stacks, the memory, then every other number."""
    yield f"{_subject(answer)}, kept because {_said(content, 'why') or 'of an unknown reason'}"
    yield ""
    yield from _threads(content, screen)
    memory = content.get("memory")
    if isinstance(memory, dict):
        yield screen.paint("memory", "bold")
        for part in _list(memory.get("largest")):
            yield f"  {_size(part.get('rss_bytes')):>11}  {_said(part, 'kind'):12}  {_said(part, 'name')}"
    elif content.get("no_memory_because"):
        yield f"no memory map: {_said(content, 'no_memory_because')}"
    yield from _connections(content, screen)
    for name in ("memory", "process", "cgroup", "limit", "sockets", "growth", "took"):
        for path, value in _numbers(name, content.get(name)):
            yield f"  {path}: {value}"
    not_had = content.get("not_had")
    for one in not_had if isinstance(not_had, list) else ():
        yield screen.paint(f"cannot be had from outside: {clean(str(one))}", "dim")


def _threads(content: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    threads = content.get("threads")
    if not isinstance(threads, list):
        yield f"no Python stacks: {_said(content, 'no_stacks_because') or 'no reason given'}"
        return
    for thread in _list(threads):
        marks = [
            words for key, words in (("is_active", "runs"), ("has_gil", "holds the GIL")) if thread.get(key) is True
        ]
        yield screen.paint(f"{_said(thread, 'name') or 'thread'} (id {thread.get('id')})", "bold") + "".join(
            f", {mark}" for mark in marks
        )
        calls = thread.get("calls")
        yield from (f"  {clean(str(call))}" for call in (calls if isinstance(calls, list) else ()))
        if thread.get("calls_left_out"):
            yield f"  and {thread['calls_left_out']} outer calls that did not fit"
        yield ""


def _connections(content: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    sockets = content.get("sockets")
    found = list(_list(sockets.get("connections"))) if isinstance(sockets, dict) else []
    if found:
        yield screen.paint("connections", "bold")
    for one in found:
        waits = [f"{_size(one[key])} {key[:6]}" for key in ("unread_bytes", "unsent_bytes") if one.get(key)]
        line = f"  {_said(one, 'state'):12}  {_said(one, 'own')} -> {_said(one, 'far')}"
        yield ", ".join([line, *waits])


def _numbers(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Every number and text below `value` with its path; lists were drawn already."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _numbers(f"{name}.{clean(str(key))}", one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, _size(value) if "bytes" in name and "per_s" not in name else str(value)
    elif isinstance(value, str):
        yield name, clean(value)


def _subject(answer: Mapping[str, Any]) -> str:
    worker, service = answer.get("worker"), _said(answer, "service") or "no service"
    if not isinstance(worker, dict):
        return service
    return f"worker {worker.get('slot')} of {service} (pid {worker.get('pid')})"


def _fitting(lines: Iterator[str], screen: Screen) -> Iterator[str]:
    """On a terminal, what is too wide keeps its end: there a call has its line and a path its file."""
    for line in lines:
        too_wide = screen.width is not None and "\x1b" not in line and cells(line) > screen.width
        if too_wide and screen.width is not None:
            indent = len(line) - len(line.lstrip())
            mark = screen.drawn("…")
            line = line[:indent] + mark + line[-(screen.width - indent - len(mark)) :] if indent else line
        yield line


def _list(value: object) -> Iterator[Mapping[str, Any]]:
    yield from (one for one in (value if isinstance(value, list) else ()) if isinstance(one, dict))


def _said(value: Mapping[str, Any], key: str) -> str:
    said = value.get(key)
    return clean(said) if isinstance(said, str) else ""


def _size(value: object) -> str:
    """Bytes as people read them, with a sign where they shrank."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "unknown"
    if abs(value) >= _MIB:
        return f"{value / _MIB:.1f} MiB"
    return f"{value / 1024:.1f} KiB"
