"""Asks nodes over Celery's own remote control (pidbox): one question to all, or to some by name, answers as they come.

kombu's Mailbox does the same, but tries again for ever when a broker is gone; here every call ends in time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from kombu import Connection

Answers = Mapping[str, Mapping[str, object]]
"""By node: by question: the answer as it came."""

_NAMESPACE = "celery"
_REPLY_QUEUE_EXPIRES_S = 60.0
_DRAIN_S = 0.1


class Remote:
    """A place to get answers at, on an open connection. What its calls raise is what the connection raises."""

    def __init__(self, connection: Connection) -> None:
        from kombu import Consumer, Exchange, Producer, Queue

        self._connection = connection
        self._channel = connection.channel()
        self._key = str(uuid4())
        common = {"durable": False, "delivery_mode": "transient"}
        self._commands = Exchange(f"{_NAMESPACE}.pidbox", type="fanout", **common)
        replies = Exchange(f"reply.{_NAMESPACE}.pidbox", type="direct", **common)
        queue = Queue(
            f"{self._key}.{replies.name}",
            exchange=replies,
            routing_key=self._key,
            durable=False,
            exclusive=True,
            auto_delete=True,
            expires=_REPLY_QUEUE_EXPIRES_S,
        )
        self._queue = queue.name
        self._reply_to = {"exchange": replies.name, "routing_key": self._key}
        self._producer = Producer(self._channel, auto_declare=False)
        self._consumer = Consumer(
            self._channel, [queue], callbacks=[self._answered], on_decode_error=_ignore, accept=["json"], no_ack=True
        )
        self._consumer.consume()
        self._tickets: dict[str, str] = {}
        self._answers: dict[str, dict[str, object]] = {}

    def ask(
        self,
        questions: Mapping[str, Mapping[str, object]],
        nodes: Sequence[str] | None,
        timeout_s: float,
        is_enough: Callable[[Answers], bool] = lambda _answers: False,
    ) -> Answers:
        """Answers to questions (by name, with their arguments) of these nodes, or of all when `nodes` is None.

        Ends when all that were asked by name have answered, when `is_enough` says so, or after `timeout_s`.
        """
        self._answers, self._tickets = {}, {str(uuid4()): question for question in questions}
        for ticket, question in self._tickets.items():
            self._send(question, questions[question], nodes, ticket, timeout_s)
        wanted = None if nodes is None else len(nodes) * len(questions)
        ends = time.monotonic() + timeout_s
        while (left_s := ends - time.monotonic()) > 0:
            if wanted is not None and sum(map(len, self._answers.values())) >= wanted:
                break
            if is_enough(self._answers):
                break
            try:
                self._connection.drain_events(timeout=min(left_s, _DRAIN_S))
            except TimeoutError:
                continue
        return self._answers

    def close(self) -> None:
        """Takes its reply queue off the broker."""
        self._consumer.cancel()
        self._channel.queue_delete(self._queue)
        self._channel.close()

    def _send(
        self, question: str, arguments: Mapping[str, object], nodes: Sequence[str] | None, ticket: str, timeout_s: float
    ) -> None:
        message = {
            "method": question,
            "arguments": dict(arguments),
            "destination": None if nodes is None else list(nodes),
            "pattern": None,
            "matcher": None,
            "ticket": ticket,
            "reply_to": self._reply_to,
        }
        headers = {"clock": 0, "expires": time.time() + timeout_s}
        self._producer.publish(
            message,
            exchange=self._commands.name,
            declare=[self._commands],
            headers=headers,
            serializer="json",
            retry=False,
        )

    def _answered(self, body: Any, message: Any) -> None:
        question = self._tickets.get(message.headers.get("ticket"))
        if question is None or not isinstance(body, dict):
            return
        for node, answer in body.items():
            self._answers.setdefault(node, {})[question] = answer


def _ignore(_message: Any, _error: Exception) -> None:
    """An answer that is no JSON is none."""
