"""One turn of the engine: the state while it changes, and what is told and sent on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent.wire import Command, Event, Evidence, Scalar, Severity, event_to_json, uuid7
from playbooks.inputs import Answer, Entry, Serve
from playbooks.model import Mode, Playbook
from playbooks.state import MOST_TOLD, Place, Run, State, Use


class Turn:
    """Mutable for the length of one input; `answer` freezes it."""

    def __init__(self, state: State, playbooks: Mapping[str, Playbook], now_us: int) -> None:
        self.now_us = now_us
        self.playbooks = playbooks
        self.killed = state.killed
        self.modes: dict[str, Mode] = dict(state.modes)
        self.runs: dict[str, Run] = dict(state.runs)
        self.uses: list[Use] = list(state.uses)
        self.seen: dict[str, None] = dict(state.seen)
        self.told: dict[str, int] = dict(state.told)
        self.holding: dict[str, tuple[int, int]] = dict(state.holding)
        self.workers: dict[Place, Mapping[int, int]] = dict(state.workers)
        self._state = state
        self._serial = state.serial
        self._commands: list[Command | Serve] = []
        self._entries: list[Entry] = []

    def answer(self) -> Answer:
        """What has become of the state, and what follows."""
        state = replace(
            self._state,
            serial=self._serial,
            killed=self.killed,
            modes=self.modes,
            runs=self.runs,
            uses=tuple(self.uses),
            seen=self.seen,
            told=self.told,
            holding=self.holding,
            workers=self.workers,
        )
        return Answer(state, tuple(self._commands), tuple(self._entries))

    def new_id(self) -> str:
        """An id that no other turn of this engine makes."""
        self._serial += 1
        digest = hashlib.blake2b(f"{self._state.seed}/{self._serial}".encode(), digest_size=8).digest()
        return uuid7(self.now_us, int.from_bytes(digest, "big"))

    def mode(self, playbook: Playbook) -> Mode:
        """The mode that it has now."""
        return self.modes.get(playbook.name, playbook.mode)

    def send(self, command: Command | Serve) -> None:
        """To be sent once the state is written down."""
        self._commands.append(command)

    def tell(
        self,
        kind: str,
        severity: Severity,
        text: str,
        place: Place,
        playbook: Playbook | str,
        *,
        cause: str | None,
        attrs: Mapping[str, Scalar] | None = None,
        evidence: tuple[Evidence, ...] = (),
        event_id: str | None = None,
    ) -> str:
        """Tells an event; its id. `playbook` may be the name of one that is not there any more."""
        event = Event(
            id=event_id or self.new_id(),
            ts_us=self.now_us,
            kind=kind,
            severity=severity,
            text=text,
            service=place.service or None,
            cause=cause,
            evidence=evidence,
            attrs={"playbook": playbook if isinstance(playbook, str) else playbook.name, **(attrs or {})},
        )
        self._entries.append(Entry(place.host, event))
        return event.id

    def may_tell(self, key: str, apart_us: int) -> bool:
        """Whether something that may be true again and again is to be told now."""
        before = self.told.get(key)
        if before is not None and self.now_us - before < apart_us:
            return False
        self.told.pop(key, None)
        self.told[key] = self.now_us
        while len(self.told) > MOST_TOLD:
            del self.told[next(iter(self.told))]
        return True

    def keep(self, run: Run) -> Run:
        """Remembers a run as it is now."""
        self.runs[run.id] = run
        return run

    def known(self, run: Run) -> dict[str, Any]:
        """What expressions of a run may ask for."""
        return {**about_event(run.event, run.place, self.workers), **about_run(run)}


def about_event(event: Mapping[str, Any], place: Place, workers: Mapping[Place, Mapping[int, int]]) -> dict[str, Any]:
    """What expressions may ask for where there is an event. Members that are not known are left out."""
    present = {name: value for name, value in event.items() if value is not None}
    worker = present.get("worker", {})
    service: dict[str, Any] = {"name": place.service, "host": place.host}
    if place in workers:
        service["workers"] = len(workers[place])
    return {"event": present, "worker": worker, "service": service}


def about_run(run: Run) -> dict[str, Any]:
    """What expressions may ask for of a run."""
    return {
        "run": {"id": run.id, "joined": run.joined, "acted": run.acted, "trouble": run.trouble},
        "outcome": dict(run.outcome),
    }


def plain(event: Event) -> dict[str, Any]:
    """An event as JSON."""
    return event_to_json(event)
