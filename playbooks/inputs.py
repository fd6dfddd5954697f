"""What comes into the engine and what it answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from agent.wire import Command, Event, Scalar
from playbooks.model import Mode
from playbooks.state import State


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of a host; the outcomes of commands are events, too."""

    host: str
    event: Event


@dataclass(frozen=True, slots=True)
class Measured:
    """One number of one subject of a host."""

    host: str
    metric: str
    value: float
    service: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers that a service has, as its host says: pid to start_ticks."""

    host: str
    service: str
    workers: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; to be said at least once a second while there are runs."""


@dataclass(frozen=True, slots=True)
class Decided:
    """Somebody has approved a run that waited, or rejected it."""

    run: str
    approves: bool
    who: str


@dataclass(frozen=True, slots=True)
class Switched:
    """Somebody has thrown the kill switch, or put it back (`kills` false)."""

    kills: bool
    who: str


@dataclass(frozen=True, slots=True)
class Armed:
    """Somebody has given a playbook another mode than its file says; None: the file's again."""

    playbook: str
    mode: Mode | None
    who: str


Input: TypeAlias = Happened | Measured | Workers | Tick | Decided | Switched | Armed


@dataclass(frozen=True, slots=True)
class Entry:
    """An event that the engine tells, and the host that it is about."""

    host: str
    event: Event


@dataclass(frozen=True, slots=True)
class Serve:
    """An act that the server does itself. Its outcome comes back as an event `action.*` with `attrs.command` = `id`."""

    id: str
    run: str
    step: str
    action: str
    params: Mapping[str, Scalar]
    host: str
    service: str | None
    cause: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The state after an input, what is to be done, and what is to be told. The state is written down first."""

    state: State
    commands: tuple[Command | Serve, ...] = ()
    entries: tuple[Entry, ...] = ()
