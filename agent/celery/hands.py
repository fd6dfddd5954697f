"""Acts upon Celery through its broker: commands to nodes, tasks put aside, tasks of a dead node given back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from agent.brokers import open_broker
from agent.brokers.common import Address, Broker, BrokerTrouble
from agent.celery.beat import CeleryBeat, Place
from agent.celery.remote import Answers, Remote
from agent.wire import Scalar

if TYPE_CHECKING:
    from agent.brokers.redis import RedisBroker

ANSWER_S = 5.0
SETTLED_S = 5.0
"""A task that was fetched later than this ago may be on its way to a node that does not know of it yet."""

MARGIN_S = 0.1
_HELD = ("active", "reserved", "scheduled")
_T = TypeVar("_T")


class CannotAsk(Exception):
    """The broker or the node cannot do it, or what it did is not known; the text ends a sentence."""


class CeleryHands:
    """Works at the brokers that the beat has found. Everything raises CannotAsk."""

    def __init__(self, celery: CeleryBeat) -> None:
        self._celery = celery

    async def ask(self, service: str, method: str, arguments: Mapping[str, Scalar], within_s: float) -> None:
        """One command of remote control, whose answer must not be an error."""
        place = self._place(service)
        answers = await self._at(place, lambda broker: _ask(broker, {method: arguments}, [place.node], within_s))
        said = answers.get(place.node, {}).get(method)
        if said is None:
            raise CannotAsk(f"{place.node} did not answer within {within_s:g} s; whether it did so is not known")
        if isinstance(said, dict) and "error" in said:
            raise CannotAsk(f"{place.node} says: {str(said['error'])[:200]}")

    async def put_aside(self, service: str, task: str) -> str:
        """Puts the waiting tasks of a name aside; what was done, as the end of a sentence."""
        place = self._place(service)
        moved, taken = await self._at(place, lambda broker: _put_aside(_redis(broker), place, task))
        return (
            f"{moved} waiting tasks named {task} were put aside at {place.address.shown}, and {taken} that "
            f"{place.node} had fetched and not begun"
        )

    async def give_back(self, service: str, *, is_alive: bool) -> str:
        """Gives back what no living node holds; what was done, as the end of a sentence."""
        place = self._place(service)
        given, held = await self._at(place, lambda broker: _give_back(_redis(broker), place.node, is_alive=is_alive))
        return f"{given} tasks that no living node holds were given back at {place.address.shown}; nodes hold {held}"

    def _place(self, service: str) -> Place:
        place = self._celery.place_of(service)
        if place is None:
            raise CannotAsk(f"the node of {service} has not answered its broker yet, so it cannot be asked")
        return place

    async def _at(self, place: Place, work: Callable[[Broker], _T]) -> _T:
        def do() -> _T:
            with _opened(place.address) as broker:
                return work(broker)

        try:
            return await asyncio.to_thread(do)
        except BrokerTrouble as trouble:
            raise CannotAsk(f"{place.address.shown} {trouble}") from None


def _put_aside(broker: RedisBroker, place: Place, task: str) -> tuple[int, int]:
    """How many waited, and how many the node had fetched: of these a copy is kept before the node is told to drop them."""
    from agent.brokers.redis_acts import copy_aside, put_aside

    moved = put_aside(broker, place.queues, task)
    said = _ask(broker, {"reserved": {}}, [place.node], ANSWER_S).get(place.node, {}).get("reserved")
    if not isinstance(said, list):
        raise CannotAsk(
            f"{moved} waiting tasks named {task} were put aside, but {place.node} does not say what it has fetched"
        )
    ids = {str(one["id"]) for one in said if one.get("name") == task}
    copied = copy_aside(broker, place.queues[0], ids)
    if copied:
        _ask(broker, {"revoke": {"task_id": sorted(copied)}}, [place.node], ANSWER_S)
    return moved, len(copied)


def _give_back(broker: RedisBroker, node: str, *, is_alive: bool) -> tuple[int, int]:
    """How many were given back, and how many living nodes hold.

    A busy node had fetched most of what it leaves just before it died: that is looked at again once it has settled.
    """
    given, held, unsettled_s = _give_back_settled(broker, node, is_alive=is_alive)
    if unsettled_s is not None:
        time.sleep(max(unsettled_s + SETTLED_S - time.time(), 0) + MARGIN_S)
        more, held, _ = _give_back_settled(broker, node, is_alive=is_alive)
        given += more
    return given, held


def _give_back_settled(broker: RedisBroker, node: str, *, is_alive: bool) -> tuple[int, int, float | None]:
    """One look, and when the latest was fetched that nobody holds and that has not settled (Unix time), if there is one.

    What is fetched is read before nodes are asked.
    """
    from agent.brokers.redis_acts import bound_nodes, fetched, give_back

    now_s = time.time()
    found = fetched(broker)
    others = bound_nodes(broker) - {node}
    asked = sorted(others | ({node} if is_alive else set()))
    if not is_alive and _ask(broker, {"ping": {}}, [node], ANSWER_S / 2):
        raise CannotAsk(f"{node} answers, so it is alive, and nothing was given back")
    answers = _ask(broker, {question: {} for question in _HELD}, asked, ANSWER_S) if asked else {}
    for name in asked:
        if set(answers.get(name, {})) < set(_HELD):
            raise CannotAsk(
                f"{name} is known to the broker and does not answer, so what it holds is not known; nothing was given back"
            )
    held = {task_id for said in answers.values() for task_id in _ids(said)}
    orphans = [one for one in found if one.task_id not in held]
    settled = [one.tag for one in orphans if now_s - one.fetched_s > SETTLED_S]
    latest_s = max((one.fetched_s for one in orphans if now_s - one.fetched_s <= SETTLED_S), default=None)
    return give_back(broker, settled), len(held), latest_s


def _ids(said: Mapping[str, object]) -> Iterator[str]:
    """Ids of tasks that a node runs, has fetched, or keeps for later."""
    for question in _HELD:
        tasks: Any = said.get(question)
        if not isinstance(tasks, list):
            raise CannotAsk("a node's answer cannot be understood, so nothing was given back")
        for task in tasks:
            yield str(task["request"]["id"] if question == "scheduled" else task["id"])


def _redis(broker: Broker) -> RedisBroker:
    from agent.brokers.redis import RedisBroker

    if not isinstance(broker, RedisBroker):
        raise CannotAsk("this can be done on Redis only; RabbitMQ gives back what a dead node held by itself")
    return broker


def _ask(
    broker: Broker, questions: Mapping[str, Mapping[str, object]], nodes: Collection[str], within_s: float
) -> Answers:
    with broker.guarded():
        remote = Remote(broker.connection)
        try:
            return remote.ask(questions, list(nodes), within_s)
        finally:
            remote.close()


@contextmanager
def _opened(address: Address) -> Iterator[Broker]:
    broker = open_broker(address)
    try:
        yield broker
    finally:
        broker.close()
