"""A week of recorded life through the whole library in shadow: what each playbook would have done, and that it is no false repair.

`recorded/` has timelines of real programs: a quarter of an hour of everyday life (traffic, reloads, recycling, deploys by
hand), and the stories of faults. Every hour of the week is that quarter again, on one host; on another one a fault comes
every so often. Times and ids are made anew, nothing else.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import merge
from pathlib import Path
from typing import Any

from agent.wire import Event, event_from_json, uuid7
from benchmarks.options import Options
from playbooks import Happened, Playbook, State, Tick, read_playbook, step
from playbooks.model import HOUR_US

TITLE = "a recorded week -> what the library of playbooks would have done"
RECORDED = Path(__file__).parent / "recorded"
LIBRARY = Path(__file__).parents[1] / "playbooks" / "library"
QUIET, QUIET_HOST, FAULTY_HOST = "quiet", "web-1", "web-2"
WEEK_H, DAY_H = 168, 24
BEGIN_US = 1_795_000_000_000_000
OWN = ("playbook.", "action.")
"""What Reflex did while a story was recorded is not played again."""


@dataclass(frozen=True, slots=True)
class Would:
    """A playbook would have run, because of something in this recording."""

    playbook: str
    recording: str
    text: str


def recordings() -> Mapping[str, Sequence[Event]]:
    """The recorded events by the names of their files, oldest first."""
    return {file.name.removesuffix(".jsonl.gz"): _read(file) for file in sorted(RECORDED.glob("*.jsonl.gz"))}


def library() -> Mapping[str, Playbook]:
    """All playbooks, in shadow."""
    books = (read_playbook(file.read_text(), file.name) for file in sorted(LIBRARY.glob("*.yaml")))
    return {book.name: replace(book, mode="shadow") for book in books}


def week(recorded: Mapping[str, Sequence[Event]], hours: int) -> Iterator[tuple[str, str, Event]]:
    """Host, name of the recording, event; in the order of time."""
    faults = [name for name in recorded if name != QUIET]
    apart_h = max(hours // (len(faults) + 1), 1)
    parts = [_moved(recorded[QUIET], QUIET, QUIET_HOST, hour) for hour in range(hours)]
    parts += [_moved(recorded[name], name, FAULTY_HOST, (n + 1) * apart_h) for n, name in enumerate(faults)]
    yield from merge(*parts, key=lambda one: one[2].ts_us)


def play(hours: int) -> tuple[list[Would], Counter[str], int]:
    """What would have been done, how often limits would have held what back, and the number of events."""
    books, state, events = library(), State("week"), 0
    would: list[Would] = []
    held: Counter[str] = Counter()
    ticked_us = 0
    for host, name, event in week(recordings(), hours):
        events += 1
        if event.ts_us - ticked_us > HOUR_US:
            state, ticked_us = step(state, books, Tick(), event.ts_us).state, event.ts_us
        answer = step(state, books, Happened(host, event), event.ts_us)
        state = answer.state
        for entry in answer.entries:
            playbook = str(entry.event.attrs["playbook"])
            if entry.event.kind == "playbook.would_run":
                would.append(Would(playbook, name, entry.event.text))
            else:
                held[playbook] += 1
    return would, held, events


async def measure(chosen: Options) -> dict[str, Any]:
    """Per playbook: in everyday life, after which faults, and held back. `quick` plays a day."""
    hours = DAY_H if chosen.quick else WEEK_H
    began_s = time.monotonic()
    would, held, events = play(hours)
    took_s = time.monotonic() - began_s
    rows = {
        name: {
            "in_everyday_life": sum(one.playbook == name and one.recording == QUIET for one in would),
            "after": ", ".join(sorted({one.recording for one in would if one.playbook == name} - {QUIET})) or "-",
            "held_back": held[name],
        }
        for name in library()
    }
    return {"hours": hours, "events": events, "us_per_event": round(took_s * 1e6 / events, 1), "playbooks": rows}


def _read(file: Path) -> Sequence[Event]:
    with gzip.open(file, "rt") as lines:
        return [event_from_json(json.loads(line)) for line in lines]


def _moved(events: Sequence[Event], name: str, host: str, hour: int) -> Iterator[tuple[str, str, Event]]:
    """The events at another hour; causes go with them."""
    shift_us = BEGIN_US + hour * HOUR_US - events[0].ts_us
    ids: dict[str, str] = {}
    for event in events:
        if event.kind.startswith(OWN):
            continue
        digest = hashlib.blake2b(f"{hour}/{name}/{event.id}".encode(), digest_size=8).digest()
        ids[event.id] = uuid7(event.ts_us + shift_us, int.from_bytes(digest, "big"))
        cause = ids.get(event.cause) if event.cause is not None else None
        yield host, name, replace(event, id=ids[event.id], ts_us=event.ts_us + shift_us, cause=cause)
