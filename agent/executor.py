"""The only place of the agent that starts programs and sends signals."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pwd
import signal
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_PIECE_BYTES = 64 * 1024
_IN = ("/usr/bin/env", "-C")
"""Goes into a folder as the program's user, and not as the agent, who may go further."""


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


class Held:
    """A process held by a pidfd: whatever is done through it reaches this process or none, never a successor of its pid."""

    def __init__(self, pid: int) -> None:
        """Raises OSError when there is no such process."""
        self._fd = os.pidfd_open(pid)

    def signal(self, number: int) -> None:
        """Sends a signal; raises OSError when the process is gone or may not be signalled."""
        signal.pidfd_send_signal(self._fd, number)

    async def gone(self, seconds: float) -> bool:
        """Whether the process ends within that time; returns when it does."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._fd, ended.set)
        try:
            async with asyncio.timeout(seconds):
                await ended.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._fd)
        return True

    def close(self) -> None:
        """Lets go of it."""
        os.close(self._fd)


def tell_pipe(path: str, said: bytes) -> None:
    """Writes into a pipe that somebody reads; never waits, and writes into nothing else. Raises OSError."""
    file = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISFIFO(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "it is no pipe any more")
        os.write(file, said)
    finally:
        os.close(file)


def renice(pid: int, nice: int) -> None:
    """Sets the nice value; raises OSError."""
    os.setpriority(os.PRIO_PROCESS, pid, nice)


def _as_user(uid: int | None) -> dict[str, object]:
    """What makes a program run as another user, with that user's groups only; nothing for the agent's own."""
    if uid is None or uid == os.geteuid():
        return {}
    try:
        entry = pwd.getpwuid(uid)
        groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
        return {"user": uid, "group": entry.pw_gid, "extra_groups": groups}
    except KeyError:
        return {"user": uid, "group": uid, "extra_groups": []}


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


async def output_of(
    command: Sequence[str],
    *,
    seconds: float,
    most_bytes: int,
    folder: str | None = None,
    uid: int | None = None,
    environment: Mapping[str, str] | None = None,
    given: bytes = b"",
) -> Output:
    """Runs a program for its output, of which no more than `most_bytes` are kept; raises OSError when it cannot be started.

    `given` is its standard input.
    """
    other: Any = _as_user(uid)
    if other and folder is not None:
        command, folder = (*_IN, folder, *command), "/"
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=environment,
        **other,
        stdin=asyncio.subprocess.PIPE if given else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(seconds):
            reads = (_most(process.stdout, most_bytes), _most(process.stderr, most_bytes))
            text, errors, _ = await asyncio.gather(*reads, _give(process.stdin, given))
            return Output(await process.wait(), text, errors)
    except TimeoutError:
        return Output(None, b"", b"")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _give(stream: asyncio.StreamWriter | None, given: bytes) -> None:
    """Writes what a program is given; one that does not read it to the end has its reasons."""
    if stream is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(given)
        await stream.drain()
    stream.close()


async def _most(stream: asyncio.StreamReader, most_bytes: int) -> bytes:
    """The beginning of a stream, read to its end."""
    kept = bytearray()
    while piece := await stream.read(_PIECE_BYTES):
        kept += piece[: most_bytes - len(kept)]
    return bytes(kept)
