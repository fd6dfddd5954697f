"""Runs the engine of playbooks: what happens goes in, in the order of the timeline; what it decides is written down, then done.

The place in the timeline is written down together with what was decided there, so that after a kill -9 the brain goes on
behind the last event that it has answered: nothing is missed, and nothing is answered twice.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from agent.wire import Command, Scalar, event_to_json
from playbooks import (
    Answer,
    Entry,
    Happened,
    Input,
    Known,
    Measured,
    Members,
    Serve,
    State,
    Tick,
    changes,
    state_of,
    step,
    unfinished,
)
from playbooks.model import MINUTE_US, OnSample, acts_of
from server.commands import CommandHub
from server.errors import ApiError, StoreError
from server.filters import EventFilter
from server.hosts import Hosts
from server.own_acts import OwnActs, refused
from server.playbook_files import Shelf
from server.recorder import Recorder
from server.state import OutboxRow, PartRow
from server.state import State as Rows
from server.store.events import EventTable
from server.stored import StoredEvent, StoredSample, rfc3339

MOST_WAITING = 20_000
"""Inputs in memory. With more, events are read from the store again, and samples are lost."""

AT_ONCE = 256
PAGE = 1_000
BUSY_TICK_S, IDLE_TICK_S = 0.5, 5.0
SAVE_PLACE_EVERY_S = 5.0
REFRESH_EVERY_S = 2.0
RETRY_S = 1.0
LATE_SAMPLE_US = 2 * MINUTE_US
_PLACE = ("place", "arrival")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Given:
    """An input that waits. `arrival` is an event's place in the timeline; `asks` hears what the input led to."""

    input: Input
    arrival: int = 0
    asks: asyncio.Future[tuple[Entry, ...]] | None = None


@dataclass(slots=True)
class _Outcome:
    """What one batch of inputs led to."""

    state: State
    commands: list[Command | Serve] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    asked: list[tuple[asyncio.Future[tuple[Entry, ...]], tuple[Entry, ...]]] = field(default_factory=list)

    def add(self, answer: Answer, given: _Given) -> None:
        """One more answer."""
        self.state = answer.state
        self.commands += answer.commands
        self.entries += answer.entries
        if given.asks is not None:
            self.asked.append((given.asks, answer.entries))


class Brain:
    """One engine for all hosts."""

    def __init__(
        self,
        rows: Rows,
        events: EventTable,
        recorder: Recorder,
        hub: CommandHub,
        hosts: Hosts,
        shelf: Shelf,
        own_acts: OwnActs,
    ) -> None:
        self._rows = rows
        self._events = events
        self._recorder = recorder
        self._hub = hub
        self._hosts = hosts
        self._own_acts = own_acts
        self.shelf = shelf
        self._state = State(secrets.token_hex(16))
        self._written: State | None = None
        self._place = 0
        self._place_written = 0
        self._place_s = 0.0
        self._refreshed_s = 0.0
        self._waiting: deque[_Given] = deque()
        self._woken = asyncio.Event()
        self._is_behind = False
        self._metrics: frozenset[str] = frozenset()
        self._known: dict[str, Mapping[str, Members]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_change: Callable[[], None] = lambda: None
        """Called when files, modes or the kill switch are different."""

    @property
    def state(self) -> State:
        """What the engine knows now."""
        return self._state

    def kinds(self) -> dict[str, dict[str, str]]:
        """The kind of each service, by host, as the hosts say."""
        found: dict[str, dict[str, str]] = {}
        for place, members in self._state.services.items():
            found.setdefault(place.host, {})[place.service] = members.kind
        return found

    def runs_of_hosts(self) -> list[dict[str, Any]]:
        """Runs that hosts have under way by themselves, as they said last."""
        found = []
        for host in self._hosts.by_name.values():
            for run in _of_status(host.status, "runs"):
                with suppress(KeyError, TypeError, ValueError, AttributeError):
                    found.append(
                        {
                            "id": str(run["id"]),
                            "playbook": str(run["playbook"]),
                            "host": host.name,
                            "service": run["service"] or None,
                            "phase": str(run["phase"]),
                            "begun": rfc3339(int(run["begun_us"])),
                            "acted": bool(run["acted"]),
                            "joined": int(run["joined"]),
                            "ran_on": "host",
                        }
                    )
        return found

    def uses_of_hosts(self) -> list[tuple[str, str, str, int]]:
        """Host, playbook, service and time of what hosts have done by themselves lately, as they said last."""
        found = []
        for host in self._hosts.by_name.values():
            for use in _of_status(host.status, "uses"):
                with suppress(TypeError, ValueError):
                    name, service, at_us = use
                    found.append((host.name, str(name), str(service), int(at_us)))
        return found

    # What comes in.

    def take(self, events: Sequence[StoredEvent]) -> None:
        """These events have just become visible, in this order."""
        if len(self._waiting) >= MOST_WAITING:
            self._is_behind = True
        if not self._is_behind:
            self._waiting.extend(_Given(Happened(one.host, one.event), one.arrival) for one in events)
        self._woken.set()

    def measured(self, samples: Sequence[StoredSample]) -> None:
        """These samples have come. Those that no playbook asks for, or that are old, are passed over."""
        if not self._metrics or len(self._waiting) >= MOST_WAITING:
            return
        oldest_us = _now_us() - LATE_SAMPLE_US
        for one in samples:
            sample = one.sample
            if sample.metric in self._metrics and sample.ts_us >= oldest_us:
                measured = Measured(one.host, sample.metric, sample.value, sample.service, sample.subject)
                self._waiting.append(_Given(measured))
                self._woken.set()

    def heard(self, host: str, status: Mapping[str, Any]) -> None:
        """What a host says of its services."""
        services = services_of(status)
        if services is not None and services != self._known.get(host):
            self._known[host] = services
            self._waiting.append(_Given(Known(host, services)))
            self._woken.set()

    async def ask(self, given: Input) -> tuple[Entry, ...]:
        """What an input of a person has led to, once that is written down."""
        asks: asyncio.Future[tuple[Entry, ...]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Given(given, asks=asks))
        self._woken.set()
        return await asks

    # The life of the brain.

    async def open(self) -> None:
        """Remembers, or begins with what comes from now on. Raises StoreError."""
        rows = [
            (row.part, row.key, orjson.loads(row.value or "null")) for row in await asyncio.to_thread(self._rows.brain)
        ]
        place = next((value for part, key, value in rows if (part, key) == _PLACE), None)
        if place is None:
            self._place = await self._events.last_arrival()
            await self._save([], force=True)
        else:
            self._place = self._place_written = place
            self._state = self._written = state_of(row for row in rows if row[:2] != _PLACE)
            self._is_behind = True
        if place is None:
            for host in self._hosts.by_name.values():
                self.heard(host.name, host.status)
        await self._refresh(time.monotonic())

    async def run(self) -> None:
        """Decides until cancelled."""
        for command in unfinished(self._state, _now_us()):
            await self._send(command)
        while True:
            await self._wait()
            try:
                await self._refresh(time.monotonic())
                if self._is_behind:
                    await self._catch_up()
                await self._decide(self._next_batch())
            except StoreError as error:
                self._is_behind = True
                log.error("playbooks stand still, because the timeline cannot be read: %s", error)
                await asyncio.sleep(RETRY_S)

    async def close(self) -> None:
        """Lets acts of the server end, and writes the place down."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=RETRY_S)
        with suppress(StoreError):
            await self._save([], force=True)

    async def _wait(self) -> None:
        tick_s = BUSY_TICK_S if self._state.runs else IDLE_TICK_S
        if not self._waiting and not self._is_behind:
            with suppress(TimeoutError):
                async with asyncio.timeout(tick_s):
                    await self._woken.wait()
        self._woken.clear()

    async def _refresh(self, now_s: float) -> None:
        if now_s - self._refreshed_s < REFRESH_EVERY_S:
            return
        self._refreshed_s = now_s
        if await asyncio.to_thread(self.shelf.refresh):
            self._metrics = frozenset(
                one.metric for book in self.shelf.playbooks.values() for one in book.on if isinstance(one, OnSample)
            )
            self.on_change()

    async def _catch_up(self) -> None:
        """Reads what the memory had no room for, or what came while no brain was there."""
        self._is_behind = False
        while True:
            found = await self._events.since(EventFilter(), arrival=self._place, limit=PAGE)
            for begin in range(0, len(found), AT_ONCE):
                batch = found[begin : begin + AT_ONCE]
                await self._decide([_Given(Happened(one.host, one.event), one.arrival) for one in batch])
            if len(found) < PAGE:
                return

    def _next_batch(self) -> list[_Given]:
        batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
        return batch or [_Given(Tick())]

    async def _decide(self, batch: Sequence[_Given]) -> None:
        """Answers a batch; as often as it takes until what follows is written down."""
        before = self._state
        while True:
            outcome, place = self._answers(batch)
            try:
                await self._save(outcome.entries, state=outcome.state, place=place)
            except StoreError as error:
                log.error("playbooks stand still, because what they decide cannot be written down: %s", error)
                await asyncio.sleep(RETRY_S)
                continue
            break
        self._hub.forget(before.runs.keys() - self._state.runs.keys())
        if (before.killed, before.modes) != (self._state.killed, self._state.modes):
            self.on_change()
        for asks, entries in outcome.asked:
            if not asks.done():
                asks.set_result(entries)
        for command in outcome.commands:
            await self._send(command)
        if outcome.entries:
            self._spawn(self._tell(outcome.entries))

    def _answers(self, batch: Sequence[_Given]) -> tuple[_Outcome, int]:
        outcome, place = _Outcome(self._state), self._place
        books = self.shelf.playbooks
        for given in batch:
            if given.arrival and given.arrival <= place:
                continue
            outcome.add(step(outcome.state, books, given.input, _now_us()), given)
            if (left := _left_by_host(given.input)) is not None:
                if refusal := self._refusal(left, outcome.state):
                    outcome.entries.append(refusal)
                else:
                    outcome.commands.append(left)
            place = max(place, given.arrival)
        return outcome, place

    def _refusal(self, left: Serve, state: State) -> Entry | None:
        """A host may have people told. What moves an app is done for it only if a playbook that it was lent asks for that."""
        books = (self.shelf.playbooks.get(name) for name in state.lent.get(left.host, ()))
        steps = (step for book in books if book is not None for step in (*book.steps, *book.otherwise))
        if left.action == "notify" or any(act.action == left.action for step in steps for act in acts_of(step)):
            return None
        return Entry(left.host, refused(left, f"no playbook that is lent to {left.host} asks for it"))

    async def _save(
        self, entries: Sequence[Entry], *, state: State | None = None, place: int | None = None, force: bool = False
    ) -> None:
        """Writes down what differs. A place at which nothing was decided is written down now and then only."""
        state, place = state or self._state, self._place if place is None else place
        rows = changes(self._written, state) if self._written is not state else []
        now_s = time.monotonic()
        is_due = force or now_s - self._place_s >= SAVE_PLACE_EVERY_S
        if rows or entries or (is_due and place != self._place_written):
            written = [PartRow(row.part, row.key, None if row.value is None else _text(row.value)) for row in rows]
            written.append(PartRow(*_PLACE, str(place)))
            outbox = [OutboxRow(one.event.id, one.host, _text(event_to_json(one.event))) for one in entries]
            await asyncio.to_thread(self._rows.save_brain, written, outbox)
            self._place_written, self._place_s = place, now_s
            self._written = state
        self._state, self._place = state, place

    # What goes out.

    async def _send(self, command: Command | Serve) -> None:
        if isinstance(command, Serve):
            self._spawn(self._serve(command))
            return
        try:
            await self._hub.send(command.host, command)
        except ApiError as error:
            log.error("%s for %s was not sent: %s", command.action, command.host, error.message)

    async def _serve(self, serve: Serve) -> None:
        outcome = await self._own_acts.carry_out(serve)
        await self._tell([Entry(serve.host, outcome)])

    async def _tell(self, entries: Sequence[Entry]) -> None:
        """What fails here is in the outbox, which somebody else empties."""
        ids = [one.event.id for one in entries]
        try:
            await self._recorder.record([StoredEvent(one.host, one.event) for one in entries])
            await asyncio.to_thread(self._rows.clear_outbox, ids)
        except StoreError as error:
            log.error("%d events of playbooks are not stored yet: %s", len(ids), error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def services_of(status: Mapping[str, Any]) -> Mapping[str, Members] | None:
    """The services that a status names; None where it says nothing of services that can be understood."""
    try:
        found: dict[str, Members] = {}
        for one in status["services"]:
            workers = {int(worker["pid"]): int(worker["start_ticks"]) for worker in one["workers"]}
            found[str(one["name"])] = Members(str(one["kind"]), workers)
        return found
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _of_status(status: Mapping[str, Any], key: str) -> list[Any]:
    """A list of what a host says of its own playbooks; whatever else it says is none."""
    said = status.get("playbooks")
    value = said.get(key) if isinstance(said, dict) else None
    return value if isinstance(value, list) else []


def _left_by_host(given: Input) -> Serve | None:
    """An act that a host's own engine has left to the server."""
    if not isinstance(given, Happened) or given.event.attrs.get("left_to") != "server":
        return None
    event, attrs = given.event, given.event.attrs
    params: dict[str, Scalar] = {"text": str(attrs.get("text", ""))}
    params |= {"channel": str(attrs["channel"])} if attrs.get("channel") else {}
    run, step_id, action = str(attrs.get("run", "")), str(attrs.get("step", "")), str(attrs.get("action", ""))
    return Serve(str(attrs.get("command", "")), run, step_id, action, params, given.host, event.service, event.id)


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _now_us() -> int:
    return time.time_ns() // 1000
