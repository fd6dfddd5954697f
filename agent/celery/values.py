"""What is known of nodes and their tasks: the values that judges judge and sentences tell. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

PREFORK_PREFIX = "celery.concurrency.prefork"


@dataclass(frozen=True, slots=True)
class ActiveTask:
    """A task that a node runs. Its arguments are not kept. `pid` is as the node knows it, in its own pid namespace.

    `started_s` is Unix time. `acknowledged` says whether the broker has forgotten the message already.
    """

    id: str
    name: str
    started_s: float | None
    pid: int | None
    acknowledged: bool | None
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class NodeStats:
    """What a node says of itself. Pids are of its own namespace; `totals` counts the tasks it took, by name."""

    name: str
    pid: int
    processes: tuple[int, ...]
    is_prefork: bool
    concurrency: int | None
    prefetch: int | None
    visibility_timeout_s: float | None
    totals: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskRules:
    """What becomes of a task whose process dies; None is what the node did not say."""

    acks_late: bool | None = None
    requeues: bool | None = None


@dataclass(frozen=True, slots=True)
class NodeLook:
    """Answers of one node in one round; None for a question that was not asked or not answered."""

    active: tuple[ActiveTask, ...] | None = None
    reserved: tuple[ActiveTask, ...] | None = None
    scheduled: int | None = None
    queues: tuple[str, ...] | None = None
    stats: NodeStats | None = None
    rules: Mapping[str, TaskRules] | None = None

    @property
    def is_idle(self) -> bool | None:
        """Whether it runs nothing and holds nothing that it could run; None when it did not say both."""
        if self.active is None or self.reserved is None:
            return None
        return not self.active and not self.reserved


def read_look(name: str, answers: Mapping[str, object]) -> NodeLook:
    """What a node answered, by question. An answer of another shape than expected counts as none."""
    return NodeLook(
        active=_tasks(answers.get("active")),
        reserved=_tasks(answers.get("reserved")),
        scheduled=_length(answers.get("scheduled")),
        queues=_queues(answers.get("active_queues")),
        stats=_stats(name, answers.get("stats")),
        rules=_rules(answers.get("registered")),
    )


def _tasks(value: object) -> tuple[ActiveTask, ...] | None:
    if not isinstance(value, list):
        return None
    return tuple(_task(one) for one in value if isinstance(one, dict) and "id" in one)


def _task(said: Mapping[str, Any]) -> ActiveTask:
    started, pid, acknowledged = said.get("time_start"), said.get("worker_pid"), said.get("acknowledged")
    delivery = said.get("delivery_info")
    return ActiveTask(
        id=str(said["id"]),
        name=str(said.get("name") or said.get("type") or "?"),
        started_s=float(started) if isinstance(started, int | float) else None,
        pid=pid if isinstance(pid, int) else None,
        acknowledged=acknowledged if isinstance(acknowledged, bool) else None,
        redelivered=bool(isinstance(delivery, dict) and delivery.get("redelivered")),
    )


def _length(value: object) -> int | None:
    return len(value) if isinstance(value, list) else None


def _queues(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list):
        return None
    return tuple(str(one["name"]) for one in value if isinstance(one, dict) and "name" in one)


def _stats(name: str, value: object) -> NodeStats | None:
    if not isinstance(value, dict) or not isinstance(value.get("pid"), int):
        return None
    pool, broker = _mapping(value.get("pool")), _mapping(value.get("broker"))
    processes = pool.get("processes")
    visible = _mapping(broker.get("transport_options")).get("visibility_timeout")
    return NodeStats(
        name=name,
        pid=value["pid"],
        processes=tuple(p for p in processes if isinstance(p, int)) if isinstance(processes, list) else (),
        is_prefork=str(pool.get("implementation", "")).startswith(PREFORK_PREFIX),
        concurrency=_whole(pool.get("max-concurrency")),
        prefetch=_whole(value.get("prefetch_count")),
        visibility_timeout_s=float(visible) if isinstance(visible, int | float) else None,
        totals={str(task): n for task, n in _mapping(value.get("total")).items() if isinstance(n, int)},
    )


def _rules(value: object) -> Mapping[str, TaskRules] | None:
    """From lines such as `shop.pay [acks_late=True reject_on_worker_lost=None]`; what is None there is not listed."""
    if not isinstance(value, list):
        return None
    return dict(_rule(line) for line in value if isinstance(line, str))


def _rule(line: str) -> tuple[str, TaskRules]:
    name, _, rest = line.partition(" [")
    said = dict(word.partition("=")[::2] for word in rest.rstrip("]").split())
    return name, TaskRules(said.get("acks_late") == "True", said.get("reject_on_worker_lost") == "True")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def node_of(
    pid: int, children: Collection[int], hosts: Collection[str], named: str | None, nodes: Collection[NodeStats]
) -> NodeStats | None:
    """Which node a master is, by its pid as nodes know it; None while that is not certain.

    Nodes of other machines and containers can have the same pid: its children, its name (`-n`, if it holds no `%`) and
    the machine in its name (`hosts` are those that it can have) part them.
    """
    found = [node for node in nodes if node.pid == pid]
    if named is not None and "@" in named and "%" not in named:
        found = [node for node in found if node.name == named]
    elif named is not None and "%" not in named:
        found = [node for node in found if node.name.partition("@")[0] == named]
    if children:
        found = [node for node in found if not node.is_prefork or set(children) & set(node.processes)]
    here = [node for node in found if node.name.partition("@")[2] in hosts]
    if len(here) == 1:
        return here[0]
    # A name of its own choice after the @ says nothing of the machine; then the pids must speak for it alone.
    return found[0] if len(found) == 1 and (children or named) else None
