"""The pipeline's state: deploys, and what each host has done of them, as values that rows are made of. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from agent.wire import Event
from agent.wire.order import Phase

Stage = Literal["queued", "prepare", "first", "rest", "back", "done"]
PartState = Literal[
    "waiting", "preparing", "prepared", "switching", "kept", "failed", "away", "going_back", "went_back"
]
OVER: tuple[PartState, ...] = ("kept", "failed", "away", "went_back")
AT_WORK: tuple[PartState, ...] = ("preparing", "switching", "going_back")
LEAST_COMMIT_CHARS = 7
"""With so many the beginning of a commit names it."""

CATCHING_UP = "Reflex"
"""Who asks for the deploys by which hosts catch up."""

Outcome: TypeAlias = Literal["", "kept", "failed", "rolled_back", "cancelled"]


@dataclass(frozen=True, slots=True)
class Part:
    """One host of a deploy. `order` is the id of the order that it is at, `since_us` when that was sent first.

    `commit` and `release` are what the host has made, `switch_s` how long a switch to that may take; `said` is its last
    sentence, `ended_by` the kind of that event. `serves` is the release that it last said to serve. `is_unsure`: it was left in
    the middle, so only it can say what serves. `is_unseen`: nothing that runs the release was seen there.
    """

    host: str
    state: PartState = "waiting"
    order: str = ""
    since_us: int = 0
    release: str = ""
    commit: str = ""
    said: str = ""
    ended_by: str = ""
    has_switched: bool = False
    serves: str = ""
    is_unsure: bool = False
    is_unseen: bool = False
    switch_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Deploy:
    """One deploy of one app. `cause` is the event that began it; while it is not done it is the lock of its app."""

    id: str
    app: str
    ref: str
    who: str
    why: str
    at_us: int
    stage: Stage = "queued"
    outcome: Outcome = ""
    force: bool = False
    cause: str = ""
    text: str = ""
    ended_us: int = 0
    cancelled_by: str = ""
    is_rollback: bool = False
    parts: tuple[Part, ...] = ()

    @property
    def first(self) -> Part:
        """The host that is the barrier."""
        return self.parts[0]

    @property
    def has_failed_somewhere(self) -> bool:
        """Whether it did not come to what was wanted on some host that it reached, whatever became of the whole."""
        return self.outcome != "kept" or any(part.state == "failed" for part in self.parts)

    @property
    def is_over(self) -> bool:
        """Whether nothing follows any more."""
        return self.stage == "done"

    def part(self, order: str) -> Part | None:
        """The host that is at that order."""
        return next((one for one in self.parts if one.order == order), None)

    def part_of(self, host: str) -> Part | None:
        """What that host has done of it; None if it is not for that host."""
        return next((one for one in self.parts if one.host == host), None)

    def with_part(self, part: Part) -> Deploy:
        """The same with another state of one host."""
        return replace(self, parts=tuple(part if one.host == part.host else one for one in self.parts))


@dataclass(frozen=True, slots=True)
class Hold:
    """Deploys of an app wait; `until_us` 0: until somebody lifts it."""

    who: str
    why: str
    since_us: int
    until_us: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """Everything. `serial` and `seed` make ids; `present` are hosts that can be reached now, which is not written down.

    `gone_us` has since when a host cannot be reached that could be before, or that the server has not heard since its start.
    """

    seed: str
    serial: int = 0
    deploys: Mapping[str, Deploy] = field(default_factory=dict)
    holds: Mapping[str, Hold] = field(default_factory=dict)
    present: frozenset[str] = frozenset()
    gone_us: Mapping[str, int] = field(default_factory=dict)


# What comes in.


@dataclass(frozen=True, slots=True)
class Push:
    """Somebody wants a ref to be served. `hosts` empty: all of the app's. `cause` is the event that led to it, if one did."""

    app: str
    ref: str
    who: str
    why: str = ""
    force: bool = False
    hosts: tuple[str, ...] = ()
    is_rollback: bool = False
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """A host has answered an order."""

    host: str
    event: Event


@dataclass(frozen=True, slots=True)
class Present:
    """A host can be reached now, or not any more."""

    host: str
    is_there: bool


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody wants a deploy to end."""

    deploy: str
    who: str


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody holds the deploys of an app, or (`hold` None) lets them go on."""

    app: str
    who: str
    hold: Hold | None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Input: TypeAlias = Push | Heard | Present | Cancelled | Held | Tick


# What follows.


@dataclass(frozen=True, slots=True)
class Wanted:
    """An order to be sent, with the app and its secrets as they are then. `release` as in Order."""

    id: str
    deploy: str
    app: str
    ref: str
    host: str
    phase: Phase
    cause: str
    release: str = ""
    migrates: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """An event to be told, under the name of a host."""

    host: str
    event: Event


@dataclass(frozen=True, slots=True)
class Answer:
    """What has become of the state, and what follows."""

    state: State
    orders: tuple[Wanted, ...] = ()
    entries: tuple[Entry, ...] = ()


def named_on(deploys: Iterable[Deploy], back: Deploy, host: str) -> str:
    """How a host calls the release that a rollback names: by another host's name for it, or by the beginning of its commit.

    Each host names its releases by its own time; a name that others have made is the same everywhere.
    """
    latest = sorted((one for one in deploys if one.app == back.app), key=lambda one: one.at_us, reverse=True)
    parts = [part for one in latest for part in one.parts if part.release and part.commit]
    if not back.ref or any((part.host, part.release) == (host, back.ref) for part in parts):
        return back.ref
    is_commit = len(back.ref) >= LEAST_COMMIT_CHARS
    named = (one for one in parts if one.release == back.ref or (is_commit and one.commit.startswith(back.ref)))
    commit = next((one.commit for one in named), "")
    return next((one.release for one in parts if commit and (one.host, one.commit) == (host, commit)), back.ref)


def deploy_to_json(deploy: Deploy) -> dict[str, Any]:
    """A deploy as plain values."""
    plain = {name: getattr(deploy, name) for name in Deploy.__slots__ if name != "parts"}
    return {**plain, "parts": [{name: getattr(part, name) for name in Part.__slots__} for part in deploy.parts]}


def deploy_from_json(value: Mapping[str, Any]) -> Deploy:
    """The deploy that was written down."""
    return Deploy(**{**value, "parts": tuple(Part(**part) for part in value["parts"])})
