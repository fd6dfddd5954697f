"""What the people of a host say of its services in a file: names of their own, and kinds that no command line shows."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from agent.identity import home_of
from agent.procfs import Process
from agent.workers import KINDS

MOST_BYTES = 1024 * 1024
MOST_NAME_CHARS = 120
_MATCHERS = ("command", "unit", "folder")
_KEYS = ("name", "kind", "release", *_MATCHERS)


class OverridesError(ValueError):
    """The file cannot be used; the text says what, where, and what was meant."""


@dataclass(frozen=True, slots=True)
class Override:
    """One table of the file. `command`, `unit` and `folder` are patterns with `*`; all that are given must fit."""

    name: str | None = None
    kind: str | None = None
    release: str | None = None
    command: str | None = None
    unit: str | None = None
    folder: str | None = None

    def fits(self, process: Process) -> bool:
        """Whether the table is about this process."""
        pairs = (
            (self.command, " ".join(process.argv)),
            (self.unit, home_of(process.cgroup).unit),
            (self.folder, process.folder),
        )
        return all(pattern is None or fnmatchcase(value, pattern) for pattern, value in pairs)


NONE: tuple[Override, ...] = ()


def load_overrides(path: Path) -> tuple[Override, ...]:
    """What the file says; nothing where there is none. Raises OverridesError."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES).decode()
        document = tomllib.loads(text)
    except FileNotFoundError:
        return NONE
    except OSError as error:
        raise OverridesError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise OverridesError(f"{path} is not TOML: {error}") from None
    tables = document.pop("service", [])
    if document:
        raise OverridesError(f"{path}: {next(iter(document))!r} is not known; write tables named [[service]]")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise OverridesError(f"{path}: service must be written as tables: [[service]]")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if line.strip().startswith("[[")]
    return tuple(_override(table, f"{path}, line {_at(lines, index)}") for index, table in enumerate(tables))


def first_fitting(overrides: Sequence[Override], process: Process) -> Override:
    """The first table about this process; an empty one if there is none."""
    return next((one for one in overrides if one.fits(process)), Override())


def _override(table: Mapping[str, Any], where: str) -> Override:
    for key, value in table.items():
        if key not in _KEYS:
            raise OverridesError(f"{where}: {key!r} is not known; a service has {', '.join(_KEYS)}")
        if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= MOST_NAME_CHARS:
            raise OverridesError(f"{where}: {key} must be a text of 1 to {MOST_NAME_CHARS} printable characters")
    if not any(key in table for key in _MATCHERS):
        raise OverridesError(f"{where}: say which service is meant by one of {', '.join(_MATCHERS)}")
    kind = table.get("kind")
    if kind is not None and kind not in KINDS:
        raise OverridesError(f"{where}: there is no kind {kind!r}; there are {', '.join(KINDS)}")
    return Override(**table)


def _at(lines: Sequence[int], index: int) -> int:
    return lines[index] if index < len(lines) else 1
