"""What is known of Celery services now, for `reflexd status`: plain values, without credentials or arguments of tasks."""

from __future__ import annotations

from typing import Any

from agent.celery.node import Node
from agent.celery.queue_watch import QueueState, QueueWatch
from agent.celery.values import ActiveTask
from agent.service import Service

MOST_TASKS = 50
_NOTHING = dict.fromkeys(("node", "answers", "unacked", "active", "active_count", "reserved"))


def status_of(
    service: Service, node: Node | None, queues: QueueWatch | None, trouble: str | None, now_s: float
) -> dict[str, Any]:
    """One service; what is not known is None. Times in s, `now_s` is Unix time."""
    head: dict[str, Any] = {"service": service.name, "master_pid": service.master_pid, "role": service.settings.role}
    if node is None:
        is_beat = service.settings.role == "beat"
        trouble = "beat sends tasks and runs none" if is_beat else "no broker can be seen from outside"
        return head | {"broker": None, "trouble": trouble, **_NOTHING, "queues": []}
    known = queues.queues if queues is not None else {}
    return head | {
        "broker": node.address.shown,
        "trouble": trouble,
        "node": node.stats.name if node.stats is not None else None,
        "answers": node.answers,
        "queues": [_queue(known[name], node) for name in node.queues if name in known],
        "unacked": queues.unacked if queues is not None else None,
        "active": None if node.active is None else [_task(task, node, now_s) for task in node.active[:MOST_TASKS]],
        "active_count": None if node.active is None else len(node.active),
        "reserved": len(node.reserved) if node.active is not None else None,
    }


def _queue(state: QueueState, node: Node) -> dict[str, Any]:
    look = state.look
    return {
        "name": state.name,
        "length": None if look is None else look.length,
        "priorities": {} if look is None else {str(priority): n for priority, n in look.priorities.items()},
        "unacked": None if look is None else look.unacked,
        "consumers": None if look is None else look.consumers,
        "oldest_wait_s": state.wait_s,
        "backlog": state.backlog_event is not None,
        "silent": state.name in node.silent_events,
    }


def _task(task: ActiveTask, node: Node, now_s: float) -> dict[str, Any]:
    watched = node.watched.get(task.id)
    return {
        "id": task.id,
        "name": task.name,
        "pid": node.host_pid(task.pid),
        "age_s": None if task.started_s is None else round(now_s - task.started_s, 1),
        "acknowledged": task.acknowledged,
        "stuck": watched is not None and watched.told is not None,
    }
