"""A causal chain drawn as a tree: the cause above, its effects below, each with the time that lies between. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ctl.entry import Entry, read_entry
from ctl.errors import ServerFailing
from ctl.safe import clean, wrap
from ctl.screen import Screen
from ctl.spell import span

NARROWEST_TEXT = 30


@dataclass(frozen=True, slots=True)
class Chain:
    """The answer of /v1/chain/{id}. `causes` maps an effect to its cause and the gap between them in microseconds."""

    asked: str
    entries: tuple[Entry, ...]
    causes: Mapping[str, tuple[str, int]]
    missing: frozenset[str] = frozenset()
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """An entry at its place in the tree. `open_above` tells for each level above whether more comes below on that level."""

    entry: Entry
    gap_us: int | None
    open_above: tuple[bool, ...] = ()
    has_effects: bool = False


def read_chain(answer: Mapping[str, Any]) -> Chain:
    """The chain in an answer of the server; raises ServerFailing."""
    try:
        causes = {clean(link["effect"]): (clean(link["cause"]), int(link["gap_us"])) for link in answer["links"]}
        missing = frozenset(clean(id_) for id_ in answer["missing"])
        entries = tuple(read_entry(event) for event in answer["events"])
        return Chain(clean(answer["id"]), entries, causes, missing, bool(answer["truncated"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ServerFailing(
            "the server sent a chain that cannot be read; is reflexctl older than the server?"
        ) from None


def draw(chain: Chain, screen: Screen) -> list[str]:
    """The lines of the whole tree."""
    lines: list[str] = []
    for node in nodes(chain):
        if not node.open_above:
            lines += _above_a_root(node.entry, chain, screen)
        lines += _draw_node(node, chain, screen)
    if chain.truncated:
        lines.append(f"The chain is longer than the server tells at once: {len(chain.entries)} events are shown.")
    return lines


def nodes(chain: Chain) -> Iterator[Node]:
    """Every entry once, a cause before its effects. A circle of causes is cut where the server put its first event."""
    by_id = {entry.id: entry for entry in chain.entries}
    effects: dict[str, list[str]] = {}
    for entry in chain.entries:
        cause, _ = chain.causes.get(entry.id, (None, 0))
        if cause in by_id and cause != entry.id:
            effects.setdefault(str(cause), []).append(entry.id)
    caused = {effect for some in effects.values() for effect in some}
    roots = [id_ for id_ in by_id if id_ not in caused]
    placed: set[str] = set()
    for start in (*roots, *by_id):
        waiting: list[tuple[str, tuple[bool, ...]]] = [(start, ())]
        while waiting:
            id_, open_above = waiting.pop()
            if id_ in placed:
                continue
            placed.add(id_)
            below = [effect for effect in effects.get(id_, ()) if effect not in placed]
            gap_us = chain.causes[id_][1] if open_above else None
            yield Node(by_id[id_], gap_us, open_above, bool(below))
            waiting += [(effect, (*open_above, effect != below[-1])) for effect in reversed(below)]


def _above_a_root(entry: Entry, chain: Chain, screen: Screen) -> list[str]:
    if entry.cause is None:
        return []
    if entry.cause in chain.missing and chain.truncated:
        return [screen.paint(f"? its cause {entry.cause} is not stored (yet), or beyond what is shown here", "warning")]
    if entry.cause in chain.missing:
        return [screen.paint(f"? its cause {entry.cause} is not stored (yet)", "warning")]
    return [screen.paint(f"? its cause {entry.cause} is also one of its effects", "warning")]


def _draw_node(node: Node, chain: Chain, screen: Screen) -> list[str]:
    entry = node.entry
    branch, beside = _indents(node, screen)
    gap = "" if node.gap_us is None else f"{_gap(node.gap_us, screen)} "
    kind = screen.paint(entry.kind, "bold")
    when = screen.paint(screen.clock(entry.ts_us) if node.open_above else screen.date_and_clock(entry.ts_us), "dim")
    asked = screen.drawn(" ◀ asked for") if entry.id == chain.asked else ""
    head = f"{branch}{gap}{screen.shape(entry.severity)} {kind} {entry.host} {when} {_id(entry, screen)}{asked}"
    lines = [head, *(beside + line for line in _wrapped(entry.text, "", beside, screen))]
    for one in entry.evidence:
        bullet = screen.drawn("· ")
        evidence = _wrapped(f"{one.source}: {one.fact}", bullet, beside, screen)
        lines += [beside + screen.paint(line, "dim") for line in evidence]
    return lines


def _wrapped(text: str, bullet: str, beside: str, screen: Screen) -> list[str]:
    if screen.width is None:
        return [bullet + text]
    first, *rest = wrap(text, max(NARROWEST_TEXT, screen.width - len(beside) - len(bullet)))
    return [bullet + first, *(" " * len(bullet) + line for line in rest)]


def _indents(node: Node, screen: Screen) -> tuple[str, str]:
    """What stands before an entry's first line and before its other lines; very deep levels share one column."""
    levels = node.open_above
    above = "".join("│  " if more else "   " for more in levels[:-1])
    if screen.width is not None and len(above) > screen.width // 2:
        above = f"┆{len(levels)}┆ "
    branch = ("├─ " if levels[-1] else "└─ ") if levels else ""
    beside = ("│  " if levels[-1] else "   ") if levels else ""
    stem = "│ " if node.has_effects else "  "
    return screen.drawn(above + branch), screen.drawn(above + beside + stem)


def _gap(gap_us: int, screen: Screen) -> str:
    return screen.drawn(f"+{span(gap_us)}" if gap_us >= 0 else f"{span(gap_us)} (clocks differ)")


def _id(entry: Entry, screen: Screen) -> str:
    return screen.paint(entry.short_id if screen.is_terminal else entry.id, "dim")
