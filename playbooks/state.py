"""What the engine remembers: rows that are written down after every step, so that a restart goes on where it stood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.wire import Command, command_from_json, command_to_json
from playbooks.model import Mode

MOST_SEEN = 4_096
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
    or may have done, something. `joined` counts events that would have begun another run. `last` is its last event.
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


@dataclass(frozen=True, slots=True)
class Use:
    """A run has acted, or would have in shadow mode: what limits count."""

    playbook: str
    place: Place
    at_us: int
    is_shadow: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """Everything. `serial` and `seed` make ids; `killed` says who has stopped all acts, empty for nobody.

    `holding` has, for each sample condition and subject, since when it holds and when it was last seen to.
    `told` has when something that could be told again and again was told last. `workers` are those of each service:
    pid to start_ticks.
    """

    seed: str
    serial: int = 0
    killed: str = ""
    modes: Mapping[str, Mode] = field(default_factory=dict)
    runs: Mapping[str, Run] = field(default_factory=dict)
    uses: tuple[Use, ...] = ()
    seen: Mapping[str, None] = field(default_factory=dict)
    told: Mapping[str, int] = field(default_factory=dict)
    holding: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    workers: Mapping[Place, Mapping[int, int]] = field(default_factory=dict)


def state_to_json(state: State) -> dict[str, Any]:
    """Plain values for orjson."""
    return {
        "seed": state.seed,
        "serial": state.serial,
        "killed": state.killed,
        "modes": dict(state.modes),
        "runs": [_run_to_json(run) for run in state.runs.values()],
        "uses": [[use.playbook, use.place.host, use.place.service, use.at_us, use.is_shadow] for use in state.uses],
        "seen": list(state.seen),
        "told": dict(state.told),
        "holding": {key: list(span) for key, span in state.holding.items()},
        "workers": [[place.host, place.service, list(map(list, w.items()))] for place, w in state.workers.items()],
    }


def state_from_json(value: Mapping[str, Any]) -> State:
    """The state that `state_to_json` wrote down; raises KeyError, TypeError or ValueError for anything else."""
    return State(
        seed=value["seed"],
        serial=value["serial"],
        killed=value["killed"],
        modes=value["modes"],
        runs={one["id"]: _run_from_json(one) for one in value["runs"]},
        uses=tuple(Use(name, Place(host, service), at, shadow) for name, host, service, at, shadow in value["uses"]),
        seen=dict.fromkeys(value["seen"]),
        told=value["told"],
        holding={key: (since, last) for key, (since, last) in value["holding"].items()},
        workers={Place(host, service): dict(w) for host, service, w in value["workers"]},
    )


def _run_to_json(run: Run) -> dict[str, Any]:
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
    }


def _run_from_json(value: Mapping[str, Any]) -> Run:
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
