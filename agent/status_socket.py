"""The agent's answer to `reflexd status`: a unix socket that only root and the agent's own user may ask."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from agent.procfs import short_path

NAME = "status.sock"
MOST_BYTES = 16 * 1024 * 1024
WITHIN_S = 5.0
AT_ONCE = 4
_CREDENTIALS = struct.Struct("=iII")

log = logging.getLogger(__name__)


class NoAgentError(RuntimeError):
    """No agent answers there; the text says why and what to do."""


class StatusSocket:
    """Answers each connection with one document, made when it is asked for."""

    def __init__(self, folder: Path, document: Callable[[], dict[str, Any]], *, within_s: float = WITHIN_S) -> None:
        """A client has `within_s` to take its answer; of more than AT_ONCE clients the later ones get none."""
        self._path = folder / NAME
        self._document = document
        self._within_s = within_s
        self._server: asyncio.Server | None = None
        self._free = asyncio.Semaphore(AT_ONCE)

    async def open(self) -> str | None:
        """Begins to answer; what is wrong if it cannot, to follow "the agent". A file that a killed agent left is replaced."""
        try:
            self._path.unlink(missing_ok=True)
            with short_path(self._path.parent) as folder:
                self._server = await asyncio.start_unix_server(self._answer, folder / NAME)
            self._path.chmod(0o600)
        except OSError as error:
            return f"cannot be asked for its status: {self._path}: {error.strerror or error}"
        return None

    async def close(self) -> None:
        """Answers no more."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._free.locked() or not _may_ask(writer.get_extra_info("socket")):
                return
            async with self._free, asyncio.timeout(self._within_s):
                writer.write(orjson.dumps(self._document()))
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError) as error:
            log.info("a client that asked for the status did not take the answer (%s)", str(error) or "no time left")
            writer.transport.abort()
        finally:
            writer.close()


def ask(folder: Path) -> dict[str, Any]:
    """The running agent's document; raises NoAgentError."""
    path = folder / NAME
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as asking:
        asking.settimeout(WITHIN_S)
        try:
            with short_path(folder) as short:
                asking.connect(str(short / NAME))
            raw = _all_of(asking)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            raise NoAgentError(
                f"no agent answers at {path}. Is it running? Start it: sudo systemctl start reflexd, or sudo ./reflex up. "
                "An agent with another state_dir is asked with --state-dir. Without one: reflexd status --look"
            ) from None
        except PermissionError:
            raise NoAgentError(f"{path} may be asked by root and the agent's own user only; run it with sudo") from None
        except OSError as error:
            raise NoAgentError(f"the agent at {path} does not answer: {error}") from None
    return _document_of(raw, path)


def _all_of(asking: socket.socket) -> bytes:
    pieces = bytearray()
    while len(pieces) < MOST_BYTES and (piece := asking.recv(256 * 1024)):
        pieces += piece
    return bytes(pieces)


def _document_of(raw: bytes, path: Path) -> dict[str, Any]:
    if not raw:
        raise NoAgentError(
            f"the agent at {path} gives no answer: it answers root and its own user, {AT_ONCE} at once; its log may say more"
        )
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise NoAgentError(f"the agent at {path} broke off after {len(raw)} bytes; ask again") from None
    if not isinstance(document, dict):
        raise NoAgentError(f"what answers at {path} is no agent of Reflex")
    return document


def _may_ask(connection: Any) -> bool:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, uid, _gid = _CREDENTIALS.unpack(raw)
    return uid in (0, os.geteuid())
