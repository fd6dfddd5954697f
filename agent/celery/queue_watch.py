"""Follows queues from look to look: their samples, backlogs, and nodes that are alive and do not consume."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from agent.brokers.common import BrokerLook, Client, QueueLook
from agent.celery import sentences
from agent.celery.node import Node, waits_for
from agent.celery.queue_judges import Backlog, ConsumerLook, Silence, Waiting
from agent.celery.teller import Teller
from agent.procfs import ProcFs
from agent.service import Service
from agent.wire import Evidence, Row

BACKLOG_WINDOW_S = 120.0


@dataclass(slots=True)
class QueueState:
    """One queue of one broker, with the nodes of this host that should consume it."""

    name: str
    backlog: Backlog
    waiting: Waiting = field(default_factory=Waiting)
    look: QueueLook | None = None
    wait_s: float | None = None
    backlog_event: str | None = None


class QueueWatch:
    """The queues of one broker."""

    def __init__(self, procfs: ProcFs, teller: Teller, backlog_window_s: float = BACKLOG_WINDOW_S) -> None:
        self._procfs = procfs
        self._teller = teller
        self._window_s = backlog_window_s
        self.queues: dict[str, QueueState] = {}
        self.unacked: int | None = None

    def needs_clients(self, nodes: Iterable[Node]) -> bool:
        """Whether a queue holds tasks while one of its nodes runs none: then it matters who waits for a message."""
        return any(self.is_suspect(node) for node in nodes)

    def is_suspect(self, node: Node) -> bool:
        """Whether tasks wait for a node that ran none when it was asked last."""
        return node.active == () and any(self._length(queue) for queue in node.queues)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits, and nothing that was told is still so."""
        return all(not self._length(name) and state.backlog_event is None for name, state in self.queues.items())

    def look(
        self, broker: BrokerLook, nodes: Sequence[Node], clients: Sequence[Client] | None, at_s: float, now_s: float
    ) -> None:
        """One look. `at_s` is on a clock that never jumps, `now_s` is Unix time."""
        self.unacked = broker.unacked
        wanted = {queue for node in nodes for queue in node.queues}
        self.queues = {name: self._state(name) for name in sorted(wanted)}
        for name, state in self.queues.items():
            state.look = found = broker.queues.get(name)
            if found is not None:
                published_s = None if found.published_us is None else found.published_us / 1e6
                state.wait_s = state.waiting.step(now_s, found.next_up, published_s)
                self._judge_backlog(state, found.length, [node for node in nodes if name in node.queues], at_s)
        for node in nodes:
            self._judge_consumer(node, clients, at_s)

    def rows(self, nodes: Sequence[Node]) -> Iterator[Row]:
        """Samples of the last look, for each service that consumes."""
        for service in sorted({node.service.name for node in nodes}):
            queues = {queue for node in nodes if node.service.name == service for queue in node.queues}
            for name in sorted(queues & self.queues.keys()):
                yield from _rows(service, self.queues[name])
            if self.unacked is not None and nodes[0].address.is_redis:
                yield "celery.unacked", float(self.unacked), service, nodes[0].address.shown

    def _state(self, name: str) -> QueueState:
        return self.queues.get(name) or QueueState(name, Backlog(self._window_s))

    def _length(self, name: str) -> int:
        state = self.queues.get(name)
        return state.look.length if state is not None and state.look is not None else 0

    def _judge_backlog(self, state: QueueState, length: int, nodes: Sequence[Node], at_s: float) -> None:
        since_s = state.backlog.since_s
        change = state.backlog.step(at_s, length)
        service = nodes[0].service
        if change == "grows":
            idle = [node.is_idle for node in nodes]
            free = None if None in idle else all(idle)
            running = sum(len(node.active or ()) for node in nodes)
            state.backlog_event = self._teller.tell(
                "celery.backlog",
                sentences.backlog(service.name, state.name, state.backlog, length, free),
                service=service,
                cause=next(
                    (node.silent_events[state.name] for node in nodes if state.name in node.silent_events), None
                ),
                evidence=(
                    Evidence(nodes[0].address.shown, _growth(state, length)),
                    Evidence(
                        sentences.INSPECT, f"{sentences.tasks(running)} run on {', '.join(n.name for n in nodes)}"
                    ),
                ),
                attrs={
                    "queue": state.name,
                    "length": length,
                    "grown_by": length - state.backlog.first,
                    "growth_per_s": round(state.backlog.rate, 3),
                    "active": running,
                    "broker": nodes[0].address.shown,
                },
            )
        elif change == "over" and since_s is not None:
            self._tell_over(state, service, length, at_s - since_s)

    def _tell_over(self, state: QueueState, service: Service, length: int, lasted_s: float) -> None:
        self._teller.tell(
            "celery.backlog_over",
            sentences.backlog_over(service.name, state.name, state.backlog, length, lasted_s),
            severity="info",
            service=service,
            cause=state.backlog_event,
            evidence=(Evidence("queue", f"{length} wait in {state.name}, {state.backlog.longest} at the most"),),
            attrs={
                "queue": state.name,
                "length": length,
                "longest": state.backlog.longest,
                "lasted_s": round(lasted_s, 1),
            },
        )
        state.backlog_event = None

    def _judge_consumer(self, node: Node, clients: Sequence[Client] | None, at_s: float) -> None:
        on_redis = node.address.is_redis
        suspect = self.is_suspect(node) or bool(node.silent_events)
        peers = self._procfs.peers(node.service.master_pid) if clients is not None and suspect else ()
        own = [peer.own for peer in peers]
        for queue in node.queues:
            state = self.queues.get(queue)
            found = state.look if state is not None else None
            consumes = None if found is None else waits_for(found, node.consumes, clients, own, on_redis=on_redis)
            look = ConsumerLook(None if found is None else found.length, node.is_idle, consumes)
            silence = node.silences.setdefault(queue, Silence())
            since_s = silence.since_s
            change = silence.step(at_s, look)
            if change == "silent" and found is not None and silence.since_s is not None:
                node.silent_events[queue] = self._tell_silent(node, found, silence, at_s - silence.since_s, clients)
            elif change == "back":
                self._tell_back(node, queue, at_s - (since_s or at_s), found)

    def _tell_silent(
        self, node: Node, found: QueueLook, silence: Silence, since_s: float, clients: Sequence[Client] | None
    ) -> str:
        consumes = node.consumes or ()
        left_out = found.name not in consumes
        why = sentences.why_silent(found.name, consumes, told=left_out)
        said = ", ".join(consumes) or "nothing"
        evidence = [
            Evidence(
                node.address.shown,
                f"{found.length} wait in {found.name}, {silence.first} at the first of {silence.looks} looks",
            ),
            Evidence(sentences.INSPECT, f"{node.name} runs and holds no task; active_queues: {said}"),
        ]
        if clients is not None and not left_out:
            evidence.append(Evidence("CLIENT LIST", "no connection of the node waits in a blocked pop"))
        if found.consumers is not None:
            evidence.append(Evidence(node.address.shown, f"{found.name} has {found.consumers} consumers"))
        return self._teller.tell(
            "celery.consumer_silent",
            sentences.silent(node.service.name, node.name, found.name, found.length, since_s, why),
            severity="critical",
            service=node.service,
            evidence=tuple(evidence),
            attrs={
                "node": node.name,
                "queue": found.name,
                "length": found.length,
                "why": "told_to" if left_out else "no_blocked_pop",
                "looks": silence.looks,
                "since_s": round(since_s, 1),
                "broker": node.address.shown,
            },
        )

    def _tell_back(self, node: Node, queue: str, lasted_s: float, found: QueueLook | None) -> None:
        evidence = [
            Evidence(sentences.INSPECT, f"{node.name}; active_queues: {', '.join(node.consumes or ()) or 'nothing'}")
        ]
        if found is not None:
            evidence.append(Evidence(node.address.shown, f"{found.length} wait in {found.name}"))
        self._teller.tell(
            "celery.consumer_back",
            sentences.consumer_back(node.service.name, node.name, queue, lasted_s),
            severity="info",
            service=node.service,
            cause=node.silent_events.pop(queue, None),
            evidence=tuple(evidence),
            attrs={"node": node.name, "queue": queue, "lasted_s": round(lasted_s, 1)},
        )


def _rows(service: str, state: QueueState) -> Iterator[Row]:
    if state.look is None:
        return
    yield "celery.queue_length", float(state.look.length), service, state.name
    if len(state.look.priorities) > 1:
        for priority, length in state.look.priorities.items():
            yield "celery.queue_length", float(length), service, f"{state.name} priority {priority}"
    if state.look.unacked is not None:
        yield "celery.unacked", float(state.look.unacked), service, state.name
    if state.wait_s is not None:
        yield "celery.oldest_wait_s", round(state.wait_s, 3), service, state.name


def _growth(state: QueueState, length: int) -> str:
    return f"{state.name} held {state.backlog.first} and holds {length}; all four quarters of the last {state.backlog.seen_s:.0f} s rose"
