"""The only place of the agent that starts programs and sends signals."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

_PIECE_BYTES = 64 * 1024


class Child:
    """A program that the agent started for a task of its own; it never outlives the task."""

    def __init__(self, command: Sequence[str], *, inherit: Sequence[int] = ()) -> None:
        """Starts it with the descriptors `inherit` open and nothing else; raises OSError when it cannot be started."""
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=inherit
        )
        self.pid = self._process.pid

    def let_go(self) -> None:
        """Closes its standard input, which a child that waits for it takes as the word to go on."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def wait(self, seconds: float) -> int | None:
        """Its exit code, negative for a signal; None when it is still there after that time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Kills it if it is still there, and takes its exit status."""
        self.let_go()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def answers(command: Sequence[str], seconds: float) -> bool:
    """Whether the program can be started and ends with exit code 0 within that time."""
    try:
        child = Child(command)
    except OSError:
        return False
    code = child.wait(seconds)
    child.end()
    return code == 0


@dataclass(frozen=True, slots=True)
class Output:
    """What a program that was run to its end said; `code` is None when it took too long and was killed."""

    code: int | None
    text: bytes
    errors: bytes


async def output_of(command: Sequence[str], *, seconds: float, most_bytes: int) -> Output:
    """Runs a program for its output, of which no more than `most_bytes` are kept; raises OSError when it cannot be started."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(seconds):
            text, errors = await asyncio.gather(_most(process.stdout, most_bytes), _most(process.stderr, most_bytes))
            return Output(await process.wait(), text, errors)
    except TimeoutError:
        return Output(None, b"", b"")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _most(stream: asyncio.StreamReader, most_bytes: int) -> bytes:
    """The beginning of a stream, read to its end."""
    kept = bytearray()
    while piece := await stream.read(_PIECE_BYTES):
        kept += piece[: most_bytes - len(kept)]
    return bytes(kept)
