"""The steps that acts are made of: values, each of which says itself in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from agent.wire import Scalar, Target


@dataclass(frozen=True, slots=True)
class SendSignal:
    """A signal by pidfd, after start time and place in the service were checked."""

    target: Target
    signal: str
    why: str

    @property
    def words(self) -> str:
        """The step as a part of a sentence."""
        return f"send SIG{self.signal} to pid {self.target.pid} ({self.why})"


@dataclass(frozen=True, slots=True)
class TellMaster:
    """An order of one letter into the pipe that a uWSGI master reads (`master-fifo`), while it has `least` workers."""

    target: Target
    fifo: str
    order: str
    why: str
    least: int = 0

    @property
    def words(self) -> str:
        """The step as a part of a sentence."""
        return f"write {self.order} into {self.fifo} of pid {self.target.pid} ({self.why})"


@dataclass(frozen=True, slots=True)
class WaitNewReady:
    """Waits until `count` workers are ready that are none of `besides`."""

    besides: frozenset[Target]
    count: int
    within_s: float

    @property
    def words(self) -> str:
        """The step as a part of a sentence."""
        return (
            f"wait until {self.count} new worker{'s' * (self.count > 1)} can take requests, {self.within_s:g} s at most"
        )


@dataclass(frozen=True, slots=True)
class WaitGone:
    """Waits until a process has ended; with `then_kill` it is killed when the time is up."""

    target: Target
    within_s: float
    then_kill: bool = False

    @property
    def words(self) -> str:
        """The step as a part of a sentence."""
        last = ", then kill it" if self.then_kill else ""
        return f"wait until pid {self.target.pid} has ended, {self.within_s:g} s at most{last}"


@dataclass(frozen=True, slots=True)
class WaitCount:
    """Waits until the service has exactly so many workers, all of them ready."""

    count: int
    within_s: float

    @property
    def words(self) -> str:
        """The step as a part of a sentence."""
        return f"wait until the service has {self.count} workers, all ready, {self.within_s:g} s at most"


@dataclass(frozen=True, slots=True)
class WaitNewMaster:
    """Waits until a service of this name has a master that is not `besides`."""

    service: str
    besides: Target
    within_s: float

    @property
    def words(self) -> str:
        """The step as a part of a sentence."""
        return f"wait until {self.service} has a new master, {self.within_s:g} s at most"


@dataclass(frozen=True, slots=True)
class RunCommand:
    """Runs a program to its end, which must be exit code 0. `environment` None: a bare one. `uid` None: the agent's."""

    argv: tuple[str, ...]
    within_s: float
    why: str
    folder: str = "/"
    uid: int | None = None
    environment: Mapping[str, str] | None = field(default=None, repr=False)

    @property
    def words(self) -> str:
        """The step as a part of a sentence; never the environment."""
        return f"run {' '.join(self.argv)[:200]} ({self.why}), {self.within_s:g} s at most"


@dataclass(frozen=True, slots=True)
class AskNode:
    """One command of Celery's remote control to the node of the service, whose answer must not be an error."""

    method: str
    arguments: Mapping[str, Scalar]
    within_s: float = 5.0

    @property
    def words(self) -> str:
        """The step as a part of a sentence."""
        told = ", ".join(f"{name} {value}" for name, value in self.arguments.items())
        return f"ask the node to {self.method.replace('_', ' ')} ({told})"


@dataclass(frozen=True, slots=True)
class PutAside:
    """Puts the tasks of one name that have not begun aside, where no node takes them."""

    task: str

    @property
    def words(self) -> str:
        """The step as a part of a sentence."""
        return f"put the tasks named {self.task} that have not begun aside"


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Gives back the tasks that were fetched and that no living node holds."""

    @property
    def words(self) -> str:
        """The step as a part of a sentence."""
        return "ask every node what it holds, and give back the fetched tasks that none does"


@dataclass(frozen=True, slots=True)
class AskSupervisor:
    """Lets supervisor start a program again, by the socket that it listens on; `only_start` leaves one that runs alone."""

    socket: str
    program: str
    within_s: float
    only_start: bool = False

    @property
    def words(self) -> str:
        """The step as a part of a sentence."""
        verb = "start" if self.only_start else "restart"
        return f"let supervisor {verb} {self.program}, {self.within_s:g} s at most"


@dataclass(frozen=True, slots=True)
class AskCircus:
    """Lets circus start the process of a watcher again; `only_start` leaves one that runs alone.

    `child` is the process that the watcher has to have now, 0 where that is not known. A watcher that has others besides
    is left alone unless `with_all`: circus restarts all processes of a watcher or none.
    """

    endpoint: str
    watcher: str
    within_s: float
    child: int = 0
    only_start: bool = False
    with_all: bool = False

    @property
    def words(self) -> str:
        """The step as a part of a sentence."""
        verb = "start" if self.only_start else "restart"
        return f"let circus {verb} {self.watcher}, {self.within_s:g} s at most"


@dataclass(frozen=True, slots=True)
class Renice:
    """Sets the nice value of a process."""

    target: Target
    nice: int

    @property
    def words(self) -> str:
        """The step as a part of a sentence."""
        return f"set the nice value of pid {self.target.pid} to {self.nice}"


@dataclass(frozen=True, slots=True)
class LimitMemory:
    """Sets the memory limit of a cgroup."""

    cgroup: str
    memory_bytes: int

    @property
    def words(self) -> str:
        """The step as a part of a sentence."""
        return f"set the memory limit of cgroup {self.cgroup} to {self.memory_bytes} bytes"


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """Keeps what a worker is doing."""

    target: Target

    @property
    def words(self) -> str:
        """The step as a part of a sentence."""
        return f"take a snapshot of pid {self.target.pid}"


Step: TypeAlias = (
    SendSignal | TellMaster | WaitNewReady | WaitGone | WaitCount | WaitNewMaster | RunCommand | AskNode | PutAside | GiveBack | AskSupervisor | AskCircus | Renice | LimitMemory
    | TakeSnapshot
)  # fmt: skip
