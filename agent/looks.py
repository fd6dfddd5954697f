"""Looks at processes for the kinds of workers: /proc, with what is dear to read kept for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from agent.procfs import Listener, OpenFile, ProcFs

KEPT_S = 0.25
FRESH_S = 0.02
"""A process whose sockets are all unknown may have begun to listen since the look; older ones are not believed then."""


class Looks:
    """What a kind may look at."""

    def __init__(self, procfs: ProcFs, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._procfs = procfs
        self._clock_s = clock_s
        self._listening: dict[str, tuple[float, Mapping[int, Listener]]] = {}

    def command(self, pid: int) -> tuple[str, ...]:
        """The argument vector, or the title that the process wrote over it."""
        return self._procfs.command(pid)

    def open_files(self, pid: int, name_part: str) -> tuple[OpenFile, ...]:
        """The open files whose link contains `name_part`."""
        return self._procfs.open_files(pid, name_part)

    def awaited(self, pid: int) -> frozenset[int]:
        """Inodes of the files that the process waits on by epoll."""
        return self._procfs.awaited(pid)

    def sleeps_in(self, pid: int) -> str | None:
        """The kernel's function that the main thread sleeps in; None while it runs."""
        return self._procfs.sleeps_in(pid)

    def listening_inodes(self, pid: int) -> frozenset[int]:
        """Inodes of all listening sockets in the process's network namespace; may be KEPT_S old."""
        return frozenset(self._listening_to(pid))

    def listeners(self, pid: int) -> tuple[Listener, ...]:
        """The listening sockets that the process holds open; if any is known, those of its namespace may be KEPT_S old."""
        held = self._procfs.sockets(pid)
        if not held:
            return ()
        every = self._listening_to(pid)
        if not held & every.keys():
            every = self._listening_to(pid, kept_s=FRESH_S)
        return tuple(every[inode] for inode in every if inode in held)

    def _listening_to(self, pid: int, *, kept_s: float = KEPT_S) -> Mapping[int, Listener]:
        name, now_s = self._procfs.network(pid), self._clock_s()
        kept = self._listening.get(name)
        if kept is not None and now_s - kept[0] < kept_s:
            return kept[1]
        self._listening = {one: old for one, old in self._listening.items() if now_s - old[0] < KEPT_S}
        found = self._procfs.listening(pid)
        if name:
            self._listening[name] = (now_s, found)
        return found


class ProcessFiles:
    """The files of one process as it sees them."""

    def __init__(self, procfs: ProcFs, pid: int) -> None:
        self._procfs = procfs
        self._pid = pid

    def has(self, path: str) -> bool:
        """Whether there is one; a relative path begins at the working folder."""
        return self._procfs.has_file(self._pid, path)

    def text(self, path: str) -> str:
        """What it says, up to a bound; nothing when it cannot be read."""
        return self._procfs.file_text(self._pid, path)
