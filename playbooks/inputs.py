"""What comes into the engine and what it answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from agent.wire import Command, Event, Scalar, WorkerRef
from playbooks.model import Mode
from playbooks.state import Members, Place, State, Use


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
class Known:
    """The services of a host, as it says: by name."""

    host: str
    services: Mapping[str, Members]


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


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody asks for a run, whatever its triggers and conditions say; its limits hold. `worker` is of the event."""

    playbook: str
    host: str
    service: str
    who: str
    worker: WorkerRef | None = None


@dataclass(frozen=True, slots=True)
class Lend:
    """These playbooks are to be lent to a host until then; `hosts` is how many hosts there are.

    The server runs none of them there from now on. What the host was lent before stays lent until it says otherwise.
    """

    host: str
    names: frozenset[str]
    hosts: int
    until_us: int


@dataclass(frozen=True, slots=True)
class Holds:
    """A host says which playbooks it runs by itself; `uses` are those of what it has given back."""

    host: str
    names: frozenset[str]
    uses: tuple[Use, ...] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """Somebody else is at work on a target, until then at most."""

    place: Place
    who: str
    until_us: int


Input: TypeAlias = Asked | Happened | Measured | Known | Tick | Decided | Switched | Armed | Lend | Holds | Taken


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
