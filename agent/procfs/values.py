"""What is read of processes, sockets and memory: plain values."""

from __future__ import annotations

import os
from dataclasses import dataclass

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """One process as /proc shows it. `start_ticks` is its start since boot, in clock ticks."""

    pid: int
    start_ticks: int
    parent_pid: int
    comm: str
    argv: tuple[str, ...]
    uid: int
    folder: str
    cgroup: str

    @property
    def ident(self) -> tuple[int, int]:
        """What names this process and never its successor."""
        return (self.pid, self.start_ticks)


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open file of a process: what its link says, and the file's own times and mode. Times in ns."""

    fd: int
    link: str
    inode: int
    modified_ns: int
    changed_ns: int
    mode: int


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket: its inode and its address, such as `tcp 127.0.0.1:8000` or `unix /run/app.sock`."""

    inode: int
    address: str


@dataclass(frozen=True, slots=True)
class Peer:
    """An established TCP connection: this end and the far end, such as `127.0.0.1:6379`."""

    own: str
    far: str


@dataclass(frozen=True, slots=True)
class Connection:
    """A TCP socket that does not listen, with the state's name as ss prints it, and the bytes that wait in it."""

    own: str
    far: str
    state: str
    unsent_bytes: int
    unread_bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used: CPU time since its start in ns, resident memory in bytes."""

    cpu_ns: int
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Shares:
    """Memory of a process in bytes: `pss` counts a page that n processes share as 1/n, `uss` only those it has alone."""

    pss_bytes: int
    uss_bytes: int


@dataclass(frozen=True, slots=True)
class Remains:
    """What /proc shows of a process that ends or has ended: `is_dead` from the moment on when its parent may reap it."""

    is_dead: bool
    cpu_ns: int
    uid: int
    comm: str


@dataclass(frozen=True, slots=True)
class OomCount:
    """What the kernel counted in one memory cgroup since it was made: processes that its OOM killer killed, and how
    often all processes of a cgroup had to die together (memory.oom.group). Version 2 counts the cgroups below it, too.
    """

    kills: int
    group_kills: int = 0
