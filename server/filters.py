"""Which events somebody asks for: parsing the request's parameters, and the test for one event. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from agent.wire import KINDS, MAX_INTEGER, MAX_NAME_CHARS, MAX_TEXT_CHARS, SEVERITIES
from server.errors import bad_request
from server.stored import StoredEvent

MAX_VALUES = 100
"""How often one parameter may be repeated."""

_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_RELATIVE = re.compile(r"-(\d{1,6})([smhdw])")
_PLUS_LOST = re.compile(r" (\d\d:\d\d)$")


@dataclass(frozen=True, slots=True)
class EventFilter:
    """What an event must be. Empty sets and an empty `q` let everything through."""

    hosts: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    kinds: frozenset[str] | None = None
    severities: frozenset[str] = frozenset()
    q: str = ""

    def matches(self, stored: StoredEvent) -> bool:
        """Whether the event passes; says the same as the store's own query."""
        event = stored.event
        return (
            (not self.hosts or stored.host in self.hosts)
            and (not self.services or event.service in self.services)
            and (self.kinds is None or event.kind in self.kinds)
            and (not self.severities or event.severity in self.severities)
            and (not self.q or self.q.lower() in event.text.lower())
        )


def parse_filter(
    *, hosts: Sequence[str], services: Sequence[str], kinds: Sequence[str], severity: str | None, q: str | None
) -> EventFilter:
    """The filter of one request; raises ApiError 400 that names the parameter."""
    if len(q or "") > MAX_TEXT_CHARS:
        raise bad_request(f"q: is {len(q or '')} characters long; the limit is {MAX_TEXT_CHARS}")
    return EventFilter(
        hosts=_names("host", hosts),
        services=_names("service", services),
        kinds=_kinds(kinds) if kinds else None,
        severities=_severities(severity),
        q=q or "",
    )


def parse_time(name: str, text: str, *, now_us: int) -> int:
    """Microseconds since 1970 of RFC 3339 text, plain microseconds, or `-15m`, which counts back from `now_us`."""
    if text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= MAX_INTEGER:
        return int(text)
    if relative := _RELATIVE.fullmatch(text):
        return max(0, now_us - int(relative[1]) * _UNIT_S[relative[2]] * 1_000_000)
    try:
        moment = datetime.fromisoformat(_PLUS_LOST.sub(r"+\1", text))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise bad_request(
            f"{name}: {text!r:.60} is no time; use RFC 3339 with an offset (2026-11-23T01:11:09Z), "
            "microseconds since 1970, or a time back from now such as -15m, -24h or -7d"
        )
    return max(0, (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))


def _names(parameter: str, values: Iterable[str]) -> frozenset[str]:
    found = frozenset(values)
    if len(found) > MAX_VALUES or any(not 0 < len(value) <= MAX_NAME_CHARS for value in found):
        raise bad_request(
            f"{parameter}: at most {MAX_VALUES} values of 1 to {MAX_NAME_CHARS} characters each are possible"
        )
    return found


def _kinds(values: Sequence[str]) -> frozenset[str]:
    found: set[str] = set()
    for value in _names("kind", values):
        if value.endswith("*"):
            found.update(kind for kind in KINDS if kind.startswith(value[:-1]))
        elif value in KINDS:
            found.add(value)
        else:
            raise bad_request(f"kind: unknown kind {value!r:.60}; docs/events.md lists them, and a prefix ends in .*")
    return frozenset(found)


def _severities(least: str | None) -> frozenset[str]:
    if least is None:
        return frozenset()
    if least not in SEVERITIES:
        raise bad_request(f"severity: must be one of {', '.join(SEVERITIES)}, not {least!r:.60}")
    return frozenset(SEVERITIES[SEVERITIES.index(least) :])
