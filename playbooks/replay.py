"""What playbooks would have done with events that have happened: the same engine in shadow mode, by the events' own time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from agent.wire import Event
from playbooks.engine import step
from playbooks.inputs import Entry, Happened, Known
from playbooks.model import Playbook
from playbooks.state import Members, State

TOLD = ("playbook.would_run", "playbook.skipped")


def replay(
    playbook: Playbook | Sequence[Playbook],
    events: Iterable[tuple[str, Event]],
    kinds: Mapping[str, Mapping[str, str]],
) -> list[Entry]:
    """What is told of `events` (host and event, oldest first). `kinds` has, by host, the kind of each service.

    Samples are no events, so triggers on metrics see nothing here. A limit that a run in shadow would have reached is told.
    """
    books = [playbook] if isinstance(playbook, Playbook) else playbook
    shadows = {book.name: replace(book, mode="shadow") for book in books}
    state = State("replay")
    entries: list[Entry] = []
    began = False
    for host, event in events:
        if not began:
            began = True
            for name, services in kinds.items():
                known = Known(name, {service: Members(kind) for service, kind in services.items()})
                state = step(state, shadows, known, event.ts_us).state
        answer = step(state, shadows, Happened(host, event), event.ts_us)
        state = answer.state
        entries += [one for one in answer.entries if one.event.kind in TOLD]
    return entries
