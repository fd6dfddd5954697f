"""What all brokers have in common: their address, which is a secret, what a look at them finds, and what can go wrong."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

if TYPE_CHECKING:
    from kombu import Connection

CALL_TIMEOUT_S = 2.0
"""How long any one call to a broker may take."""

OWN_NAME = "reflexd"
"""The name of the agent's own connections, so that they are never taken for a consumer's."""

_REDIS = frozenset({"redis", "rediss", "valkey", "valkeys", "redis+socket", "sentinel"})
_AMQP = frozenset({"amqp", "amqps", "pyamqp"})
_PORTS = {"redis": 6379, "rediss": 6379, "valkey": 6379, "valkeys": 6379, "sentinel": 26379, "amqps": 5671}
_AMQP_PORT = 5672
_UNKNOWN = "unknown"
_NEXT = re.compile(r";(?=\s*[\w+]+://)")


class BrokerTrouble(Exception):
    """A broker cannot be asked. The text goes on after the broker's address, and never holds credentials."""


@dataclass(frozen=True, slots=True)
class Address:
    """A broker's URL, which may hold credentials; as text, and in `shown`, it has none."""

    url: str = field(repr=False)

    @property
    def scheme(self) -> str:
        """The transport: `redis`, `amqps`, …"""
        scheme, found, _ = self._first.partition("://")
        return scheme if found and scheme.replace("+", "").isalpha() else _UNKNOWN

    @property
    def is_redis(self) -> bool:
        """Whether it is Redis, or what speaks like it."""
        return self.scheme in _REDIS

    @property
    def is_amqp(self) -> bool:
        """Whether it is RabbitMQ, or what speaks AMQP 0-9-1 like it."""
        return self.scheme in _AMQP

    @property
    def host(self) -> str:
        """Name or address of its machine; empty for a unix socket."""
        parts = self._parts
        return (parts.hostname if parts is not None else None) or ""

    @property
    def port(self) -> int:
        """Its TCP port, or the usual one."""
        try:
            port = self._parts.port if self._parts is not None else None
        except ValueError:
            port = None
        return port or _PORTS.get(self.scheme, _AMQP_PORT)

    @property
    def path(self) -> str:
        """The database of Redis, the virtual host of RabbitMQ, the file of a unix socket; without its first slash."""
        return unquote(self._parts.path[1:]) if self._parts is not None else ""

    @property
    def shown(self) -> str:
        """The address as it may be told: nothing but transport, machine, port and path is ever taken over."""
        if self._parts is None:
            return f"{self.scheme}://…"
        if self.scheme == "redis+socket":
            return f"redis+socket:///{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host or "localhost"
        return f"{self.scheme}://{host}:{self.port}/{self.path}"

    @property
    def login(self) -> tuple[str, str] | None:
        """User and password; a secret."""
        parts = self._parts
        if parts is None or parts.username is None:
            return None
        return unquote(parts.username), unquote(parts.password or "")

    def __str__(self) -> str:
        return self.shown

    @property
    def _first(self) -> str:
        """Of several addresses of one cluster the first."""
        return _NEXT.split(self.url, maxsplit=1)[0].strip()

    @property
    def _parts(self) -> SplitResult | None:
        """The parts; None where a password that is not quoted may have slipped into another part."""
        try:
            parts = urlsplit(self._first)
        except ValueError:
            return None
        if self.scheme == _UNKNOWN:
            return None
        return None if "@" in unquote(parts.path + parts.query + parts.fragment) else parts


@dataclass(frozen=True, slots=True)
class QueueLook:
    """One queue at one moment. `length` counts what waits, over all priorities; `priorities` parts it by them.

    `next_up` names the message that is next in line, `published_us` is when it was sent, where it says so itself.
    `unacked` and `consumers` are None where this broker does not tell them for a queue.
    """

    name: str
    length: int
    priorities: Mapping[int, int] = field(default_factory=dict)
    unacked: int | None = None
    consumers: int | None = None
    next_up: str | None = None
    published_us: int | None = None


@dataclass(frozen=True, slots=True)
class BrokerLook:
    """All queues that were asked for and are there. `unacked` counts over all queues what nodes hold unacknowledged."""

    queues: Mapping[str, QueueLook]
    unacked: int | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """A connection that a broker knows: the far end's address, the database it uses, whether it waits for a message."""

    address: str
    database: int
    waits: bool


class Broker(Protocol):
    """A connection to a broker. Each method raises BrokerTrouble, after which the broker is to be closed."""

    connection: Connection

    def guarded(self) -> AbstractContextManager[None]:
        """Within it whatever `connection` raises becomes BrokerTrouble."""
        ...

    def look(self, queues: Collection[str]) -> BrokerLook:
        """How these queues stand. One that is not there is left out, or empty."""
        ...

    def queue_names(self) -> tuple[str, ...]:
        """Queues that tasks are sent to, as far as the broker has a list of them."""
        ...

    def clients(self) -> tuple[Client, ...] | None:
        """Everybody who is connected, but the agent; None where the broker does not tell."""
        ...

    def close(self) -> None:
        """Ends the connection; never fails."""
        ...


def is_internal(queue: str) -> bool:
    """Whether a queue is for commands to nodes and their events, and not for tasks."""
    return queue.endswith(".pidbox") or queue.startswith("celeryev")
