"""What the threads of a Python process are doing, read from its memory by py-spy without stopping it for a moment."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from agent.executor import output_of
from agent.procfs import ProcFs

WITHIN_S = 3.0
MOST_BYTES = 512 * 1024
MOST_THREADS, MOST_FRAMES = 64, 150
_LONGEST = 200
_WAITS_FOR_WORK = frozenset(
    {
        ("concurrent/futures/thread.py", "_worker"),
        ("_backends/_asyncio.py", "run"),
        ("asyncio/base_events.py", "_run_once"),
    }
)
_WAITING_FILES = ("threading.py", "queue.py", "selectors.py")
_SERVERS = ("workers/gthread.py", "anyio/_backends/_asyncio.py", "asgiref/sync.py")
_BEGINS_THREAD = "_bootstrap"


@dataclass(frozen=True, slots=True)
class Frame:
    """One call: function, file as it was imported, and line."""

    function: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.function} ({'/'.join(Path(self.file).parts[-2:])}:{self.line})"


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread, innermost call first. `is_active`: it runs, or waits for nothing that the system knows."""

    name: str
    os_id: int
    is_active: bool
    has_gil: bool
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Stack:
    """All threads of a process at about one moment; the main thread first. py-spy does not stop the process: a thread
    that changes its calls just then may be shown wrongly."""

    threads: tuple[Thread, ...]

    @property
    def main(self) -> Thread | None:
        """The thread that began the process."""
        return self.threads[0] if self.threads else None


@dataclass(frozen=True, slots=True)
class Untold:
    """Why there is no stack; follows "no Python stack: "."""

    reason: str


class Stacks:
    """Reads stacks, one process at a time."""

    def __init__(self, procfs: ProcFs, program: Path | None = None) -> None:
        """`program` is py-spy's; without one, the one beside this interpreter."""
        self._procfs = procfs
        self._program = program or Path(sys.executable).with_name("py-spy")
        self._one_at_a_time = asyncio.Semaphore(1)

    async def of(self, pid: int, start_ticks: int) -> Stack | Untold:
        """The stacks of this very process. Bounded in time and size; never stops the process."""
        async with self._one_at_a_time:
            if self._procfs.start_ticks(pid) != start_ticks:
                return Untold("the process is gone")
            command = [str(self._program), "dump", "--nonblocking", "--json", "--pid", str(pid)]
            try:
                output = await output_of(command, seconds=WITHIN_S, most_bytes=MOST_BYTES)
            except OSError as error:
                return Untold(f"py-spy cannot be started ({error.strerror}); it is installed with the agent's package")
            if self._procfs.start_ticks(pid) != start_ticks:
                return Untold("the process is gone")
            if output.code is None:
                return Untold(f"py-spy took longer than {WITHIN_S:g} s")
            if output.code:
                return Untold(_why(output.errors))
        try:
            return _stack(orjson.loads(output.text), self._procfs.inner_pid(pid) or pid)
        except (ValueError, KeyError, TypeError):
            return Untold("py-spy's answer cannot be read")

    async def stack(self, pid: int, start_ticks: int) -> tuple[str, ...] | None:
        """The main thread's calls as texts, innermost first; None when they cannot be had."""
        found = await self.of(pid, start_ticks)
        if isinstance(found, Untold) or found.main is None:
            return None
        return tuple(str(frame) for frame in found.main.frames)


def waits_for_work(thread: Thread) -> bool:
    """Whether a thread of a pool, or an event loop, waits for something to do: it is in no call of the program's own."""
    first = next((frame for frame in thread.frames if not frame.file.endswith(_WAITING_FILES)), None)
    if first is None:
        return False
    name = first.function.rpartition(".")[2]
    return any(first.file.endswith(file) and name == waits for file, waits in _WAITS_FOR_WORK)


def serves_request(thread: Thread) -> bool:
    """Whether a thread besides the main one is in a request: a server's pool is among its callers, or it is no thread
    that Python began, as those of uWSGI are."""
    if any(frame.file.endswith(_SERVERS) for frame in thread.frames):
        return True
    return not any(frame.function.rpartition(".")[2] == _BEGINS_THREAD for frame in thread.frames)


def lines_of(stack: Stack) -> list[str]:
    """The stacks as people read them, the main thread first, innermost call first."""
    lines = []
    for thread in stack.threads:
        marks = [mark for mark, there in (("runs", thread.is_active), ("holds the GIL", thread.has_gil)) if there]
        lines.append(f"{thread.name or 'thread'} (id {thread.os_id}{', ' * bool(marks)}{', '.join(marks)})")
        lines += [f"    {frame}" for frame in thread.frames]
    return lines


def _stack(document: Sequence[dict[str, Any]], pid: int) -> Stack:
    """`pid` as the process knows itself, for so py-spy numbers its threads."""
    main_first = sorted(document, key=lambda one: one.get("os_thread_id") != pid)
    return Stack(tuple(_thread(one) for one in main_first[:MOST_THREADS]))


def _thread(one: dict[str, Any]) -> Thread:
    frames = tuple(
        Frame(str(frame["name"])[:_LONGEST], str(frame["filename"])[-_LONGEST:], int(frame["line"]))
        for frame in one["frames"][:MOST_FRAMES]
    )
    name, os_id = str(one.get("thread_name") or "")[:_LONGEST], int(one.get("os_thread_id") or 0)
    return Thread(name, os_id, bool(one["active"]), bool(one["owns_gil"]), frames)


def _why(errors: bytes) -> str:
    """py-spy's own words, in one short line."""
    lines = [line.strip() for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    words = "; ".join(line.removeprefix("Error: ").removeprefix("Reason: ") for line in lines[:2]) or "no reason given"
    return f"py-spy: {words[:_LONGEST]}"
