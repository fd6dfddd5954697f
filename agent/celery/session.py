"""One broker as the agent uses it: opened when it is needed, asked in rounds, let be for a while when it fails.

All of it runs in the one thread that talks to brokers; each call within ends in time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.brokers import open_broker
from agent.brokers.common import Address, Broker, BrokerLook, BrokerTrouble, Client
from agent.celery.remote import Answers, Remote
from agent.celery.values import NodeLook, read_look

log = logging.getLogger(__name__)

ANSWER_S = 1.0
"""How long nodes may take to answer. One that runs tasks in its main loop (solo) does not answer meanwhile."""

RETRY_S, LONGEST_RETRY_S = 4.0, 30.0

Questions = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Ask:
    """What one round is to find out. `is_enough` ends the search for nodes: without it, none is made."""

    queues: frozenset[str] = frozenset()
    nodes: tuple[str, ...] = ()
    questions: Questions = field(default_factory=dict)
    is_enough: Callable[[Answers], bool] | None = None
    wants_names: bool = False
    wants_clients: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What one round found out; with `trouble`, which goes on after the broker's address, it is incomplete."""

    trouble: str | None = None
    broker: BrokerLook | None = None
    nodes: Mapping[str, NodeLook] = field(default_factory=dict)
    searched: bool = False
    found: Answers = field(default_factory=dict)
    names: tuple[str, ...] = ()
    clients: tuple[Client, ...] | None = None


class Session:
    """One broker, by its address."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._broker: Broker | None = None
        self._remote: Remote | None = None
        self._retry_s = RETRY_S
        self._not_before_s = 0.0
        self._trouble: str | None = None
        self._is_asking = False

    def round(self, ask: Ask) -> Answer:
        """Asks; a broker that failed a moment ago is not tried again yet."""
        if self._trouble is not None and time.monotonic() < self._not_before_s:
            return Answer(self._trouble)
        try:
            answer = self._ask(ask)
        except BrokerTrouble as trouble:
            self.close()
            self._trouble = str(trouble)
            self._not_before_s = time.monotonic() + self._retry_s
            self._retry_s = min(self._retry_s * 2, LONGEST_RETRY_S)
            log.debug("%s %s", self.address, trouble)
            return Answer(self._trouble)
        finally:
            if self._is_asking:  # what else went wrong is a defect, after which the connection may be in any state
                self.close()
        self._trouble, self._retry_s = None, RETRY_S
        return answer

    def close(self) -> None:
        """Takes leave of the broker, if it is still there."""
        broker, remote, self._broker, self._remote = self._broker, self._remote, None, None
        self._is_asking = False
        if broker is None:
            return
        try:
            if remote is not None:
                with broker.guarded():
                    remote.close()
        except BrokerTrouble as trouble:
            log.debug("%s %s", self.address, trouble)
        broker.close()

    def _ask(self, ask: Ask) -> Answer:
        self._is_asking = True
        broker = self._broker = self._broker or open_broker(self.address)
        with broker.guarded():
            remote = self._remote = self._remote or Remote(broker.connection)
            found: Answers = {} if ask.is_enough is None else remote.ask({"stats": {}}, None, ANSWER_S, ask.is_enough)
            said = remote.ask(ask.questions, ask.nodes, ANSWER_S) if ask.nodes and ask.questions else {}
        answer = Answer(
            broker=broker.look(ask.queues) if ask.queues else None,
            nodes={name: read_look(name, said[name]) for name in said},
            searched=ask.is_enough is not None,
            found=found,
            names=broker.queue_names() if ask.wants_names else (),
            clients=broker.clients() if ask.wants_clients else None,
        )
        self._is_asking = False
        return answer
