"""The causal chain: puts the events of one story in order and links each to its cause. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from server.stored import StoredEvent


@dataclass(frozen=True, slots=True)
class Link:
    """One event brought another about, `gap_us` later (negative when two hosts' clocks disagree)."""

    cause: str
    effect: str
    gap_us: int


@dataclass(frozen=True, slots=True)
class Chain:
    """Everything that belongs to the event `asked`: from `root` on, a cause always before its effects."""

    asked: str
    root: str
    events: tuple[StoredEvent, ...]
    links: tuple[Link, ...]
    missing: tuple[str, ...]
    truncated: bool


def build_chain(asked: str, events: Iterable[StoredEvent], *, truncated: bool = False) -> Chain:
    """The chain of these events, `asked` among them."""
    by_id = {stored.event.id: stored for stored in events}
    ordered = _causal_order(by_id)
    links = [
        Link(cause, stored.event.id, stored.event.ts_us - by_id[cause].event.ts_us)
        for stored in ordered
        if (cause := stored.event.cause) is not None and cause in by_id
    ]
    named = {stored.event.cause for stored in ordered if stored.event.cause is not None}
    missing = tuple(sorted(named - by_id.keys()))
    return Chain(asked, root_of(asked, by_id), tuple(ordered), tuple(links), missing, truncated)


def root_of(id_: str, by_id: dict[str, StoredEvent]) -> str:
    """The first cause of the event, as far as it is known; in a circle, the event where it closes."""
    seen = {id_}
    while (cause := by_id[id_].event.cause) in by_id and cause not in seen:
        id_ = cause
        seen.add(id_)
    return id_


def _causal_order(by_id: dict[str, StoredEvent]) -> list[StoredEvent]:
    """Oldest first, except that an effect never comes before its cause. A circle is cut at its oldest event."""
    effects: dict[str, list[str]] = {}
    heads: list[tuple[int, str]] = []
    for id_, stored in by_id.items():
        cause = stored.event.cause
        if cause in by_id and cause != id_:
            effects.setdefault(cause, []).append(id_)
        else:
            heads.append((stored.event.ts_us, id_))
    heapq.heapify(heads)
    oldest_first = sorted((stored.event.ts_us, id_) for id_, stored in by_id.items())
    placed: dict[str, StoredEvent] = {}
    for start in oldest_first:
        if not heads and start[1] not in placed:
            heads.append(start)
        while heads:
            _, id_ = heapq.heappop(heads)
            if id_ in placed:
                continue
            placed[id_] = by_id[id_]
            for effect in effects.get(id_, ()):
                heapq.heappush(heads, (by_id[effect].event.ts_us, effect))
    return list(placed.values())
