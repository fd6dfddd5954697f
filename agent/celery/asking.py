"""What a round asks of one broker and its nodes: more where something may be wrong, little where all is quiet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.celery.node import Ident, Node
from agent.celery.queue_watch import QueueWatch
from agent.celery.remote import Answers
from agent.celery.session import Ask, Session
from agent.celery.values import NodeStats, node_of, read_look

MORE_EVERY_S = 60.0
SEARCH_S, LONGEST_SEARCH_S = 5.0, 300.0
_RULES = {"taskinfoitems": ["acks_late", "reject_on_worker_lost"]}


@dataclass(slots=True)
class BrokerState:
    """One broker with what is known of it between two rounds. Times in s of a clock that never jumps."""

    session: Session
    queues: QueueWatch
    due_s: float = 0.0
    wanted_s: float = 0.0
    search_s: float = 0.0
    search_every_s: float = SEARCH_S
    searched_for: frozenset[Ident] = frozenset()
    trouble: str | None = None
    failures: int = 0
    failed_since_s: float = 0.0
    told: str | None = None


def ask_for(broker: BrokerState, nodes: Sequence[Node], at_s: float) -> Ask:
    """The questions of the round at `at_s`."""
    known = [node for node in nodes if node.stats is not None]
    unknown = [node for node in nodes if node.stats is None]
    suspect = broker.queues.needs_clients(nodes) or any(node.silent_events for node in nodes)
    more = suspect or any(at_s - node.asked_more_s >= MORE_EVERY_S for node in known)
    wants_names = any(node.needs_names and 0 < node.asked_more_s <= at_s - MORE_EVERY_S for node in known)
    questions: dict[str, dict[str, object]] = {"active": {"safe": True}, "reserved": {}}
    if suspect:
        questions["scheduled"] = {}
    if more:
        questions |= {"stats": {}, "active_queues": {}}
        for node in known:
            node.asked_more_s = at_s
    if any(node.rules is None for node in known):
        questions["registered"] = dict(_RULES)
    return Ask(
        queues=frozenset(queue for node in nodes if node.is_placed for queue in node.queues),
        nodes=tuple(node.name for node in known),
        questions=questions,
        is_enough=_search(broker, unknown, at_s) if unknown else None,
        wants_names=wants_names,
        wants_clients=suspect,
    )


def stats_of(answers: Answers) -> tuple[NodeStats, ...]:
    """What nodes said of themselves in a search."""
    looks = (read_look(name, said) for name, said in answers.items())
    return tuple(look.stats for look in looks if look.stats is not None)


def _search(broker: BrokerState, unknown: Sequence[Node], at_s: float) -> Callable[[Answers], bool] | None:
    """What ends a search for nodes; None while none is due. Searches that find nothing become rarer."""
    idents = frozenset(node.ident for node in unknown)
    if not idents <= broker.searched_for:
        broker.search_s, broker.search_every_s = 0.0, SEARCH_S
    broker.searched_for = idents
    if at_s < broker.search_s:
        return None
    broker.search_s = at_s + broker.search_every_s
    broker.search_every_s = min(broker.search_every_s * 2, LONGEST_SEARCH_S)
    looked_for = [node.looked_for() for node in unknown]
    return lambda answers: all(node_of(*one, stats_of(answers)) is not None for one in looked_for)
