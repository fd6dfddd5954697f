"""Tells when an agent falls silent and when it is heard again, each once, also over restarts of the server."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time

import orjson

from agent.wire import Event, Evidence, event_from_json, event_to_json, uuid7
from server.errors import StoreError
from server.hosts import Host, Hosts
from server.recorder import Recorder
from server.state import HOST_KEYS, OutboxRow, State
from server.stored import StoredEvent, rfc3339

SAVE_EVERY_S = 5.0

log = logging.getLogger(__name__)


class Presence:
    """Watches the hosts. Its events go through an outbox in the state, so that a crash neither loses nor doubles one."""

    def __init__(self, state: State, hosts: Hosts, recorder: Recorder, *, silent_after_s: float) -> None:
        self._state = state
        self._hosts = hosts
        self._recorder = recorder
        self._silent_after_s = silent_after_s
        self._tick_s = min(1.0, silent_after_s / 5)
        self._listening_since_s = time.monotonic()
        self._saved_s = time.monotonic()
        self._told: list[StoredEvent] = []

    async def run(self) -> None:
        """Until cancelled: looks at every host once a tick."""
        looked_s = time.monotonic()
        while True:
            await asyncio.sleep(self._tick_s)
            now_s = time.monotonic()
            if now_s - looked_s > self._silent_after_s / 2:
                # The server itself stood still (a paused machine, a stopped process): nobody could be heard.
                self._listening_since_s = now_s
            looked_s = now_s
            try:
                await self.look(now_s)
            except StoreError as error:
                log.error("an event about a silent agent is not stored yet and stays in the outbox: %s", error)

    async def look(self, now_s: float) -> None:
        """Tells what has changed until `now_s` (monotonic). Raises StoreError; the next look tries again."""
        for host in list(self._hosts.by_name.values()):
            if host.silent_event is not None and host.silence_us is not None:
                self._tell(_back(host))
            elif host.silent_event is None and self._is_silent(host, now_s) and await self._is_expected(host.name):
                self._tell(_silent(host, self._silent_after_s))
        if self._told or (self._hosts.unsaved and now_s - self._saved_s >= SAVE_EVERY_S):
            await self.save()
            self._saved_s = now_s
        await self._empty_outbox()

    async def save(self) -> None:
        """Writes the hosts that changed, and the events that tell of it. Raises StoreError; then all stays to be done."""
        told, rows = self._told, self._hosts.take_unsaved()
        self._told = []
        try:
            await asyncio.to_thread(self._state.save_hosts, rows, [_outbox_row(stored) for stored in told])
        except StoreError:
            self._told = [*told, *self._told]
            self._hosts.unsaved.update(row.name for row in rows)
            raise

    def _tell(self, stored: StoredEvent) -> None:
        self._told.append(stored)
        self._hosts.unsaved.add(stored.host)
        self._hosts.changes += 1

    def _is_silent(self, host: Host, now_s: float) -> bool:
        heard_s = max(self._listening_since_s, host.heard_s or 0.0)
        return now_s - heard_s > self._silent_after_s

    async def _is_expected(self, name: str) -> bool:
        """A host whose keys are all revoked cannot be heard, so its silence is no news."""
        keys = await asyncio.to_thread(self._state.keys, HOST_KEYS)
        return any(key.host == name and key.revoked_us is None for key in keys)

    async def _empty_outbox(self) -> None:
        """The recorder knows what is stored already, so that doing this twice does no harm."""
        rows = await asyncio.to_thread(self._state.outbox)
        if rows:
            await self._recorder.record(
                [StoredEvent(row.host, event_from_json(orjson.loads(row.event))) for row in rows]
            )
            await asyncio.to_thread(self._state.clear_outbox, [row.id for row in rows])


def _silent(host: Host, silent_after_s: float) -> StoredEvent:
    planned = host.stopped_event is not None
    why = "it said that it stops" if planned else "the host, its network or the agent may be down"
    now_us = time.time_ns() // 1000
    event = Event(
        id=uuid7(now_us, secrets.randbits(62)),
        ts_us=now_us,
        kind="agent.silent",
        severity="info" if planned else "warning",
        text=(
            f"The agent of {host.name} has not been heard for {(now_us - host.last_seen_us) / 1e6:.0f} s: {why}. "
            "What happens there is not seen."
        ),
        evidence=(Evidence("ingest", f"its last batch came at {rfc3339(host.last_seen_us)}"),),
        cause=host.stopped_event,
        attrs={"last_seen_us": host.last_seen_us, "limit_s": silent_after_s},
    )
    host.silent_event = event.id
    host.silence_us = None
    return StoredEvent(host.name, event)


def _back(host: Host) -> StoredEvent:
    now_us, silence_us = time.time_ns() // 1000, host.silence_us or 0
    event = Event(
        id=uuid7(now_us, secrets.randbits(62)),
        ts_us=now_us,
        kind="agent.back",
        severity="info",
        text=f"The agent of {host.name} is heard again after {silence_us / 1e6:.0f} s; what it saw meanwhile follows.",
        cause=host.silent_event,
        attrs={"silence_us": silence_us},
    )
    host.silent_event = None
    host.silence_us = None
    return StoredEvent(host.name, event)


def _outbox_row(stored: StoredEvent) -> OutboxRow:
    return OutboxRow(stored.event.id, stored.host, orjson.dumps(event_to_json(stored.event)).decode())
