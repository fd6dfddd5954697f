"""One event as the server tells it. Pure: it takes what a newer server may add, and refuses what is no event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.wire import SEVERITIES, Evidence
from ctl.errors import ServerFailing
from ctl.safe import clean

SHORT_ID = 8
"""Last digits of an id that are shown. They are random, while the first digits are the time."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the timeline; every text is safe to print. `ts_us` is UTC in microseconds since 1970."""

    id: str
    ts_us: int
    host: str
    kind: str
    severity: str
    text: str
    service: str | None = None
    cause: str | None = None
    evidence: tuple[Evidence, ...] = ()

    @property
    def short_id(self) -> str:
        return self.id[-SHORT_ID:]


def read_entry(value: object) -> Entry:
    """The event in an answer of the server; raises ServerFailing. An unknown severity counts as the worst."""
    event = mapping(value, "event")
    ts_us, evidence = event.get("ts_us"), event.get("evidence") or []
    if not isinstance(ts_us, int) or not isinstance(evidence, list):
        raise _no_event("ts_us and evidence")
    severity = _text(event, "severity")
    return Entry(
        id=_text(event, "id"),
        ts_us=ts_us,
        host=_text(event, "host"),
        kind=_text(event, "kind"),
        severity=severity if severity in SEVERITIES else SEVERITIES[-1],
        text=_text(event, "text"),
        service=_text(event, "service") if event.get("service") is not None else None,
        cause=_text(event, "cause") if event.get("cause") is not None else None,
        evidence=tuple(Evidence(_text(one, "source"), _text(one, "fact")) for one in map(_evidence, evidence)),
    )


def mapping(value: object, name: str) -> Mapping[str, Any]:
    """The value, which must be a JSON object; raises ServerFailing."""
    if not isinstance(value, dict):
        raise ServerFailing(
            f"the server's answer has no {name} where one belongs; is the address that of reflex-server?"
        )
    return value


def _evidence(value: object) -> Mapping[str, Any]:
    return mapping(value, "evidence")


def _text(event: Mapping[str, Any], key: str) -> str:
    value = event.get(key)
    if not isinstance(value, str):
        raise _no_event(key)
    return clean(value)


def _no_event(what: str) -> ServerFailing:
    return ServerFailing(f"the server sent an event whose {what} cannot be read; is reflexctl older than the server?")
