"""The state of an engine as its server writes it down: rows that change, and what a restart makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from playbooks import State, changes, state_of


class Written:
    """The rows of one engine."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], bytes] = {}
        self._last: State | None = None

    def keep(self, state: State) -> None:
        """Writes down what has changed."""
        for row in changes(self._last, state):
            key = (row.part, row.key)
            if row.value is None:
                del self._rows[key]
            else:
                self._rows[key] = orjson.dumps(row.value)
        self._last = state

    def read(self, beside: State) -> State:
        """What a restart reads, with what is not written down as it was in `beside`."""
        rows: list[tuple[str, str, Any]] = [(*key, orjson.loads(value)) for key, value in self._rows.items()]
        return replace(state_of(rows), seen=beside.seen, seen_lately=beside.seen_lately, holding=beside.holding)
