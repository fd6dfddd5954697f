"""What the engine remembers: rows that are written down after every step, so that a restart goes on where it stood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.wire import Command, command_from_json, command_to_json
from playbooks.model import Mode

SEEN_CHUNK, SEEN_CHUNKS = 128, 32
"""How many ids of events are remembered: a chunk that is full is never copied again."""

MOST_TOLD = 2_048
MOST_HOLDING = 4_096
MOST_RUNS = 1_000

Phase = Literal["approval", "acting", "verifying", "otherwise"]
Progress = Literal["due", "sent", "done"]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """What a run is about: a service of a host, or a whole host."""

    host: str
    service: str = ""

    def __str__(self) -> str:
        return f"{self.service} on {self.host}" if self.service else self.host


@dataclass(frozen=True, slots=True)
class Task:
    """One act of the step that a run is at. `worker` is (pid, start_ticks) of an act on one worker.

    `due_us`: not before this; `until_us`: no outcome is waited for any longer. `sent` is the id of the latest attempt,
    `command` what went to a host with it; acts of the server itself have none.
    """

    act: str
    worker: tuple[int, int] | None = None
    attempt: int = 0
    progress: Progress = "due"
    due_us: int = 0
    until_us: int = 0
    sent: str = ""
    command: Command | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a playbook. `id` is that of its first event; `event` is what began it, as JSON.

    `step` is the place of its next step; `tasks` are the acts of the step that it is at. `acted`: some host has done,
    or may have done, something. `joined` counts events that would have begun another run. `last` is its last event, `digest`
    that of the playbook.
    """

    id: str
    playbook: str
    place: Place
    event: Mapping[str, Any]
    begun_us: int
    phase: Phase
    last: str
    step: int = 0
    tasks: tuple[Task, ...] = ()
    acted: bool = False
    joined: int = 0
    until_us: int = 0
    met: frozenset[int] = frozenset()
    trouble: str = ""
    outcome: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """A run has acted, or would have in shadow mode: what limits count."""

    playbook: str
    place: Place
    at_us: int
    is_shadow: bool = False


@dataclass(frozen=True, slots=True)
class Members:
    """What is known of a service: its kind (empty until its host has said it) and its workers, pid to start_ticks.

    `gone_us` is when its host said first that the service is no longer there; 0 while it is there."""

    kind: str = ""
    workers: Mapping[int, int] = field(default_factory=dict)
    gone_us: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """Everything. `serial` and `seed` make ids; `killed` says who has stopped all acts, empty for nobody.

    `holding` has, for each sample condition and subject, since when it holds and when it was last seen to.
    `counts` has, for each trigger that counts and what it is about, when its latest events were.
    `told` has when something that could be told again and again was told last. `services` are those that
    hosts have told of. `lent` has, by host, which playbooks it runs by itself and its share of the fleet's limit;
    `charges` is what such shares count for. `others` are runs of somebody else: on a host those of the server, on the
    server those of hosts; each with a name and the time after which it does not count any more. `ran_on` is where this
    engine is: empty for the server.
    """

    seed: str
    serial: int = 0
    killed: str = ""
    modes: Mapping[str, Mode] = field(default_factory=dict)
    runs: Mapping[str, Run] = field(default_factory=dict)
    uses: tuple[Use, ...] = ()
    seen: tuple[frozenset[str], ...] = ()
    seen_lately: frozenset[str] = frozenset()
    told: Mapping[str, int] = field(default_factory=dict)
    holding: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    services: Mapping[Place, Members] = field(default_factory=dict)
    lent: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    charges: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    others: Mapping[Place, tuple[str, int]] = field(default_factory=dict)
    ran_on: str = ""


def run_to_json(run: Run) -> dict[str, Any]:
    """A run as plain values."""
    return {
        "id": run.id,
        "playbook": run.playbook,
        "place": [run.place.host, run.place.service],
        "event": dict(run.event),
        "begun_us": run.begun_us,
        "phase": run.phase,
        "last": run.last,
        "step": run.step,
        "tasks": [_task_to_json(task) for task in run.tasks],
        "acted": run.acted,
        "joined": run.joined,
        "until_us": run.until_us,
        "met": sorted(run.met),
        "trouble": run.trouble,
        "outcome": dict(run.outcome),
        "digest": run.digest,
    }


def run_from_json(value: Mapping[str, Any]) -> Run:
    """The run that `run_to_json` wrote down."""
    host, service = value["place"]
    tasks = tuple(_task_from_json(task) for task in value["tasks"])
    return Run(**{**value, "place": Place(host, service), "tasks": tasks, "met": frozenset(value["met"])})


def _task_to_json(task: Task) -> dict[str, Any]:
    return {
        "act": task.act,
        "worker": None if task.worker is None else list(task.worker),
        "attempt": task.attempt,
        "progress": task.progress,
        "due_us": task.due_us,
        "until_us": task.until_us,
        "sent": task.sent,
        "command": None if task.command is None else command_to_json(task.command),
    }


def _task_from_json(value: Mapping[str, Any]) -> Task:
    worker, command = value["worker"], value["command"]
    return Task(
        **{
            **value,
            "worker": None if worker is None else (worker[0], worker[1]),
            "command": None if command is None else command_from_json(command),
        }
    )
