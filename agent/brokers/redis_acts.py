"""What Redis, as Celery's broker, can be asked to change: put tasks of one name aside, give back what nobody holds."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from agent.brokers.common import BrokerTrouble
from agent.brokers.redis import PRIORITIES, RedisBroker, list_of

QUARANTINE = "reflex.quarantine."
MOST_LOOKED_AT = 50_000
PIECE = 500

_MOVE = """
local moved = 0
for _, message in ipairs(ARGV) do
    if redis.call('LREM', KEYS[1], 1, message) == 1 then
        redis.call('RPUSH', KEYS[2], message)
        moved = moved + 1
    end
end
return moved
"""
"""One message is in one of both lists at any moment, whatever happens to whoever asks."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A task that some node has fetched and not acknowledged: its tag, its id, and when it was fetched."""

    tag: str
    task_id: str
    fetched_s: float


def put_aside(broker: RedisBroker, queues: Collection[str], task: str) -> int:
    """Moves the waiting tasks of that name into the list `reflex.quarantine.QUEUE`; how many. Raises BrokerTrouble."""
    moved = 0
    with broker.guarded():
        move = broker.client.register_script(_MOVE)
        for queue in sorted(queues):
            for priority in PRIORITIES:
                for messages in _of_name(broker, list_of(queue, priority), task):
                    moved += int(move(keys=[list_of(queue, priority), QUARANTINE + queue], args=messages))
    return moved


def copy_aside(broker: RedisBroker, queue: str, task_ids: Collection[str]) -> frozenset[str]:
    """Copies tasks that a node has fetched into the quarantine of a queue; the ids of those found. Raises BrokerTrouble."""
    copied: set[str] = set()
    if not task_ids:
        return frozenset()
    with broker.guarded():
        for raw in broker.client.hvals("unacked"):
            task_id = _task_id(raw)
            if task_id in task_ids:
                broker.client.rpush(QUARANTINE + queue, json.dumps(json.loads(raw)[0]))
                copied.add(str(task_id))
    return frozenset(copied)


def fetched(broker: RedisBroker) -> list[Fetched]:
    """All that nodes hold, as the broker sees it. Raises BrokerTrouble, also when it is too much to look at."""
    with broker.guarded():
        count = int(broker.client.hlen("unacked"))
        if count > MOST_LOOKED_AT:
            raise BrokerTrouble(f"has {count} tasks that are not acknowledged, more than can be looked at")
        rows: Any = broker.client.zrange("unacked_index", 0, -1, withscores=True)
        scores = {_text(tag): float(score) for tag, score in rows}
        held = broker.client.hgetall("unacked")
    return [
        Fetched(_text(tag), task_id, scores[_text(tag)])
        for tag, raw in held.items()
        if _text(tag) in scores and (task_id := _task_id(raw)) is not None
    ]


def bound_nodes(broker: RedisBroker) -> frozenset[str]:
    """Every node that ever listened for commands at this broker and did not take leave. Raises BrokerTrouble."""
    ending = ".celery.pidbox"
    with broker.guarded():
        members = broker.client.smembers("_kombu.binding.celery.pidbox")
    queues = (_text(member).rpartition("\x06\x16")[2] for member in members)
    return frozenset(queue.removesuffix(ending) for queue in queues if queue.endswith(ending))


def give_back(broker: RedisBroker, tags: Iterable[str]) -> int:
    """Puts tasks back to where they are next; how many were still there. Each at most once. Raises BrokerTrouble."""
    given = 0
    with broker.guarded():
        channel = broker.connection.channel()
        for tag in tags:
            if broker.client.hexists("unacked", tag):
                channel.qos.restore_by_tag(tag, leftmost=True)
                given += 1
    return given


def _of_name(broker: RedisBroker, key: str, task: str) -> Iterator[list[bytes | str]]:
    """The messages of that task in one list, in pieces; the list is read whole before the first is moved."""
    length = int(broker.client.llen(key))
    if length > MOST_LOOKED_AT:
        raise BrokerTrouble(f"has {length} tasks in one queue, more than can be looked at")
    found: list[bytes | str] = []
    for begin in range(0, length, PIECE):
        found += [raw for raw in broker.client.lrange(key, begin, begin + PIECE - 1) if _task_name(raw) == task]
    yield from (found[begin : begin + PIECE] for begin in range(0, len(found), PIECE))


def _task_name(raw: bytes | str) -> str | None:
    return _header(raw, "task")


def _task_id(raw: bytes | str) -> str | None:
    """Of an entry of the hash, which is message, exchange and routing key."""
    try:
        message = json.loads(raw)[0]
        headers, properties = message.get("headers") or {}, message.get("properties") or {}
        found = headers.get("id") or properties.get("correlation_id")
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def _header(raw: bytes | str, name: str) -> str | None:
    try:
        found = (json.loads(raw).get("headers") or {}).get(name)
    except (ValueError, TypeError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def _text(said: bytes | str) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said
