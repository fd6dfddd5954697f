"""The timeline as lines: time, severity, id, host, kind and sentence, in columns. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from ctl.entry import SHORT_ID, Entry
from ctl.safe import cells, pad, wrap
from ctl.screen import Screen

CLOCK_WIDTH = len("01:11:09.123")
NARROWEST_TEXT = 40
"""A sentence with less room than this, in columns, goes below its line instead of beside the kind."""

BELOW_INDENT = 4


@dataclass(frozen=True, slots=True)
class Columns:
    """Widths that depend on what is shown."""

    host: int = 0
    kind: int = 0

    def widened(self, entries: Iterable[Entry]) -> Columns:
        """Wide enough for these entries too."""
        host, kind = self.host, self.kind
        for entry in entries:
            host, kind = max(host, cells(entry.host)), max(kind, cells(entry.kind))
        return Columns(host, kind)


class TimelineWriter:
    """Turns entries into lines as they come; remembers the columns and the day that the reader has seen."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._columns = Columns()
        self._day: date | None = None

    def lines(self, entries: list[Entry]) -> list[str]:
        """The lines of these entries, in this order. On a terminal a new day has a line of its own."""
        self._columns = self._columns.widened(entries)
        found: list[str] = []
        for entry in entries:
            day = self._screen.moment(entry.ts_us).date()
            if self._screen.is_terminal and day != self._day:
                found.append(self._screen.paint(f"{day:%A, %Y-%m-%d}", "bold"))
            self._day = day
            found += self._entry(entry)
        return found

    def _entry(self, entry: Entry) -> list[str]:
        screen, columns = self._screen, self._columns
        host, kind = pad(entry.host, columns.host), pad(entry.kind, columns.kind)
        if screen.width is None:
            when = screen.date_and_clock(entry.ts_us)
            return [f"{when} {screen.shape(entry.severity)} {entry.severity:8} {entry.id} {host} {kind} {entry.text}"]
        when, short = screen.paint(screen.clock(entry.ts_us), "dim"), screen.paint(entry.short_id, "dim")
        beginning = f"{when} {screen.shape(entry.severity)} {short} {host} {_coloured(screen, entry, kind)}"
        indent = CLOCK_WIDTH + 3 + SHORT_ID + 1 + columns.host + 1 + columns.kind + 1
        if screen.width - indent < NARROWEST_TEXT:
            below = wrap(entry.text, screen.width - BELOW_INDENT)
            return [beginning.rstrip(), *(" " * BELOW_INDENT + line for line in below)]
        first, *rest = wrap(entry.text, screen.width - indent)
        return [f"{beginning} {first}", *(" " * indent + line for line in rest)]


def _coloured(screen: Screen, entry: Entry, text: str) -> str:
    if entry.severity == "critical":
        return screen.paint(text, "critical")
    return screen.paint(text, "warning") if entry.severity == "warning" else text
