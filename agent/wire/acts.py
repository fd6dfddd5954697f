"""What a host, or the server, can be asked to do: names, parameters with their bounds, and whom each act is about. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from agent.wire.checks import Scalar

Needs = Literal["worker", "process", "master", "service", "nothing"]
"""Whom a command must name: a worker or any process as target, a service (by its master or alone), or nobody."""

ParamType = Literal["int", "float", "str", "bool"]

SIGNALS: Mapping[str, int] = {
    "HUP": 1, "INT": 2, "QUIT": 3, "ABRT": 6, "KILL": 9, "USR1": 10, "USR2": 12, "TERM": 15, "CONT": 18,
    "TTIN": 21, "TTOU": 22, "WINCH": 28,
}  # fmt: skip
"""Signals that an act may send, with their numbers on Linux; SIGSTOP is none: nobody would wake the process."""

MOST_WORKERS = 200


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter. `least` and `most` bound a number; `pattern` is what all of a text must match."""

    name: str
    type: ParamType
    text: str
    default: Scalar | None = None
    required: bool = False
    least: float | None = None
    most: float | None = None
    pattern: str | None = None
    choices: tuple[str, ...] = ()

    def read(self, value: Scalar) -> Scalar:
        """The value if it is fit; raises ValueError."""
        if not _FITS[self.type](value):
            raise ValueError(f"{self.name} must be {self.word}, not {value!r:.60}")
        if isinstance(value, str):
            if self.choices and value not in self.choices:
                raise ValueError(f"{self.name} must be one of {', '.join(self.choices)}, not {value!r:.60}")
            if not value.isprintable() or (self.pattern and not re.fullmatch(self.pattern, value)):
                raise ValueError(f"{self.name} must match {self.pattern or 'printable text'}, not {value!r:.60}")
        elif self.least is not None and value < self.least:
            raise ValueError(f"{self.name} must be at least {self.least:g}, not {value}")
        elif self.most is not None and value > self.most:
            raise ValueError(f"{self.name} must be at most {self.most:g}, not {value}")
        return value

    @property
    def word(self) -> str:
        """What it must be, in words."""
        return _WORDS[self.type]


_WORDS: Mapping[ParamType, str] = {
    "int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false",
}  # fmt: skip
_FITS = {
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
}


@dataclass(frozen=True, slots=True)
class ActSpec:
    """One kind of act. `kinds` of services it is for; empty: any. `by_default`: a host does it without a policy file.

    `by_server`: the server does it itself, and no host is asked. `on_stopped`: it is for services that have ended, too.
    """

    name: str
    text: str
    needs: Needs
    params: Mapping[str, Param]
    kinds: tuple[str, ...] = ()
    by_default: bool = True
    by_server: bool = False
    on_stopped: bool = False

    @property
    def on_worker(self) -> bool:
        """Whether it is about one worker or process."""
        return self.needs in ("worker", "process")


def _spec(
    name: str,
    text: str,
    needs: Needs,
    *params: Param,
    kinds: tuple[str, ...] = (),
    by_default: bool = True,
    by_server: bool = False,
    on_stopped: bool = False,
) -> ActSpec:
    return ActSpec(name, text, needs, {param.name: param for param in params}, kinds, by_default, by_server, on_stopped)


_READY_S = Param("ready_s", "float", "How long a new worker may take until it is ready.", 60.0, least=1, most=300)
_GONE_S = Param("gone_s", "float", "How long a retired worker may finish its requests.", 60.0, least=1, most=300)
_FORCE = Param("force", "bool", "Kill the worker when it has not ended by itself in that time.", False)
_BY = Param("by", "int", "So many workers more, or less when it is below 0.", least=-50, most=50)
_TO = Param("to", "int", "So many workers.", least=1, most=MOST_WORKERS)
_MORE = Param("by", "int", "So many processes.", 1, least=1, most=50)
_QUEUE = Param("queue", "str", "The queue's name.", required=True, pattern=r"[\w.:@#{}-]{1,200}")
_TASK_ID = Param("task_id", "str", "The task's id.", required=True, pattern=r"[\w.:-]{1,200}")
_TASK = Param("task", "str", "The name of the tasks.", required=True, pattern=r"[\w.:-]{1,200}")
_TERMINATE = Param("terminate", "bool", "End the task also when it runs already.", False)
_DRAIN_S = Param("drain_s", "float", "How long running tasks may take to end.", 300.0, least=1, most=540)
_WITHIN_S = Param("within_s", "float", "How long it may take.", 120.0, least=1, most=540)
_UNIT = Param(
    "unit",
    "str",
    "The unit's name; that of the service where it is not given.",
    pattern=r"[\w.:@\\][\w.:@\\-]{0,200}\.service",
)
_PROGRAM = Param("program", "str", "The program's name in supervisor.", required=True, pattern=r"\w[\w.:-]{0,199}")
_WATCHER = Param("watcher", "str", "The watcher's name in circus.", required=True, pattern=r"\w[\w.@:-]{0,99}")
_ENDPOINT = Param(
    "endpoint",
    "str",
    "Where circus listens; that of the service, or circus's default, where it is not given.",
    pattern=r"tcp://127\.0\.0\.1:\d{1,5}|ipc:///[\w./-]{1,100}",
)
_COMMAND = Param("name", "str", "The command's name in the host's policy.", required=True, pattern=r"[\w.-]{1,100}")
_SIGNAL = Param("signal", "str", "The signal's name.", required=True, choices=tuple(SIGNALS))
_NICE = Param("nice", "int", "The nice value.", required=True, least=-20, most=19)
_MEMORY = Param("memory_bytes", "int", "The limit in bytes.", required=True, least=16 * 1024 * 1024)
_TOLD = Param("text", "str", "What to say.", required=True)
_CHANNEL = Param("channel", "str", "Which channel; all of them where it is not given.", pattern=r"[a-z0-9-]{1,64}")
_MINUTES = Param("minutes", "int", "For how long.", 60, least=1, most=1440)


def _of_web_server(kind: str) -> tuple[ActSpec, ...]:
    kinds, has_surge = (kind,), kind != "uwsgi"
    how = (
        "add one, wait until it is ready, retire the old one"
        if has_surge
        else "the master forks another when it has ended"
    )
    scale = _spec(f"{kind}.scale", "Change the number of workers.", "service", _BY, _TO, _READY_S, kinds=kinds)
    checked = ", after a check that they load at all" if kind == "gunicorn" else ""
    return (
        _spec(
            f"{kind}.recycle_worker", f"Replace one worker: {how}.", "worker", _READY_S, _GONE_S, _FORCE, kinds=kinds
        ),
        _spec(f"{kind}.rotate", "Replace all workers, one after the other.", "service", _READY_S, _GONE_S, kinds=kinds),
        scale,
        _spec(
            f"{kind}.reload",
            f"Load configuration and release again{checked}.",
            "service",
            _READY_S,
            _GONE_S,
            kinds=kinds,
        ),
    )


_CELERY = ("celery",)
_ALL = (
    *_of_web_server("gunicorn"),
    *_of_web_server("uvicorn"),
    *_of_web_server("uwsgi"),
    _spec("celery.warm_shutdown", "End a node when its running tasks are done.", "master", _DRAIN_S, kinds=_CELERY),
    _spec("celery.grow", "Add processes to a node's pool.", "service", _MORE, kinds=_CELERY),
    _spec("celery.shrink", "Take processes out of a node's pool.", "service", _MORE, kinds=_CELERY),
    _spec("celery.cancel_consumer", "Let a node consume a queue no longer.", "service", _QUEUE, kinds=_CELERY),
    _spec("celery.add_consumer", "Let a node consume a queue.", "service", _QUEUE, kinds=_CELERY),
    _spec("celery.replace_consumer", "Let a node begin anew to consume a queue.", "service", _QUEUE, kinds=_CELERY),
    _spec("celery.revoke", "Revoke a task.", "service", _TASK_ID, _TERMINATE, kinds=_CELERY),
    _spec(
        "celery.quarantine_task",
        "Put the tasks of one name that have not begun aside (Redis).",
        "service",
        _TASK,
        kinds=_CELERY,
    ),
    _spec(
        "celery.return_unacked",
        "Give back the tasks that a dead node had fetched and that no living node holds (Redis).",
        "service",
        kinds=_CELERY,
        on_stopped=True,
    ),
    *(
        _spec(
            f"{kind}.restart",
            "Let the systemd unit, the supervisor or the circus of the service start it again, also when it is dead.",
            "service",
            _WITHIN_S,
            kinds=(kind,),
            on_stopped=True,
        )
        for kind in ("gunicorn", "uwsgi", "uvicorn", "celery")
    ),
    _spec("process.signal", "Send a signal to a process of a service.", "process", _SIGNAL),
    _spec("process.renice", "Set the nice value of a process of a service.", "process", _NICE),
    _spec("snapshot.take", "Keep what a worker is doing: stacks, memory map, numbers.", "worker"),
    _spec("cgroup.set_limit", "Set the memory limit of a service's cgroup.", "service", _MEMORY, by_default=False),
    _spec("unit.restart", "Restart a systemd unit.", "nothing", _UNIT, _WITHIN_S, by_default=False),
    _spec("supervisor.restart", "Restart a program of supervisor.", "nothing", _PROGRAM, _WITHIN_S, by_default=False),
    _spec(
        "circus.restart",
        "Restart a watcher of circus, with all its processes.",
        "nothing",
        _WATCHER,
        _ENDPOINT,
        _WITHIN_S,
        by_default=False,
    ),
    _spec("command.run", "Run a command that the host's policy names.", "nothing", _COMMAND, by_default=False),
    _spec("notify", "Tell people.", "nothing", _TOLD, _CHANNEL, by_server=True),
    _spec("deploy.hold", "Let no deploy of the service begin for a while.", "service", _MINUTES, by_server=True),
    _spec("deploy.rollback", "Go back to the release before.", "service", by_server=True),
)
ACTS: Mapping[str, ActSpec] = {spec.name: spec for spec in _ALL}
"""Every act, by its name."""
