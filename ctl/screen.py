"""The terminal that reflexctl prints on: its width, its colours, its characters, and the time zone of its reader."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal, TypeAlias

from agent.wire import Severity
from ctl.errors import Misused, ReaderGone
from ctl.safe import json_line

Style: TypeAlias = Literal["critical", "warning", "info", "dim", "bold"]

NARROWEST = 40
_CODES: Mapping[str, str] = {"critical": "1;31", "warning": "33", "info": "36", "dim": "2", "bold": "1"}
_SHAPES: Mapping[str, tuple[str, str]] = {"critical": ("✖", "X"), "warning": ("▲", "!"), "info": ("●", "-")}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Screen:
    """How to print. `width` is None where nothing wraps: in a file, in a pipe. `zone` None is the local time."""

    width: int | None = None
    colour: bool = False
    unicode: bool = True
    zone: tzinfo | None = None

    @property
    def is_terminal(self) -> bool:
        return self.width is not None

    def paint(self, text: str, style: Style) -> str:
        """The text in a colour, where there are colours."""
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if self.colour and text else text

    def shape(self, severity: Severity | str) -> str:
        """One character for a severity, in its colour: told apart also without colours."""
        known: Style = "critical" if severity == "critical" else "warning" if severity == "warning" else "info"
        return self.paint(_SHAPES[known][0 if self.unicode else 1], known)

    def drawn(self, text: str) -> str:
        """A piece of a drawing, in plain characters where the encoding has no others."""
        return text if self.unicode else text.translate(_PLAIN)

    def moment(self, ts_us: int) -> datetime:
        """The time on the reader's clock."""
        return (_EPOCH + timedelta(microseconds=ts_us)).astimezone(self.zone)

    def clock(self, ts_us: int) -> str:
        """`01:11:09.123`."""
        moment = self.moment(ts_us)
        return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"

    def date_and_clock(self, ts_us: int) -> str:
        """`2026-11-23 01:11:09.123+01:00`, unambiguous in a file."""
        moment = self.moment(ts_us)
        offset = moment.strftime("%z")
        return f"{moment:%Y-%m-%d} {self.clock(ts_us)}{offset[:3]}:{offset[3:5]}"


_PLAIN = str.maketrans({"│": "|", "├": "|", "└": "`", "─": "-", "┆": ":", "·": "-", "◀": "<", "µ": "u", "…": "."})


def screen_of_stdout(environment: Mapping[str, str] = os.environ) -> Screen:
    """The screen that stdout is now. NO_COLOR and TERM=dumb switch colours off; a file or a pipe has neither colours nor width."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") in ("utf8", "utf16", "utf32")
    if not sys.stdout.isatty():
        return Screen(unicode=unicode)
    width = max(NARROWEST, shutil.get_terminal_size((100, 24)).columns)
    colour = not environment.get("NO_COLOR") and environment.get("TERM", "dumb") != "dumb"
    return Screen(width=width, colour=colour, unicode=unicode)


def show(*lines: str) -> None:
    """Prints the lines on stdout at once; raises ReaderGone, or Misused when there is no room."""
    _write("".join(f"{line}\n" for line in lines).encode(sys.stdout.encoding or "utf-8", "replace"))


def show_json(*values: Any) -> None:
    """Prints each value as one line of JSON on stdout at once; raises ReaderGone, or Misused when there is no room."""
    _write(b"".join(json_line(value) for value in values))


def note(text: str) -> None:
    """A word about the work itself: on stderr, so that stdout holds answers only."""
    print(f"reflexctl: {text}", file=sys.stderr, flush=True)


def _write(data: bytes) -> None:
    """All of it: with PYTHONUNBUFFERED a single write may take a part only."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[sys.stdout.buffer.write(rest) :]
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as error:
        raise Misused(f"stdout cannot be written: {error.strerror}") from None
