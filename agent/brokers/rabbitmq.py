"""RabbitMQ as Celery's broker: passive declares, and the management API where it answers to the same credentials."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import quote

from amqp.exceptions import AccessRefused, AMQPError, NotAllowed, NotFound
from kombu import Connection
from kombu.exceptions import KombuError

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

_MANAGEMENT_PORT, _MANAGEMENT_TLS_PORT = 15672, 15671
_COLUMNS = "name,messages_unacknowledged,head_message_timestamp"
_FOREGO_AFTER = 3


class RabbitBroker:
    """One virtual host of one RabbitMQ. `connection` is kombu's, for commands to nodes."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._management = _Management(address)
        options = {
            "read_timeout": CALL_TIMEOUT_S,
            "write_timeout": CALL_TIMEOUT_S,
            "client_properties": {"connection_name": OWN_NAME},
        }
        with _troubles():
            self.connection = Connection(
                address.url, connect_timeout=CALL_TIMEOUT_S, heartbeat=0, transport_options=options
            )
            self._channel: Any = self.connection.channel()

    def guarded(self) -> AbstractContextManager[None]:
        """Within it whatever `connection` raises becomes BrokerTrouble."""
        return _troubles()

    def look(self, queues: Collection[str]) -> BrokerLook:
        """Ready messages and consumers by passive declares; what is not acknowledged from the management API."""
        looks: dict[str, QueueLook] = {}
        for name in sorted(queues):
            with _troubles():
                declared = self._declared(name)
            if declared is not None:
                said = self._management.queue(name)
                unacked, stamp = said.get("messages_unacknowledged"), said.get("head_message_timestamp")
                looks[name] = QueueLook(
                    name,
                    declared.message_count,
                    unacked=unacked if isinstance(unacked, int) else None,
                    consumers=declared.consumer_count,
                    published_us=stamp * 1_000_000 if isinstance(stamp, int) else None,
                )
        known = [look.unacked for look in looks.values() if look.unacked is not None]
        return BrokerLook(looks, sum(known) if known else None)

    def queue_names(self) -> tuple[str, ...]:
        """From the management API; nothing without it."""
        return tuple(name for name in self._management.names() if not is_internal(name))

    def clients(self) -> tuple[Client, ...] | None:
        """Not told: whether a queue has a consumer, its passive declare says."""
        return None

    def close(self) -> None:
        """Ends the connection; a broker that is gone makes no difference."""
        self._management.close()
        try:
            self.connection.release()
        except (AMQPError, KombuError, OSError):
            return

    def _declared(self, name: str) -> Any | None:
        """The answer to a passive declare; None for a queue that is not there, which costs the channel."""
        try:
            return self._channel.queue_declare(name, passive=True)
        except (NotFound, AccessRefused):
            self._channel = self.connection.channel()
            return None


class _Management:
    """The management API with the broker's own credentials. Where it is not to be had, it is not asked any more."""

    def __init__(self, address: Address) -> None:
        user, password = address.login or ("guest", "guest")
        credentials = f"{user}:{password}".encode()
        self._headers = {"Authorization": f"Basic {base64.b64encode(credentials).decode()}"}
        self._vhost = quote(address.path or "/", safe="")
        host = address.host or "localhost"
        self._http: http.client.HTTPConnection = (
            http.client.HTTPSConnection(host, _MANAGEMENT_TLS_PORT, timeout=CALL_TIMEOUT_S)
            if address.scheme == "amqps"
            else http.client.HTTPConnection(host, _MANAGEMENT_PORT, timeout=CALL_TIMEOUT_S)
        )
        self._failed = 0

    def queue(self, name: str) -> dict[str, Any]:
        """What it says of one queue; nothing where it does not answer."""
        said = self._get(f"/api/queues/{self._vhost}/{quote(name, safe='')}?columns={_COLUMNS}")
        return said if isinstance(said, dict) else {}

    def names(self) -> tuple[str, ...]:
        """All queues of the virtual host."""
        said = self._get(f"/api/queues/{self._vhost}?columns=name")
        return tuple(str(row.get("name")) for row in said) if isinstance(said, list) else ()

    def close(self) -> None:
        """Ends the connection."""
        self._http.close()

    def _get(self, path: str) -> object:
        if self._failed >= _FOREGO_AFTER:
            return None
        try:
            self._http.request("GET", path, headers=self._headers)
            answer = self._http.getresponse()
            body = answer.read()
            if answer.status == http.client.OK:
                self._failed = 0
                return json.loads(body)
        except (OSError, http.client.HTTPException, ValueError):
            self._http.close()
        self._failed += 1
        return None


@contextmanager
def _troubles() -> Iterator[None]:
    """Turns what the packages raise into sentences of ours: theirs may quote what they were given."""
    try:
        yield
    except (AccessRefused, NotAllowed):
        raise BrokerTrouble("does not accept the credentials, or not for this virtual host") from None
    except TimeoutError:
        raise BrokerTrouble(f"does not answer within {CALL_TIMEOUT_S:g} s") from None
    except (AMQPError, KombuError, OSError):
        raise BrokerTrouble("cannot be connected to") from None
    except ValueError:
        raise BrokerTrouble("has an address that cannot be understood") from None
