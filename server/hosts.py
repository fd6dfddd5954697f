"""What the server knows of each host: when its agent was last heard, what it said, whether it is silent."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from server.state import HostRow
from server.stored import StoredEvent
from server.timeline import json_answer


@dataclass(slots=True)
class Host:
    """One host. `heard_s` is on the monotonic clock; None until it is heard by this process."""

    name: str
    last_seen_us: int
    status: Mapping[str, Any] = field(default_factory=dict)
    heard_s: float | None = None
    silent_event: str | None = None
    stopped_event: str | None = None
    silence_us: int | None = None
    """Length of a silence that has just ended and that nobody has told of yet."""

    def row(self) -> HostRow:
        """The host as it is kept over a restart."""
        status = orjson.dumps(self.status).decode()
        return HostRow(self.name, self.last_seen_us, status, self.silent_event, self.stopped_event)


class Hosts:
    """All hosts that were ever heard, in memory. Their number is bounded by the host keys that were made."""

    def __init__(self, rows: Iterable[HostRow]) -> None:
        self.by_name = {
            row.name: Host(
                row.name,
                row.last_seen_us,
                orjson.loads(row.status),
                silent_event=row.silent_event,
                stopped_event=row.stopped_event,
            )
            for row in rows
        }
        self.unsaved: set[str] = set()
        self.changes = 0
        """Rises whenever a state or status changes; not for a mere sign of life."""

    def heard(self, name: str, status: Mapping[str, Any], events: Sequence[StoredEvent]) -> bool:
        """The agent of `name` sent a batch. An empty status keeps the one before. True if it was never heard before."""
        now_us = time.time_ns() // 1000
        host = self.by_name.get(name)
        is_new = host is None
        if host is None:
            host = self.by_name[name] = Host(name, now_us)
            self.changes += 1
        if host.silent_event is not None and host.silence_us is None:
            host.silence_us = max(0, now_us - host.last_seen_us)
        host.last_seen_us = now_us
        host.heard_s = time.monotonic()
        last = max(events, key=lambda stored: stored.event.ts_us, default=None)
        host.stopped_event = last.event.id if last is not None and last.event.kind == "agent.stopped" else None
        if status and status != host.status:
            host.status = status
            self.changes += 1
        self.unsaved.add(name)
        return is_new

    def take_unsaved(self) -> list[HostRow]:
        """Rows that differ from what the state holds; they count as saved from now on."""
        rows = [self.by_name[name].row() for name in sorted(self.unsaved)]
        self.unsaved.clear()
        return rows

    def to_json(self) -> dict[str, Any]:
        """The answer of /v1/hosts."""
        return {
            "hosts": [
                {
                    "name": host.name,
                    "state": "live" if host.silent_event is None else "silent",
                    "last_seen_us": host.last_seen_us,
                    "status": host.status,
                }
                for host in sorted(self.by_name.values(), key=lambda host: host.name)
            ]
        }

    async def answer(self, _request: web.Request) -> web.Response:
        """GET /v1/hosts."""
        return json_answer(self.to_json())
