"""`reflexctl timeline`: what happened, oldest first, and with --follow what happens."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from ctl.client import Client, Params
from ctl.entry import Entry, read_entry
from ctl.errors import NothingFound, ServerFailing
from ctl.lines import TimelineWriter
from ctl.screen import Screen, note, show, show_json

PAGE = 500


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody wants to see. `filters` are parameters of the API, `span` its `from` and `to`."""

    filters: Params = ()
    span: Params = ()
    limit: int = 100


def question_of(options: argparse.Namespace) -> Question:
    """What the options of the command line ask for."""
    filters = [(name, value) for name in ("kind", "host", "service") for value in getattr(options, name)]
    filters += [(name, value) for name, value in (("severity", options.severity), ("q", options.search)) if value]
    span = [(name, value) for name, value in (("from", options.since), ("to", options.until)) if value]
    return Question(filters, span, options.limit)


class TimelinePrinter:
    """Prints events as lines for people or as JSON."""

    def __init__(self, screen: Screen, *, as_json: bool) -> None:
        self._writer = TimelineWriter(screen)
        self._as_json = as_json

    def print(self, events: list[Any]) -> None:
        """These events, in this order; raises ReaderGone, or ServerFailing for what is no event."""
        entries = [read_entry(event) for event in events]
        if self._as_json:
            show_json(*events)
        else:
            show(*self._writer.lines(entries))


async def print_timeline(client: Client, question: Question, printer: TimelinePrinter) -> None:
    """Prints the newest events that match, oldest of them first; raises CtlError."""
    events, more = await newest(client, question)
    if not events:
        raise NothingFound("no event matches; --since 7d looks further back, and fewer filters see more")
    printer.print(events)
    if more:
        note(f"these are the newest {len(events)}; older ones match too: --limit {question.limit * 10} shows more")


async def newest(client: Client, question: Question) -> tuple[list[Any], bool]:
    """The newest events as the server tells them, oldest first, and whether it has older ones that match.

    It asks for one event more than is wanted: a cursor alone says only that there may be more.
    """
    events: list[Any] = []
    cursor: str | None = None
    while True:
        page = str(min(PAGE, question.limit + 1 - len(events)))
        place = [("cursor", cursor)] if cursor else list(question.span)
        answer = await client.get("/v1/timeline", [*question.filters, *place, ("limit", page)])
        found, cursor = answer.get("events"), answer.get("next_cursor")
        if not isinstance(found, list):
            raise ServerFailing(f"{client.url}/v1/timeline did not answer with a list of events; is it reflex-server?")
        events += found
        if cursor is None or not found or len(events) > question.limit:
            return events[: question.limit][::-1], len(events) > question.limit


async def recent(client: Client, count: int) -> list[Entry]:
    """The newest `count` events, oldest first."""
    events, _ = await newest(client, Question(limit=count))
    return [read_entry(event) for event in events]
