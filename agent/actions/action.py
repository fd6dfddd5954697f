"""What an action is: a name, typed parameters with bounds, and a plan that makes steps of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.actions.steps import Step
from agent.managers import Manager
from agent.wire import ActSpec, Refusal, Scalar, Target
from agent.workers.settings import ServiceSettings


class CannotAct(ValueError):
    """The action cannot be planned; the text says why, and `reason` is one of the refusals of docs/actions.md."""

    def __init__(self, text: str, reason: Refusal = "params") -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker as a plan sees it."""

    target: Target
    slot: int
    is_ready: bool


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A service as a plan sees it; its workers oldest first. `argv` is empty where a title has taken its place.

    `uid` is -1 where it is not known whose it is: whoever began a setuid program has written its command line.

    `owed` workers have just died unasked, and the master is about to replace them.
    """

    name: str
    kind: str
    master: Target
    workers: tuple[WorkerView, ...]
    uid: int
    argv: tuple[str, ...] = ()
    folder: str = "/"
    environment: Mapping[str, str] | None = None
    manager: Manager | None = None
    cgroup: str = ""
    is_alive: bool = True
    owed: int = 0
    settings: ServiceSettings = field(default_factory=ServiceSettings)

    @property
    def size(self) -> int:
        """How many workers the master is to have."""
        return len(self.workers) + self.owed


@dataclass(frozen=True, slots=True)
class Context:
    """What an act is about. `commands` are those that the host's policy names: argv, seconds, uid."""

    service: ServiceView | None = None
    target: Target | None = None
    commands: Mapping[str, NamedCommand] | None = None

    @property
    def view(self) -> ServiceView:
        """The service, which the action's `needs` has made sure of."""
        assert self.service is not None
        return self.service

    @property
    def process(self) -> Target:
        """The target, which the action's `needs` has made sure of."""
        assert self.target is not None
        return self.target


@dataclass(frozen=True, slots=True)
class NamedCommand:
    """A command that the host's policy names."""

    argv: tuple[str, ...]
    within_s: float
    uid: int | None


@dataclass(frozen=True, slots=True)
class Action:
    """One action that this host can carry out: what it is asked by, and how it becomes steps."""

    spec: ActSpec
    plan: Callable[[Context, Mapping[str, Any]], tuple[Step, ...]]

    @property
    def name(self) -> str:
        """The name of the act."""
        return self.spec.name

    def read(self, given: Mapping[str, Scalar]) -> dict[str, Any]:
        """Parameters with their defaults; raises CannotAct."""
        known = self.spec.params
        for name in given:
            if name not in known:
                raise CannotAct(f"{self.name} has no parameter {name!r:.60}; it has {', '.join(known) or 'none'}")
        for param in known.values():
            if param.required and param.name not in given:
                raise CannotAct(f"{self.name} needs the parameter {param.name}")
        defaults = {param.name: param.default for param in known.values() if param.default is not None}
        try:
            return {**defaults, **{name: known[name].read(value) for name, value in given.items()}}
        except ValueError as error:
            raise CannotAct(str(error)) from None

    def steps(self, context: Context, given: Mapping[str, Scalar]) -> tuple[Step, ...]:
        """What is to be done; raises CannotAct."""
        params = self.read(given)
        service, needs, kinds = context.service, self.spec.needs, self.spec.kinds
        if needs in ("worker", "master", "service") and service is None:
            raise CannotAct(f"{self.name} needs a service")
        if service is not None and kinds and service.kind not in kinds:
            raise CannotAct(f"{self.name} is for {' and '.join(kinds)}; {service.name} is {service.kind}")
        if needs in ("worker", "process") and context.target is None:
            raise CannotAct(f"{self.name} needs a target: the process that it acts upon")
        _check_place(self, context)
        return self.plan(context, params)


def _check_place(action: Action, context: Context) -> None:
    """The target must stand in the service as what the action needs."""
    service, target = context.service, context.target
    if service is None or target is None:
        return
    if action.spec.needs == "worker" and all(worker.target != target for worker in service.workers):
        raise CannotAct(f"pid {target.pid} is no worker of {service.name} any more", "stale")
    if action.spec.needs == "process" and all(
        one != target for one in (service.master, *(w.target for w in service.workers))
    ):
        raise CannotAct(f"pid {target.pid} is no process of {service.name} any more", "stale")
    if action.spec.needs in ("master", "service") and target != service.master:
        raise CannotAct(f"pid {target.pid} is not the master of {service.name} any more", "stale")
