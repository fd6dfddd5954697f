"""One request to a web server, and one task to a Celery node, as clients send them."""

from __future__ import annotations

import contextlib
import json
import socket
import uuid
from pathlib import Path

PATIENCE_S = 2.0


def visit(unix: Path, port: int, path: str) -> None:
    """Asks over the unix socket if there is one, else over TCP. A connection that breaks is not the visitor's concern."""
    where: str | tuple[str, int] = str(unix) if unix.exists() else ("127.0.0.1", port)
    family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET
    with contextlib.closing(socket.socket(family)) as client, contextlib.suppress(OSError):
        client.settimeout(PATIENCE_S)
        client.connect(where)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n".encode())
        while client.recv(65536):
            pass


class Tasks:
    """Sends tasks to nodes at one Redis."""

    def __init__(self, url: str) -> None:
        self.url = url

    def send(self, queue: str, name: str) -> None:
        """One task without arguments, in Celery's message protocol 2."""
        import kombu

        task = str(uuid.uuid4())
        headers = {"lang": "py", "task": name, "id": task, "root_id": task, "parent_id": None, "group": None}
        body = json.dumps([[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
        with kombu.Connection(self.url) as connection, connection.Producer() as producer:
            producer.publish(
                body,
                exchange="",
                routing_key=queue,
                headers=headers,
                correlation_id=task,
                content_type="application/json",
                content_encoding="utf-8",
            )
