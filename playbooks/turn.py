"""One turn of the engine: the state while it changes, and what is told and sent on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent.wire import Command, Event, Evidence, Scalar, Severity, event_to_json, serial_id
from playbooks.inputs import Answer, Entry, Serve
from playbooks.lending import charged
from playbooks.model import Mode, Playbook
from playbooks.state import MOST_TOLD, SEEN_CHUNK, SEEN_CHUNKS, Members, Place, Run, State, Use


class Turn:
    """Mutable for the length of one input; `answer` freezes it."""

    def __init__(self, state: State, playbooks: Mapping[str, Playbook], now_us: int) -> None:
        self.now_us = now_us
        self.playbooks = playbooks
        self.killed = state.killed
        self.modes: dict[str, Mode] = dict(state.modes)
        self.runs: dict[str, Run] = dict(state.runs)
        self.uses: list[Use] = list(state.uses)
        self._seen, self._seen_lately = state.seen, state.seen_lately
        self.told: dict[str, int] = dict(state.told)
        self.holding: dict[str, tuple[int, int]] = dict(state.holding)
        self.counts: dict[str, tuple[int, ...]] = dict(state.counts)
        self.services: dict[Place, Members] = dict(state.services)
        self.lent: dict[str, Mapping[str, int]] = dict(state.lent)
        self.charges = state.charges
        self.others: dict[Place, tuple[str, int]] = dict(state.others)
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
            seen=self._seen,
            seen_lately=self._seen_lately,
            told=self.told,
            holding=self.holding,
            counts=self.counts,
            services=self.services,
            lent=self.lent,
            charges=self.charges,
            others=self.others,
        )
        return Answer(state, tuple(self._commands), tuple(self._entries))

    def new_id(self) -> str:
        """An id that no other turn of this engine makes."""
        self._serial += 1
        return serial_id(self._state.seed, self._serial, self.now_us)

    def is_new(self, event_id: str) -> bool:
        """Whether an event comes for the first time, as far as that is known; from now on it has come."""
        if event_id in self._seen_lately or any(event_id in chunk for chunk in self._seen):
            return False
        self._seen_lately = self._seen_lately | {event_id}
        if len(self._seen_lately) >= SEEN_CHUNK:
            self._seen = (*self._seen, self._seen_lately)[-SEEN_CHUNKS:]
            self._seen_lately = frozenset()
        return True

    def mode(self, playbook: Playbook) -> Mode:
        """The mode that it has now."""
        return self.modes.get(playbook.name, playbook.mode)

    @property
    def is_on_host(self) -> bool:
        """Whether this engine is that of one host."""
        return bool(self._state.ran_on)

    def is_lent(self, playbook: str, host: str) -> bool:
        """Whether the host runs it by itself."""
        return playbook in self.lent.get(host, ())

    def fleet_limit(self, playbook: Playbook) -> int:
        """What this engine may use of the fleet's limit: what hosts were lent is theirs."""
        return playbook.limits.fleet_per_hour - charged(self.charges, playbook.name, self.now_us)

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
        name = playbook if isinstance(playbook, str) else playbook.name
        known = self.playbooks.get(name)
        version = f"{name}, version {known.digest[:12]}" if known is not None else name
        event = Event(
            id=event_id or self.new_id(),
            ts_us=self.now_us,
            kind=kind,
            severity=severity,
            text=text,
            service=place.service or None,
            cause=cause,
            evidence=(Evidence("playbook", version), *evidence),
            attrs={"playbook": name, **({"ran_on": "host"} if self._state.ran_on else {}), **(attrs or {})},
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
        return {**about_event(run.event, run.place, self.services), **about_run(run)}


def about_event(event: Mapping[str, Any], place: Place, services: Mapping[Place, Members]) -> dict[str, Any]:
    """What expressions may ask for where there is an event. Members that are not known are left out."""
    present = {name: value for name, value in event.items() if value is not None}
    worker = present.get("worker", {})
    service: dict[str, Any] = {"name": place.service, "host": place.host}
    members = services.get(place)
    if members is not None:
        service["workers"] = len(members.workers)
        service |= {"kind": members.kind} if members.kind else {}
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
