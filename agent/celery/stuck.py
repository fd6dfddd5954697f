"""Watches tasks that have run long: CPU of their process and its children, and its stack once that is flat."""

from __future__ import annotations

from typing import Protocol

from agent.celery import sentences
from agent.celery.node import Node, Watched
from agent.celery.task_judges import BLIND_TIMES, STUCK_AFTER_S, TaskLook
from agent.celery.teller import Teller
from agent.celery.values import ActiveTask
from agent.procfs import ProcFs
from agent.service import Worker
from agent.wire import Evidence

MAX_DESCENDANTS = 64
WATCH_FROM_SHARE = 0.5
"""A task is watched from half the age on from which it may be stuck: its CPU is then known to be flat, or not."""


class Stacks(Protocol):
    """Where stacks come from: the calls of the main thread from the inside out, None when they cannot be had."""

    async def stack(self, pid: int, start_ticks: int) -> tuple[str, ...] | None: ...


class StuckWatch:
    """All running tasks of the host's nodes. Only pools of processes are watched: elsewhere tasks share one process."""

    def __init__(self, procfs: ProcFs, stacks: Stacks, teller: Teller, stuck_after_s: float = STUCK_AFTER_S) -> None:
        self._procfs = procfs
        self._stacks = stacks
        self._teller = teller
        self._stuck_after_s = stuck_after_s

    def over(self, node: Node, tasks: tuple[ActiveTask, ...], now_s: float) -> None:
        """Tasks that run no more."""
        for task in tasks:
            watched = node.watched.pop(task.id, None)
            if watched is not None and watched.told is not None:
                self._tell_unstuck(node, task, watched.told, now_s, ended=True)

    async def look(self, node: Node, now_s: float) -> None:
        """One look at the tasks that a node runs; `now_s` is Unix time, which tasks are stamped with."""
        for task in node.active or ():
            worker = self._worker(node, task)
            if worker is None or task.started_s is None:
                continue
            limit_s = node.runs.stuck_after_s(task.name, self._stuck_after_s)
            if now_s - task.started_s >= limit_s * WATCH_FROM_SHARE:
                await self._look_at(node, task, worker, limit_s, now_s, now_s - task.started_s)

    async def _look_at(
        self, node: Node, task: ActiveTask, worker: Worker, limit_s: float, now_s: float, age_s: float
    ) -> None:
        watched = node.watched.setdefault(task.id, Watched())
        look = TaskLook(age_s, self._cpu_s(worker.ref.pid))
        stack = None
        if watched.progress.is_flat(now_s, look) and age_s >= limit_s and watched.told is None:
            stack = await self._stacks.stack(worker.ref.pid, worker.ref.start_ticks)
        look = TaskLook(age_s, look.cpu_s, stack)
        change = watched.progress.step(now_s, look, limit_s, has_stacks=stack is not None)
        if change == "stuck":
            flat_s = watched.progress.flat_for_s(now_s)
            watched.told = self._tell_stuck(node, task, worker, limit_s, look, flat_s)
        elif change == "moves" and watched.told is not None:
            self._tell_unstuck(node, task, watched.told, now_s, ended=False)
            watched.told = None

    def _worker(self, node: Node, task: ActiveTask) -> Worker | None:
        pid = node.host_pid(task.pid)
        return None if pid is None else node.service.workers.get(pid)

    def _cpu_s(self, pid: int) -> float | None:
        """CPU that the process and its descendants have used, in s: a task may wait for a program that it runs."""
        waiting, total_s, seen = [pid], 0.0, 0
        while waiting and seen < MAX_DESCENDANTS:
            one = waiting.pop()
            usage = self._procfs.usage(one)
            if usage is None and one == pid:
                return None
            total_s += 0.0 if usage is None else usage.cpu_ns / 1e9
            waiting.extend(self._procfs.children(one))
            seen += 1
        return total_s

    def _tell_stuck(
        self, node: Node, task: ActiveTask, worker: Worker, limit_s: float, look: TaskLook, flat_s: float
    ) -> str:
        demanded_s = limit_s if look.stack is not None else limit_s * BLIND_TIMES
        pid = worker.ref.pid
        return self._teller.tell(
            "celery.task_stuck",
            sentences.stuck(node.service.name, task, pid, look.age_s, flat_s, look.stack),
            service=node.service,
            worker=worker.ref,
            cause=worker.started_event,
            evidence=(
                Evidence(
                    sentences.INSPECT, f"active on {node.name} for {look.age_s:.1f} s; demanded were {demanded_s:.1f} s"
                ),
                Evidence(sentences.PROC, f"pid {pid} and its children used no CPU for {flat_s:.1f} s"),
                sentences.stack_evidence(look.stack),
            ),
            attrs={
                "task": task.name,
                "task_id": task.id,
                "node": node.name,
                "age_s": round(look.age_s, 1),
                "flat_s": round(flat_s, 1),
                "acknowledged": task.acknowledged,
                "has_stack": look.stack is not None,
            },
        )

    def _tell_unstuck(self, node: Node, task: ActiveTask, told: str, now_s: float, *, ended: bool) -> None:
        age_s = now_s - (task.started_s or now_s)
        self._teller.tell(
            "celery.task_unstuck",
            sentences.unstuck(node.service.name, task, ended=ended, age_s=age_s),
            severity="info",
            service=node.service,
            cause=told,
            attrs={"task": task.name, "task_id": task.id, "node": node.name, "ended": ended, "age_s": round(age_s, 1)},
        )
