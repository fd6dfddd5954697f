"""Playbooks that the server has lent to this host: they run here by themselves, whether the server is in reach or not.

The engine is the server's own, with the same limits. What it knows is written down before it acts; its events go the way
of all events, so that the timeline has the whole history once the server is in reach again. The engine and what it
stands on are loaded with the first playbook that is lent: a host without one pays nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent.clock import Clock
from agent.reflex_file import Kept, load, save
from agent.reporter import Reporter
from agent.service import Service
from agent.wire import (
    Books,
    Command,
    Event,
    Holding,
    Severity,
    WireError,
    are_signed,
    books_from_json,
    holding_to_json,
)

if TYPE_CHECKING:
    from playbooks import Input, Members, Serve, State
    from playbooks.model import Playbook

FILE = "playbooks.json"
MOST_WAITING = 5_000
"""Events in memory. With more, the oldest are given up: nothing is repaired by what is long past."""

BUSY_TICK_S, IDLE_TICK_S = 0.5, 30.0
AT_ONCE = 256
_HEARD = ("worker.", "service.", "action.")

log = logging.getLogger(__name__)


class Hands(Protocol):
    """Who carries out what is decided here."""

    def own(self, command: Command) -> None:
        """Carries a command of this host's own out, within the policy, at most once."""

    def fail(self, command: Command, why: str) -> None:
        """Tells that a command was not done."""


class LoanRefused(Exception):
    """What came is not taken: `reason` is one of those of docs/actions.md, the text a sentence's end."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Reflexes:
    """The engine of this host."""

    def __init__(
        self,
        host: str,
        host_key: str,
        state_dir: Path,
        services: Mapping[int, Service],
        reporter: Reporter,
        clock: Clock,
        hands: Hands,
    ) -> None:
        """`services` are those of the rollup."""
        self._host = host
        self._key_hash = hashlib.sha256(host_key.encode()).hexdigest()
        self._file = state_dir / FILE
        self._services = services
        self._reporter = reporter
        self._clock = clock
        self._hands = hands
        self._waiting: deque[Input] = deque(maxlen=MOST_WAITING)
        self._woken = asyncio.Event()
        self._state: State | None = None
        self._written: tuple[object, ...] = ()
        self._books: Books | None = None
        self._playbooks: Mapping[str, Playbook] = {}
        self._kinds: frozenset[str] = frozenset()
        self._trouble: str | None = None
        self._kept = load(self._file)

    @property
    def file_trouble(self) -> str | None:
        """Why nothing of what was lent before is known any more; None where all is well."""
        return self._kept.trouble

    # What comes in.

    def take(self, value: object, signature: object) -> dict[str, Any]:
        """What the server lends from now on; what is held then. Raises LoanRefused."""
        try:
            books = books_from_json(value)
        except WireError as error:
            raise LoanRefused("malformed", f"what is lent cannot be read: {error}") from None
        if not isinstance(signature, str) or not are_signed(books, signature, self._key_hash):
            raise LoanRefused("forged", "the signature of what is lent is wrong")
        if books.host != self._host:
            raise LoanRefused("foreign", f"it is lent to the host {books.host}, and this is {self._host}")
        if books.serial <= self._kept.serial:
            raise LoanRefused("replayed", "what is lent was taken before, or newer things were")
        if books.until_us <= self._clock.now_us():
            raise LoanRefused("expired", "what is lent was to be given back by now, by the clock of this host")
        self._hold(books)
        return self.holding()

    def holding(self) -> dict[str, Any]:
        """What this host runs by itself, as it is said to the server."""
        uses = () if self._state is None else self._state.uses
        told = tuple((use.playbook, use.place.service, use.at_us) for use in uses if not use.is_shadow)
        return holding_to_json(Holding(self._kept.serial, frozenset(self._playbooks), told))

    def notice(self, event: Event) -> None:
        """Something happened on this host."""
        if self._state is not None and (event.kind in self._kinds or event.kind.startswith(_HEARD)):
            from playbooks import Happened

            self._waiting.append(Happened(self._host, event))
            self._woken.set()

    def taken(self, command: Command, *, is_over: bool) -> None:
        """Somebody else acts upon a service, or has: nothing begins here meanwhile."""
        if self._state is not None and command.run not in self._state.runs:
            from playbooks import Place, Taken

            place = Place(self._host, command.service or "")
            self._waiting.append(
                Taken(place, f"{command.action} of somebody else", 0 if is_over else command.expires_us)
            )
            self._woken.set()

    def holder(self, command: Command) -> str | None:
        """The playbook whose run is at work on what a command of somebody else is about."""
        runs = () if self._state is None else self._state.runs.values()
        return next(
            (run.playbook for run in runs if run.place.service == (command.service or "") and run.id != command.run),
            None,
        )

    def status(self) -> dict[str, Any]:
        """What the server and `reflexd status` are told."""
        runs = [] if self._state is None else [*self._state.runs.values()]
        return {
            "held": sorted(self._playbooks),
            "until_us": self._books.until_us if self._books is not None else None,
            "runs": [
                {"id": run.id, "playbook": run.playbook, "service": run.place.service, "phase": run.phase,
                 "begun_us": run.begun_us, "acted": run.acted, "joined": run.joined}
                for run in runs
            ],
            "uses": self.holding()["uses"],
        }  # fmt: skip

    # The life of the engine.

    def open(self) -> None:
        """Goes on with what was lent before a restart; tells again what may not have been told."""
        if self._kept.books is not None and self._kept.books.until_us > self._clock.now_us():
            try:
                self._hold(self._kept.books, again=True)
            except (KeyError, TypeError, ValueError) as error:
                self._tell(f"{self._file} is damaged ({error!r})", "warning")
        self._reporter.events(self._kept.outbox)
        if self._kept.trouble is not None:
            self._tell(f"{self._kept.trouble}", "warning")

    async def reflex_beat(self) -> None:
        """Decides, for ever."""
        if self._state is not None:
            from playbooks import Known, unfinished

            self._waiting.append(Known(self._host, self._members()))
            for command in unfinished(self._state, self._clock.now_us()):
                self._hands.own(command)
        while True:
            await self._wait()
            if self._state is None:
                continue
            self._end_lease()
            from playbooks import Known, Tick

            batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            await self._decide(batch or [Tick(), Known(self._host, self._members())])
            await asyncio.sleep(0)

    async def _wait(self) -> None:
        is_busy = self._state is not None and self._state.runs
        if not self._waiting:
            with suppress(TimeoutError):
                async with asyncio.timeout(BUSY_TICK_S if is_busy else IDLE_TICK_S):
                    await self._woken.wait()
        self._woken.clear()

    async def _decide(self, batch: list[Input]) -> None:
        from playbooks import Serve, step

        assert self._state is not None
        state, commands, entries = self._state, list[Command](), list[Event]()
        serves: list[Serve] = []
        for given in batch:
            answer = step(state, self._playbooks, given, self._clock.now_us())
            state = answer.state
            entries += [entry.event for entry in answer.entries]
            commands += [one for one in answer.commands if isinstance(one, Command)]
            serves += [one for one in answer.commands if isinstance(one, Serve)]
        self._state = state
        left = [_left_to_server(serve, self._clock.now_us()) for serve in serves]
        if not await self._write_down([*entries, *left]):
            self._undo(commands)
            commands = []
        self._reporter.events((*entries, *left))
        for command in commands:
            self._hands.own(command)

    def _undo(self, commands: list[Command]) -> None:
        """What could not be written down is not done: its outcome says so."""
        for command in commands:
            self._hands.fail(command, "not done, because what this host decides cannot be written down")

    async def _write_down(self, outbox: list[Event]) -> bool:
        """Whether it is on the disk. Most of what happens changes nothing that a restart needs."""
        assert self._state is not None
        state = self._state
        durable = (state.runs, state.uses, state.killed, state.others, self._kept.serial)
        if not outbox and durable == self._written:
            return True
        kept = Kept(self._books, _rows(state), tuple(outbox), self._kept.serial)
        try:
            await asyncio.to_thread(save, self._file, kept)
        except OSError as error:
            self._say(f"{self._file} cannot be written ({error.strerror}), so playbooks on this host do not act")
            return False
        self._say(None)
        self._written = durable
        return True

    def _hold(self, books: Books, *, again: bool = False) -> None:
        """From now on these run here. The engine goes on with what it knows."""
        self._kept = replace(self._kept, serial=books.serial)
        if not books.books and self._state is None:
            self._books = books
            save(self._file, Kept(books, (), (), books.serial))
            return
        from playbooks import Known, Place, State, Switched, Use, state_of
        from playbooks.model import OnEvent

        if self._state is None:
            kept = [tuple(row) for row in self._kept.rows]
            self._state = state_of(kept) if kept else State(f"{self._host}/{books.serial}", ran_on=self._host)
        before, self._playbooks = frozenset(self._playbooks), _read(books)
        self._books = books
        known = set(self._state.uses)
        uses = tuple(Use(name, Place(self._host, service), at_us) for name, service, at_us in books.uses)
        self._state = replace(self._state, uses=(*self._state.uses, *(use for use in uses if use not in known)))
        verified = {one.kind for book in self._playbooks.values() if book.verify for one in book.verify.expects}
        self._kinds = frozenset(
            {one.kind for book in self._playbooks.values() for one in book.on if isinstance(one, OnEvent)} | verified
        )
        self._waiting.append(Known(self._host, self._members()))
        if bool(self._state.killed) != bool(books.killed):
            self._waiting.append(Switched(bool(books.killed), books.killed))
        if not again:
            save(self._file, Kept(books, _rows(self._state), (), books.serial))
        if before != frozenset(self._playbooks):
            held = ", ".join(sorted(self._playbooks)) or "no playbook"
            self._tell(f"it runs {held} by itself from now on, whether the server is in reach or not", "info")
        self._woken.set()

    def _members(self) -> Mapping[str, Members]:
        from playbooks import Members

        living = [service for service in self._services.values() if service.stopped_event is None]
        return {
            one.name: Members(one.kind, {worker.ref.pid: worker.ref.start_ticks for worker in one.workers.values()})
            for one in living
        }

    def _end_lease(self) -> None:
        if self._books is not None and self._playbooks and self._clock.now_us() >= self._books.until_us:
            self._playbooks = {}
            self._tell("it runs no playbooks by itself any more, because the server has not lent them anew", "warning")

    def _say(self, trouble: str | None) -> None:
        """Tells when trouble begins or changes."""
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble is not None:
                self._tell(trouble, "critical")

    def _tell(self, text: str, severity: Severity) -> None:
        held = ", ".join(sorted(self._playbooks))
        self._reporter.about_agent(
            "agent.playbooks", f"The agent on {self._host}: {text}.", severity=severity, attrs={"held": held}
        )


def _read(books: Books) -> Mapping[str, Playbook]:
    """The playbooks, each with its share as the limit. One that this agent cannot read is not held, and so not run here."""
    from playbooks import PlaybookError, read_playbook

    found: dict[str, Playbook] = {}
    for book in books.books:
        try:
            playbook = read_playbook(book.text, book.name)
        except PlaybookError as error:
            log.error("a playbook that the server lends cannot be read: %s", error)
            continue
        limits = replace(playbook.limits, fleet_per_hour=book.share)
        found[playbook.name] = replace(playbook, mode="armed", limits=limits)
    return found


def _rows(state: State) -> tuple[tuple[str, str, Any], ...]:
    from playbooks import changes

    return tuple((row.part, row.key, row.value) for row in changes(None, state))


def _left_to_server(serve: Serve, now_us: int) -> Event:
    """A host tells nobody: the server does when it hears of this."""
    from agent.ids import new_event_id

    text = str(serve.params.get("text", ""))
    where = f"{serve.service} ({serve.host})" if serve.service else serve.host
    attrs = {"command": serve.id, "run": serve.run, "step": serve.step, "action": serve.action, "left_to": "server"}
    return Event(
        id=new_event_id(now_us),
        ts_us=now_us,
        kind="action.done",
        severity="info",
        text=f"{serve.action} for {where} is left to the server, which tells whom it can: {text}"[:2000],
        service=serve.service,
        cause=serve.cause,
        attrs={**attrs, "channel": str(serve.params.get("channel", "")), "text": text, "took_ms": 0},
    )
