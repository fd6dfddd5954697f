"""What the engine of a host must not forget, in one file that is written anew before anything is done."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from agent.wire import Books, Event, WireError, books_from_json, books_to_json, event_from_json, event_to_json

MOST_BYTES = 8 * 1024 * 1024
_FORMAT = 1
_PRIVATE = 0o600


@dataclass(frozen=True, slots=True)
class Kept:
    """What was lent, the rows of the engine, and events that may not have been told. `trouble`: it could not be read."""

    books: Books | None = None
    rows: tuple[tuple[str, str, Any], ...] = ()
    outbox: tuple[Event, ...] = ()
    serial: int = 0
    trouble: str | None = None


def load(path: Path) -> Kept:
    """What is there; nothing where there is no file, or one that cannot be understood."""
    try:
        with path.open("rb") as file:
            document = orjson.loads(file.read(MOST_BYTES))
        if document["format"] != _FORMAT:
            return Kept(trouble=f"{path} is of another version")
        books = document["books"]
        return Kept(
            None if books is None else books_from_json(books),
            tuple((str(part), str(key), value) for part, key, value in document["rows"]),
            tuple(event_from_json(one) for one in document["outbox"]),
            int(document["serial"]),
        )
    except FileNotFoundError:
        return Kept()
    except OSError as error:
        return Kept(trouble=f"{path} cannot be read ({error.strerror})")
    except (ValueError, KeyError, TypeError, WireError) as error:
        return Kept(trouble=f"{path} is damaged ({error})")


def save(path: Path, kept: Kept) -> None:
    """Returns when it is on the disk; raises OSError."""
    document = {
        "format": _FORMAT,
        "serial": kept.serial,
        "books": None if kept.books is None else books_to_json(kept.books),
        "rows": kept.rows,
        "outbox": [event_to_json(event) for event in kept.outbox],
    }
    aside = path.with_suffix(".new")
    file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _PRIVATE)
    with os.fdopen(file, "wb") as opened:
        opened.write(orjson.dumps(document))
        opened.flush()
        os.fsync(opened.fileno())
    aside.replace(path)
