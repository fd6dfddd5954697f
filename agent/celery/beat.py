"""Looks at Celery's brokers and nodes every few seconds, and at once when a process dies: samples, events, status.

Everything that waits for a broker runs in one thread of its own. kombu and redis are loaded with the first broker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from agent.brokers.common import Address
from agent.celery import sentences
from agent.celery.asking import BrokerState, ask_for, stats_of
from agent.celery.following import Following, Services
from agent.celery.losses import EXPECTED_DEATHS, Losses
from agent.celery.node import LastSeen, Node
from agent.celery.queue_watch import BACKLOG_WINDOW_S, QueueWatch
from agent.celery.session import Answer, Ask
from agent.celery.status import status_of
from agent.celery.stuck import Stacks, StuckWatch
from agent.celery.task_judges import STUCK_AFTER_S
from agent.celery.teller import Teller
from agent.celery.values import NodeLook
from agent.clock import Clock
from agent.procfs import ProcFs
from agent.pulse import next_pulse
from agent.reporter import Reporter
from agent.wire import Event, Evidence, Row, Scalar

BUSY_S, QUIET_S = 5.0, 10.0
MOST_PLACES = 500
"""How often a broker and its nodes are looked at while there is work, and while there is none."""

EARLY_S = 0.5
"""A look may come this much early: pulses are whole seconds."""

LAST_SEEN_S = 2 * BUSY_S
"""How long before a death a task may have been seen that it is thought to have been running still."""

FAILURES_TOLD = 2
"""A broker that fails so often in a row is told of."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node can be asked, by which name, and its queues."""

    address: Address
    node: str
    queues: tuple[str, ...]


class CeleryBeat:
    """All Celery nodes of this host."""

    def __init__(
        self,
        procfs: ProcFs,
        rollup: Services,
        reporter: Reporter,
        sampler: Reporter,
        clock: Clock,
        host: str,
        stacks: Stacks,
        *,
        stuck_after_s: float = STUCK_AFTER_S,
        backlog_window_s: float = BACKLOG_WINDOW_S,
        busy_s: float = BUSY_S,
        quiet_s: float = QUIET_S,
    ) -> None:
        """`reporter` takes events, `sampler` samples. Nothing is loaded or connected to yet."""
        self._busy_s = busy_s
        self._quiet_s = quiet_s
        self._rollup = rollup
        self._sampler = sampler
        self._clock = clock
        self._teller = Teller(reporter, clock)
        self._stuck = StuckWatch(procfs, stacks, self._teller, stuck_after_s)
        self._losses = Losses(self._teller)
        self._following = Following(procfs, rollup, host, lambda: QueueWatch(procfs, self._teller, backlog_window_s))
        self._deaths: set[asyncio.Task[None]] = set()
        self._places: dict[str, Place] = {}
        self._defects: list[BaseException] = []

    async def celery_beat(self) -> None:
        """Looks for ever."""
        while True:
            await next_pulse()
            await self.tick()

    async def tick(self) -> None:
        """Looks at what is due; raises what went wrong, since the last time, where nobody waited for it."""
        if self._defects:
            raise self._defects.pop()
        await self._following.refresh()
        at_s = time.monotonic()
        for broker in [broker for broker in self._following.brokers.values() if broker.due_s <= at_s]:
            if nodes := self._following.nodes_at(broker):
                await self._round(broker, nodes)
                self._keep_places(nodes)

    def _keep_places(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node.stats is not None:
                self._places.pop(node.service.name, None)
                self._places[node.service.name] = Place(node.address, node.name, node.queues)
        while len(self._places) > MOST_PLACES:
            del self._places[next(iter(self._places))]

    def notice(self, events: list[Event]) -> None:
        """Takes note of births and deaths: what a process was doing is asked at once."""
        for event in events if self._following.nodes else ():
            if event.kind == "worker.started" and event.worker is not None:
                self._following.note_birth(event.worker.pid)
            elif event.kind == "worker.exited" and event.attrs.get("death") not in EXPECTED_DEATHS:
                self._child_died(event)
            elif event.kind == "service.stopped" and event.severity != "info":
                self._master_died(event)

    def status(self) -> list[dict[str, Any]]:
        """What is known now, one entry for each Celery service: no credentials, no arguments of tasks."""
        found = []
        for service in self._rollup.services.values():
            if service.kind == "celery":
                node = self._following.nodes.get((service.master_pid, service.start_ticks))
                broker = None if node is None else self._following.brokers.get(node.address.url)
                queues, trouble = (broker.queues, broker.trouble) if broker is not None else (None, None)
                found.append(status_of(service, node, queues, trouble, time.time()))
        return found

    def place_of(self, service: str) -> Place | None:
        """Where the node of a service can be asked, also once it is dead; None while that is not certain."""
        return self._places.get(service)

    async def stop(self) -> None:
        """Takes leave of the brokers, as far as they answer in time."""
        for task in self._deaths:
            task.cancel()
        await self._following.stop()

    # A round.

    async def _round(self, broker: BrokerState, nodes: list[Node]) -> None:
        answer = await self._following.run(broker.session.round, ask_for(broker, nodes, time.monotonic()))
        at_s, now_s = time.monotonic(), time.time()
        self._note_trouble(broker, nodes, answer, at_s)
        if answer.trouble is None:
            self._take(broker, nodes, answer, at_s, now_s)
            self._sample(broker, nodes, now_s)
            for node in nodes:
                await self._stuck.look(node, now_s)
        broker.due_s = at_s + (self._quiet_s if _is_quiet(broker, nodes) else self._busy_s) - EARLY_S

    def _take(self, broker: BrokerState, nodes: list[Node], answer: Answer, at_s: float, now_s: float) -> None:
        found = stats_of(answer.found)
        for node in nodes:
            if node.stats is None:
                if answer.searched and node.found_among(found):
                    broker.due_s = 0.0
                continue
            over = node.take(answer.nodes.get(node.name, NodeLook()), now_s)
            self._following.note_over(node, over)
            self._stuck.over(node, over, now_s)
            if answer.names:
                node.listed = answer.names
        if answer.broker is not None:
            placed = [node for node in nodes if node.is_placed]
            broker.queues.look(answer.broker, placed, answer.clients, at_s, now_s)

    def _sample(self, broker: BrokerState, nodes: list[Node], now_s: float) -> None:
        rows: list[Row] = list(broker.queues.rows([node for node in nodes if node.is_placed]))
        for node in nodes:
            if node.answers and node.active is not None:
                ages = [now_s - task.started_s for task in node.active if task.started_s is not None]
                rows.append(("celery.active_tasks", float(len(node.active)), node.service.name, node.name))
                rows.append(("celery.reserved_tasks", float(len(node.reserved)), node.service.name, node.name))
                rows.append(("celery.oldest_task_s", round(max(ages, default=0.0), 3), node.service.name, node.name))
        if rows:
            self._sampler.samples(self._clock.now_us(), rows)

    def _note_trouble(self, broker: BrokerState, nodes: list[Node], answer: Answer, at_s: float) -> None:
        """A broker that does not answer decides nothing; that it does not is told once."""
        services = sorted({node.service.name for node in nodes})
        service, shown = nodes[0].service if len(services) == 1 else None, broker.session.address.shown
        broker.trouble = answer.trouble
        if answer.trouble is None:
            if broker.told is not None:
                lasted_s = at_s - broker.failed_since_s
                text = sentences.broker_back(services, shown, lasted_s)
                attrs: dict[str, Scalar | None] = {"broker": shown, "lasted_s": round(lasted_s, 1)}
                self._teller.tell(
                    "celery.broker_back", text, severity="info", service=service, cause=broker.told, attrs=attrs
                )
            broker.failures, broker.told = 0, None
            return
        broker.failed_since_s = at_s if broker.failures == 0 else broker.failed_since_s
        broker.failures += 1
        for node in nodes:
            node.answers = False
            if node.stats is None:
                node.missed()
        if broker.failures >= FAILURES_TOLD and broker.told is None and any(node.is_placed for node in nodes):
            broker.told = self._teller.tell(
                "celery.broker_unreachable",
                sentences.unreachable(services, shown, answer.trouble),
                service=service,
                evidence=(Evidence(shown, f"{answer.trouble}, {broker.failures} times in a row"),),
                attrs={"broker": shown, "trouble": answer.trouble},
            )

    # Deaths.

    def _child_died(self, death: Event) -> None:
        node = None if death.worker is None else self._following.node_with(death.worker.pid)
        if node is not None and death.worker is not None:
            inner = node.inner[death.worker.pid]
            self._spawn(self._ask_for_lost(node, death, inner, node.last_on.pop(inner, None)))

    def _master_died(self, death: Event) -> None:
        for node in self._following.nodes.values():
            if node.service.stopped_event == death.id:
                self._spawn(self._ask_for_stranded(node, death))

    async def _ask_for_lost(self, node: Node, death: Event, inner: int, last: LastSeen | None) -> None:
        """What the node says it was running there. Some milliseconds later it does not any more: then what it said last."""
        look = await self._ask_now(node)
        now_s = time.time()
        tasks = tuple(task for task in look.active or () if task.pid == inner)
        if tasks:
            self._losses.child_died(node, death, tasks, "asked at the death", now_s, certain=True)
            return
        if last is None or now_s - last.at_s > LAST_SEEN_S or node.service.stopped_event is not None:
            return
        if any(task.id == last.task.id and not task.redelivered for task in look.active or ()):
            return  # it goes on elsewhere by its own wish (retry); one that is delivered again was cut off
        seen = f"by its answer {now_s - last.at_s:.1f} s before"
        self._losses.child_died(node, death, (last.task,), seen, now_s, certain=False)

    async def _ask_now(self, node: Node) -> NodeLook:
        broker = self._following.brokers.get(node.address.url)
        if broker is None or node.stats is None:
            return NodeLook()
        ask = Ask(nodes=(node.name,), questions={"active": {"safe": True}})
        answer = await self._following.run(broker.session.round, ask)
        return answer.nodes.get(node.name, NodeLook())

    async def _ask_for_stranded(self, node: Node, death: Event) -> None:
        broker, now_s = self._following.brokers.get(node.address.url), time.time()
        unacked, is_alone = None, False
        if broker is not None:
            ask = Ask(queues=frozenset(node.queues), wants_clients=True)
            answer = await self._following.run(broker.session.round, ask)
            unacked = answer.broker.unacked if answer.broker is not None else None
            is_alone = answer.clients is not None and not any(client.waits for client in answer.clients)
        self._losses.node_died(node, death, unacked, now_s - node.answered_s, now_s, is_alone=is_alone)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._deaths.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._deaths.discard(task)
        defect = None if task.cancelled() else task.exception()
        if defect is not None:
            self._defects.append(defect)


def _is_quiet(broker: BrokerState, nodes: list[Node]) -> bool:
    """Whether there is nothing to do and nothing amiss, so that a look now and then is enough."""
    idle = all(node.active == () and not node.reserved and not node.silent_events for node in nodes)
    return broker.trouble is None and idle and broker.queues.is_quiet
