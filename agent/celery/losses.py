"""What deaths cost: the task that a process was running, the tasks that a node had fetched, tasks that kill again and again."""

from __future__ import annotations

from agent.celery import sentences
from agent.celery.node import Node
from agent.celery.task_judges import Died, Poison
from agent.celery.teller import Teller
from agent.celery.values import ActiveTask
from agent.wire import Event, Evidence, WorkerRef

EXPECTED_DEATHS = frozenset(
    {"recycled", "clean_exit", "stopped_by_master", "killed_by_master", "master_timeout", "ended_with_master"}
)
"""Ends that Celery brings about and accounts for itself: recycling, shrinking, revoke, time limits; and those that the
master's own end accounts for."""

MOST_TOLD = 16
"""Tasks told one by one when a node dies; the others are counted in `celery.tasks_stranded`."""

FRESH_S = 1.0
"""An answer of a node that is not older than this when it dies counts as certain."""

MAX_SERVICES = 256


class Losses:
    """What is lost, and under which tasks processes die. Remembers by the names of services, over their restarts."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._poison: dict[str, Poison] = {}

    def child_died(
        self, node: Node, death: Event, tasks: tuple[ActiveTask, ...], seen: str, now_s: float, *, certain: bool
    ) -> None:
        """A process of a pool died while it ran these tasks; `seen` says when the node said so.

        Not `certain` when that was before the death: they may have been over just in time.
        """
        for task in tasks:
            fate, sentence = sentences.fate_after_child(task, (node.rules or {}).get(task.name))
            event = self._tell_lost(node, death, task, fate, sentence, seen, now_s, death.worker, certain=certain)
            died = Died(now_s, event, task.id)
            deaths = self._poison_of(node.service.name).died(task.name, died)
            if deaths is not None:
                self._tell_poison(node, task.name, deaths)

    def node_died(
        self, node: Node, death: Event, unacked: int | None, age_of: float, now_s: float, *, is_alone: bool
    ) -> None:
        """A master died, and its pool with it. What it ran and held is known from its last answer, `age_of` s ago.

        `unacked` is what its broker counts now over all nodes; `is_alone` when no other node is there.
        """
        seen = f"by its last answer, {age_of:.1f} s before"
        on_redis, visible_s = node.address.is_redis, node.stats.visibility_timeout_s if node.stats else None
        for task in (node.active or ())[:MOST_TOLD]:
            fate, sentence = sentences.fate_after_node(task, on_redis=on_redis, visibility_s=visible_s)
            self._tell_lost(node, death, task, fate, sentence, seen, now_s, None, certain=age_of < FRESH_S)
        held = sum(task.acknowledged is False for task in (*(node.active or ()), *node.reserved))
        count = unacked if unacked is not None and on_redis and is_alone else held
        if not count:
            return
        self._teller.tell(
            "celery.tasks_stranded",
            sentences.stranded(
                node.service.name,
                node.name,
                node.address.shown,
                count,
                unacked,
                on_redis=on_redis,
                visibility_s=visible_s,
            ),
            service=node.service,
            cause=death.id,
            evidence=(
                Evidence(sentences.INSPECT, f"{node.name} held {held} unacknowledged {age_of:.1f} s before"),
                *([] if unacked is None else [Evidence(node.address.shown, _unacked(unacked, is_alone))]),
            ),
            attrs={
                "node": node.name,
                "tasks": count,
                "unacked": unacked,
                "broker": node.address.shown,
                "visibility_timeout_s": (visible_s or sentences.VISIBILITY_TIMEOUT_S) if on_redis else None,
            },
        )

    def _tell_lost(
        self,
        node: Node,
        death: Event,
        task: ActiveTask,
        fate: str,
        sentence: str,
        seen: str,
        now_s: float,
        worker: WorkerRef | None,
        *,
        certain: bool,
    ) -> str:
        age_s = None if task.started_s is None else max(now_s - task.started_s, 0.0)
        how = f"(pid {worker.pid}) died" if worker is not None else f"died with its node {node.name}"
        certificate = death.attrs.get("death", "unknown")
        return self._teller.tell(
            "celery.task_lost",
            sentences.lost(node.service.name, task, age_s, f"{how} ({certificate})", sentence, certain=certain),
            severity="critical" if fate == "lost" else "warning",
            service=node.service,
            worker=worker,
            cause=death.id,
            evidence=(
                Evidence(
                    sentences.INSPECT,
                    f"{node.name}, {seen}: {task.id} on its pid {task.pid}, {_acknowledged(task)}",
                ),
            ),
            attrs={
                "task": task.name,
                "task_id": task.id,
                "node": node.name,
                "age_s": None if age_s is None else round(age_s, 3),
                "acknowledged": task.acknowledged,
                "redelivered": task.redelivered,
                "fate": fate,
                "certain": certain,
                "death": certificate,
            },
        )

    def _tell_poison(self, node: Node, name: str, deaths: tuple[Died, ...]) -> None:
        self._teller.tell(
            "celery.task_poisonous",
            sentences.poisonous(node.service.name, name, deaths),
            severity="critical",
            service=node.service,
            cause=deaths[-1].event,
            evidence=tuple(
                Evidence("celery.task_lost", f"event {death.event}: task {death.task_id}") for death in deaths
            ),
            attrs={"task": name, "node": node.name, "deaths": len(deaths)},
        )

    def _poison_of(self, service: str) -> Poison:
        if service not in self._poison and len(self._poison) >= MAX_SERVICES:
            del self._poison[next(iter(self._poison))]
        return self._poison.setdefault(service, Poison())


def _acknowledged(task: ActiveTask) -> str:
    return {True: "acknowledged", False: "not acknowledged", None: "whether acknowledged is unknown"}[task.acknowledged]


def _unacked(count: int, is_alone: bool) -> str:
    return f"{count} unacknowledged in all, {'and no other node' if is_alone else 'other nodes included'}"
