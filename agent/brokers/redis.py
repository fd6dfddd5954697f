"""Redis as Celery's broker: lists by priority, the hash of what is not acknowledged, and who waits for a message."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import redis
from kombu import Connection
from kombu.exceptions import KombuError
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError, ResponseError
from redis.retry import Retry

from agent.brokers.common import (
    CALL_TIMEOUT_S,
    OWN_NAME,
    Address,
    BrokerLook,
    BrokerTrouble,
    Client,
    QueueLook,
    is_internal,
)

PRIORITIES = range(10)
"""Every step that kombu's `priority_steps` can name from 0 to 9; the usual ones are 0, 3, 6 and 9."""

_SEPARATOR = "\x06\x16"
_UNACKED = "unacked"
_BINDINGS = "_kombu.binding."
_SCANS, _KEYS_A_SCAN = 20, 500
_LARGEST_BYTES = 256 * 1024
_WAITS = frozenset({"brpop", "blpop", "blmove", "brpoplpush", "bzpopmin"})
_ENQUEUED_HEADERS = ("sentry-task-enqueued-time",)
_T = TypeVar("_T")


class RedisBroker:
    """One database of one Redis. `connection` is kombu's, for commands to nodes, `client` the plain one."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._skipped: set[str] = set()
        options = {
            "socket_timeout": CALL_TIMEOUT_S,
            "socket_connect_timeout": CALL_TIMEOUT_S,
            "retry_on_timeout": False,
            "health_check_interval": 0,
            "client_name": OWN_NAME,
        }
        with _troubles():
            self.connection = Connection(_as_kombu_has_it(address.url), transport_options=options)
            self._channel = self.connection.channel()
            self._channel.pool.connection_kwargs["retry"] = Retry(NoBackoff(), 0)
            self.client: redis.Redis = redis.Redis(connection_pool=self._channel.pool, retry=Retry(NoBackoff(), 0))

    def guarded(self) -> AbstractContextManager[None]:
        """Within it whatever `connection` raises becomes BrokerTrouble."""
        return _troubles()

    def look(self, queues: Collection[str]) -> BrokerLook:
        """Two round trips: the lengths of all lists at one moment, then the message that is next in each."""
        names = sorted(queues)
        with _troubles():
            pipe = self.client.pipeline(transaction=False)
            for name in names:
                for priority in PRIORITIES:
                    pipe.llen(list_of(name, priority))
            pipe.hlen(_UNACKED)
            *answers, unacked = pipe.execute(raise_on_error=False)
            lengths = {
                name: _by_priority(answers[at * len(PRIORITIES) : (at + 1) * len(PRIORITIES)])
                for at, name in enumerate(names)
            }
            heads = self._heads(lengths)
        looks = {
            name: _queue_look(name, found, heads.get(name)) for name, found in lengths.items() if found is not None
        }
        return BrokerLook(looks, unacked if isinstance(unacked, int) else None)

    def queue_names(self) -> tuple[str, ...]:
        """From the bindings that kombu keeps as sets; a bounded walk through the database."""
        found: set[str] = set()
        with _troubles():
            cursor = 0
            for _ in range(_SCANS):
                cursor, keys = self.client.scan(cursor, match=f"{_BINDINGS}*", count=_KEYS_A_SCAN, _type="set")
                for key in keys:
                    found.update(self._bound(key))
                if cursor == 0:
                    break
        return tuple(sorted(name for name in found if name and not is_internal(name)))

    def clients(self) -> tuple[Client, ...] | None:
        """CLIENT LIST without the agent; None when its user may not have it."""
        with _troubles():
            try:
                rows = self.client.client_list()
            except (NoPermissionError, ResponseError):
                return None
        return tuple(
            Client(row["addr"], int(row.get("db", 0)), _waits(row)) for row in rows if row.get("name") != OWN_NAME
        )

    def close(self) -> None:
        """Ends the connection; a Redis that is gone makes no difference."""
        try:
            self.connection.release()
        except (RedisError, KombuError, OSError):
            return

    def _bound(self, key: bytes | str) -> Iterator[str]:
        if _text(key).endswith(".pidbox"):
            return
        for member in self.client.smembers(key):
            yield _text(member).rpartition(_SEPARATOR)[2]

    def _heads(self, lengths: dict[str, dict[int, int] | None]) -> dict[str, bytes]:
        """The message that is next in line of each queue that has one; queues whose messages are huge are let be."""
        nexts = {name: min(found) for name, found in lengths.items() if found and name not in self._skipped}
        pipe = self.client.pipeline(transaction=False)
        for name, priority in nexts.items():
            pipe.lindex(list_of(name, priority), -1)
        answers = dict(zip(nexts, pipe.execute(raise_on_error=False), strict=True)) if nexts else {}
        heads = {name: raw for name, raw in answers.items() if isinstance(raw, bytes)}
        self._skipped.update(name for name, raw in heads.items() if len(raw) > _LARGEST_BYTES)
        return heads


def databases_of(host: str, port: int, addresses: Collection[str]) -> frozenset[int]:
    """The databases that these clients use, asked of a Redis without a password; raises BrokerTrouble."""

    def ask(client: redis.Redis) -> frozenset[int]:
        rows = client.client_list()
        return frozenset(int(row["db"]) for row in rows if row["addr"] in addresses and row.get("cmd", "") in _WAITS)

    return _once(host, port, ask)


def _once(host: str, port: int, ask: Callable[[redis.Redis], _T]) -> _T:
    timeout_s, retry = CALL_TIMEOUT_S, Retry(NoBackoff(), 0)
    client = redis.Redis(
        host, port, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=retry, client_name=OWN_NAME
    )
    with _troubles():
        try:
            return ask(client)
        finally:
            client.close()


def _waits(row: dict[str, str]) -> bool:
    """Whether a client is in a blocked pop now: `cmd` alone is the last command, also one that is long over."""
    return row.get("cmd", "").lower() in _WAITS and "b" in row.get("flags", "")


def _as_kombu_has_it(url: str) -> str:
    """kombu of older versions does not know that Valkey speaks Redis."""
    return url.replace("valkeys://", "rediss://").replace("valkey://", "redis://")


def _text(said: bytes | str) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said


def list_of(queue: str, priority: int) -> str:
    """The key of a queue's list for one priority."""
    return f"{queue}{_SEPARATOR}{priority}" if priority else queue


def _by_priority(answers: list[Any]) -> dict[int, int] | None:
    """Lengths of the lists that hold something; None for a queue that is no list."""
    if not all(isinstance(length, int) for length in answers):
        return None
    return {priority: length for priority, length in zip(PRIORITIES, answers, strict=True) if length}


def _queue_look(name: str, found: dict[int, int], head: bytes | None) -> QueueLook:
    tag, published_us = (None, None) if head is None else _message(head)
    return QueueLook(name, sum(found.values()), found, next_up=tag, published_us=published_us)


def _message(raw: bytes) -> tuple[str | None, int | None]:
    """A message's delivery tag, and when it was sent if a header says so. The rest of it is not kept."""
    try:
        message = json.loads(raw)
        properties = message["properties"]
        headers = message.get("headers") or {}
        tag = properties.get("delivery_tag")
        said = properties.get("timestamp") or next(
            (headers[name] for name in _ENQUEUED_HEADERS if name in headers), None
        )
        return (None if tag is None else str(tag)), (None if said is None else int(float(said) * 1e6))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None, None


@contextmanager
def _troubles() -> Iterator[None]:
    """Turns what the packages raise into sentences of ours: theirs may quote what they were given."""
    try:
        yield
    except (AuthenticationError, AuthorizationError, NoPermissionError):
        raise BrokerTrouble("does not accept the credentials") from None
    except ResponseError as error:
        raise BrokerTrouble(f"answers with {_code(error)}") from None
    except (TimeoutError, redis.exceptions.TimeoutError):
        raise BrokerTrouble(f"does not answer within {CALL_TIMEOUT_S:g} s") from None
    except (RedisError, KombuError, OSError):
        raise BrokerTrouble("cannot be connected to") from None
    except ValueError:
        raise BrokerTrouble("has an address that cannot be understood") from None


def _code(error: ResponseError) -> str:
    """The first word of an error of Redis, such as LOADING, if it looks like one."""
    word = str(error).partition(" ")[0]
    return word if word.isupper() and word.isalpha() else "an error"
