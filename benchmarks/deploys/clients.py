"""Clients of a service: new connections at a steady pace, whatever comes back, from a process of their own.

`python -m benchmarks.deploys.clients PORT` tells each answer in a line and ends with its input. Clients are on other
machines, as a rule: the process goes before others, so that its own wait for a CPU is not taken for the service's.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from typing import Self

from benchmarks.deploys.counting import Answer
from demo.stage import ROOT, StageError

A_SECOND = 100
GIVE_UP_S = 10.0
REQUEST = b"GET / HTTP/1.1\r\nHost: market\r\nConnection: close\r\n\r\n"
PRIORITY = -10
LOOK_S = 0.02


class Clients:
    """The process, and its answers so far. Use as an async context manager; at its end every answer is there."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answers: list[Answer] = []

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.deploys.clients", str(self._port), cwd=ROOT, stdin=pipe, stdout=pipe,
            start_new_session=True,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reading

    async def until(self, is_so: Callable[[float], bool], within_s: float) -> bool:
        """Whether it became so in time; `is_so` is given the time of now."""
        ends_s = time.monotonic() + within_s
        while not is_so(time.monotonic()):
            if time.monotonic() > ends_s:
                return False
            if self._process.returncode is not None:
                raise StageError("the clients ended")
            await asyncio.sleep(LOOK_S)
        return True

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.answers.append(answer_from_line(line.decode()))


def line_of(answer: Answer) -> str:
    """An answer as a line."""
    return f"{answer.began_s:.6f} {answer.took_s:.6f} {answer.version or '-'} {answer.trouble}\n"


def answer_from_line(line: str) -> Answer:
    """The answer that a line tells."""
    began_s, took_s, version, trouble = line.rstrip("\n").split(" ", 3)
    return Answer(float(began_s), float(took_s), None if version == "-" else version, trouble)


async def _ask(port: int) -> None:
    began_s, version, trouble = time.monotonic(), None, ""
    try:
        async with asyncio.timeout(GIVE_UP_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            said = await reader.read()
            writer.close()
        if said.startswith(b"HTTP/1.1 200"):
            version = said.rpartition(b"\r\n\r\n")[2].decode()
        else:
            trouble = repr(said[:60])
    except (OSError, TimeoutError) as error:
        trouble = repr(error)[:100]
    sys.stdout.write(line_of(Answer(began_s, time.monotonic() - began_s, version, trouble)))
    sys.stdout.flush()


async def _ask_until(ended: asyncio.Future[bytes], port: int) -> None:
    asking: set[asyncio.Task[None]] = set()
    at_s = time.monotonic()
    while not ended.done():
        at_s += 1 / A_SECOND
        await asyncio.sleep(max(at_s - time.monotonic(), 0))
        task = asyncio.create_task(_ask(port))
        asking.add(task)
        task.add_done_callback(asking.discard)
    await asyncio.gather(*asking)


async def _main(port: int) -> None:
    ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.buffer.read))
    await _ask_until(ended, port)


if __name__ == "__main__":
    os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    asyncio.run(_main(int(sys.argv[1])))
