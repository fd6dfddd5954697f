"""What a kind of worker has to say of itself; each file of this package with a `KIND` is one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from agent.deaths import DeathRules
from agent.managers import Manager
from agent.procfs import Listener, OpenFile
from agent.workers.settings import ServiceSettings


@dataclass(frozen=True, slots=True)
class Command:
    """What a command line says of the service that it starts.

    `name` is what the program was told to call itself, `app` goes into a name where there is none. `one_shot` is for
    commands that check, print or talk to others, and end. `serves_itself`: no workers are to be expected, the process
    does the work. `broker_urls` hold credentials. `supervisor` is the program that the environment names. `is_second`: another
    master has begun it.
    """

    name: str | None = None
    app: str | None = None
    settings: ServiceSettings = field(default_factory=ServiceSettings)
    one_shot: bool = False
    serves_itself: bool = False
    broker_urls: tuple[str, ...] = field(default=(), repr=False)
    supervisor: Manager | None = None
    is_second: bool = False


class Child(Enum):
    """What a child of a master is."""

    WORKER = "worker"
    HELPER = "helper"
    UNKNOWN = "unknown"
    """It cannot be told yet; it is looked at again."""


class Look(Protocol):
    """What a kind may look at: a part of ProcFs. All of it answers nothing for a process that is gone."""

    def command(self, pid: int) -> tuple[str, ...]: ...

    def open_files(self, pid: int, name_part: str) -> tuple[OpenFile, ...]: ...

    def awaited(self, pid: int) -> frozenset[int]: ...

    def listening_inodes(self, pid: int) -> frozenset[int]: ...

    def listeners(self, pid: int) -> tuple[Listener, ...]: ...

    def sleeps_in(self, pid: int) -> str | None: ...


class Files(Protocol):
    """The files of a process as it sees them; relative paths begin at its working folder."""

    def has(self, path: str) -> bool: ...

    def text(self, path: str) -> str: ...


class Kind(Protocol):
    """One kind of worker. A module of this package is one: its functions are these, without `self`."""

    KIND: str
    """Its name in events."""

    SIGNS: Signs
    RULES: DeathRules

    def is_command(self, argv: Sequence[str]) -> bool:
        """Whether an argument vector, or a title in its place, starts a service of this kind, or is one of its processes."""
        ...

    def is_worker_title(self, argv: Sequence[str]) -> bool:
        """Whether a title names the process a worker or helper; a title that is absent says nothing."""
        ...

    def read_command(self, argv: Sequence[str], environment: Mapping[str, str], files: Files) -> Command:
        """What can be known of the service before it runs."""
        ...

    def is_up(self, look: Look, pid: int, children: Collection[int], command: Command) -> bool:
        """Whether a process whose command line is of this kind has become a service."""
        ...

    def child(self, look: Look, pid: int, master_argv: Sequence[str], settings: ServiceSettings) -> Child:
        """What a child of a master is."""
        ...

    def is_ready(self, look: Look, pid: int) -> bool | None:
        """Whether a worker can take work; None where its heartbeat says it."""
        ...

    def serves_clients(self, address: str) -> bool:
        """Whether a listener of the service is for its clients, and not for those who control it."""
        ...


@dataclass(frozen=True, slots=True)
class Signs:
    """What makes one sure, as the end of a sentence that begins with a pid: of a master, of a worker, of readiness.

    `forks_ready`: the master forks when all is loaded, so that a worker that was there before anybody looked is ready.
    """

    master: str
    worker: str
    ready: str
    ready_source: str = "procfs"
    forks_ready: bool = False
