"""Circus's endpoint, as far as starting a watcher's process again takes: JSON over ZMTP 3.0, spoken here.

`circusctl` lies in the virtual environment of whoever owns circus: run by the agent, it would be that user's program with
the agent's rights. The few bytes that a ZeroMQ socket says (https://rfc.zeromq.org/spec/23/) run nobody's code.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

MOST_BYTES = 256 * 1024
MOST_WATCHERS = 500
ASK_S = 10.0
_AGAIN_S = 0.3
"""Circus does one thing at a time, and says no to a second one."""

_BUSY = re.compile(r"is already running|arbiter is (re)?starting")
_NAME = re.compile(r"\w[\w.@:-]{0,99}")
_GREETING = b"\xff\0\0\0\0\0\0\0\1\x7f" + b"\3\0" + b"NULL".ljust(20, b"\0") + b"\0" * 32
_MORE, _LONG, _COMMAND = 1, 2, 4


class CircusTrouble(Exception):
    """It cannot be asked, or says no; the text ends a sentence."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """A watcher of the circus at an endpoint such as `tcp://127.0.0.1:5555` or `ipc:///run/circus.sock`."""

    endpoint: str
    name: str


async def restart(
    watcher: Watcher, within_s: float, *, child: int = 0, only_start: bool = False, with_all: bool = False
) -> None:
    """Ends the watcher's process if it runs, and starts it; returns once circus says that it has. Raises CircusTrouble.

    `child` is the process that it must have now. With `only_start` a process that runs is left alone. A watcher with more
    than one process is left alone unless `with_all`.
    """
    async with _asking(watcher.endpoint, within_s) as ask:
        pids = await _pids(ask, watcher.name)
        if len(pids) > 1 and not with_all:
            raise CircusTrouble(f"it has {len(pids)} processes, and circus restarts all of them or none")
        if child and child not in pids:
            raise CircusTrouble(f"pid {child} is no process of it any more")
        if not (only_start and pids):
            await _when_free(ask, "restart", {"name": watcher.name, "waiting": True, "match": "simple"})


async def watcher_of(endpoint: str, child: int) -> str:
    """The name of the watcher that has begun a process; nothing if none has, or its name is none. Raises CircusTrouble."""
    async with _asking(endpoint, ASK_S) as ask:
        names = (await ask("list", {})).get("watchers")
        for name in names[:MOST_WATCHERS] if isinstance(names, list) else ():
            if isinstance(name, str) and _NAME.fullmatch(name) and child in await _pids(ask, name):
                return name
    return ""


class _Ask:
    """One connection. Each question is answered before the next is put."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._asked = 0

    async def greet(self) -> None:
        """The handshake; raises CircusTrouble where nobody listens who is asked as circus is."""
        self._writer.write(_GREETING)
        said = await self._reader.readexactly(64)
        if said[:1] != b"\xff" or said[10] < 3 or said[12:32] != _GREETING[12:32]:
            raise CircusTrouble("what listens there is no open ZeroMQ socket")
        self._writer.write(_frame(b"\5READY\x0bSocket-Type\0\0\0\6DEALER\x08Identity\0\0\0\0", _COMMAND))
        flags, ready = await self._frame()
        if not flags & _COMMAND or b"Socket-Type\0\0\0\6ROUTER" not in ready:
            raise CircusTrouble("what listens there is not circus's endpoint")

    async def __call__(self, command: str, properties: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer, which is a yes; raises CircusTrouble."""
        self._asked += 1
        asked = {"id": str(self._asked), "command": command, "properties": properties}
        self._writer.write(_frame(json.dumps(asked).encode(), 0))
        while True:
            flags, body = await self._frame()
            if not flags & (_COMMAND | _MORE):
                break
        answer = json.loads(body)
        if not isinstance(answer, dict) or answer.get("id") != asked["id"]:
            raise CircusTrouble("it answers something else")
        if answer.get("status") != "ok":
            raise CircusTrouble(f"circus says {str(answer.get('reason'))[:200]}")
        return answer

    async def _frame(self) -> tuple[int, bytes]:
        flags = (await self._reader.readexactly(1))[0]
        size: int = struct.unpack(">Q", await self._reader.readexactly(8))[0] if flags & _LONG else 0
        if not flags & _LONG:
            size = (await self._reader.readexactly(1))[0]
        if size > MOST_BYTES:
            raise CircusTrouble(f"it answers with more than {MOST_BYTES} bytes")
        return flags, await self._reader.readexactly(size)


@asynccontextmanager
async def _asking(endpoint: str, within_s: float) -> AsyncIterator[_Ask]:
    """Everything that goes wrong in talking becomes CircusTrouble."""
    writer = None
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await _connected(endpoint)
            ask = _Ask(reader, writer)
            await ask.greet()
            yield ask
    except TimeoutError:
        raise CircusTrouble(f"circus at {endpoint} has not done it within {within_s:g} s") from None
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise CircusTrouble(f"circus at {endpoint} cannot be asked: {error}") from None
    finally:
        if writer is not None:
            writer.close()


async def _connected(endpoint: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if endpoint.startswith("ipc://"):
        return await asyncio.open_unix_connection(endpoint.removeprefix("ipc://"))
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if not endpoint.startswith("tcp://") or not port.isdecimal():
        raise CircusTrouble("it is not known where circus listens")
    return await asyncio.open_connection(host, int(port))


async def _pids(ask: _Ask, name: str) -> list[int]:
    pids = (await ask("list", {"name": name})).get("pids")
    return [pid for pid in pids if isinstance(pid, int)] if isinstance(pids, list) else []


async def _when_free(ask: _Ask, command: str, properties: Mapping[str, Any]) -> None:
    """Again and again until circus does nothing else; the connection's time bounds it."""
    while True:
        try:
            await ask(command, properties)
        except CircusTrouble as trouble:
            if not _BUSY.search(str(trouble)):
                raise
            await asyncio.sleep(_AGAIN_S)
        else:
            return


def _frame(body: bytes, flags: int) -> bytes:
    if len(body) < 256:
        return bytes((flags, len(body))) + body
    return struct.pack(">BQ", flags | _LONG, len(body)) + body
