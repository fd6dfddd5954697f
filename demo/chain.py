"""Checks a chain of events against what a story must show, link by link. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

StoredEvent: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Link:
    """One event that must be in the chain: its kind, and what must be true of it.

    `after` is the kind of the event that must have caused it; None for the root of the chain.
    """

    kind: str
    after: str | None
    claim: str
    holds: Callable[[StoredEvent], bool]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one link is there, and what was found."""

    kind: str
    claim: str
    ok: bool
    found: str


def check_chain(events: Sequence[StoredEvent], links: Sequence[Link]) -> list[Verdict]:
    """One verdict for each link, in order."""
    by_id = {event["id"]: event for event in events}
    return [_check(link, events, by_id) for link in links]


def _check(link: Link, events: Sequence[StoredEvent], by_id: dict[str, StoredEvent]) -> Verdict:
    candidates = [event for event in events if event["kind"] == link.kind]
    if not candidates:
        return Verdict(link.kind, link.claim, False, "no such event in the chain")
    for event in candidates:
        cause = by_id.get(event["cause"]) if event["cause"] else None
        caused_by = cause["kind"] if cause else None
        if caused_by == link.after and event["evidence"] and link.holds(event):
            return Verdict(link.kind, link.claim, True, event["text"])
    first = candidates[0]
    return Verdict(
        link.kind, link.claim, False, f"cause {first['cause']}, evidence {first['evidence']}: {first['text']}"
    )


def replacement_links() -> tuple[Link, Link]:
    """What follows every unasked death: a replacement in the same lane, and the moment when it can serve."""
    return (
        Link(
            "worker.started",
            "worker.exited",
            "the replacement's start names the death that it follows",
            lambda event: "replaces_pid" in event["attrs"] and event["worker"]["generation"] > 1,
        ),
        Link(
            "worker.ready",
            "worker.started",
            "the replacement was ready after it had imported the application",
            lambda event: event["attrs"]["boot_ms"] > 0,
        ),
    )
