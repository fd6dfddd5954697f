"""What a thread does just now, seen from outside: it runs, or it sleeps in a system call, and for whom it waits there."""

from __future__ import annotations

import platform
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from agent.health import Doing
from agent.procfs import ProcFs

CALLS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "x86_64": {
        "accept": (43, 288),
        "connect": (42,),
        "epoll": (232, 281, 441),
        "fcntl": (72,),
        "flock": (73,),
        "futex": (202,),
        "poll": (7, 271),
        "read": (0,),
        "recvfrom": (45,),
        "recvmsg": (47,),
        "select": (23, 270),
        "sleep": (35, 230),
        "wait": (61, 247),
    },
    "aarch64": {
        "accept": (202, 242),
        "connect": (203,),
        "epoll": (22, 441),
        "fcntl": (25,),
        "flock": (32,),
        "futex": (98,),
        "poll": (73,),
        "read": (63,),
        "recvfrom": (207,),
        "recvmsg": (212,),
        "select": (72,),
        "sleep": (101, 115),
        "wait": (95, 260),
    },
}
"""The calls that servers sleep in and their numbers; variants of one call share a name."""

_BY_FUNCTION: Mapping[str, Doing] = {
    "accept": "clients",
    "poll": "clients",
    "select": "clients",
    "futex": "lock",
}
_RUNS = "running"
_POLLFD = struct.Struct("iHH")
_MOST_POLLED = 64
_LONG_BITS, _LONG_BYTES = 64, 8


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a thread does. `name` is that of the call it sleeps in; `lock` the address of the lock that it waits for."""

    doing: Doing
    name: str = ""
    lock: int = 0


class Waits:
    """Looks at threads, by the system call that each is in; where that may not be read, by the kernel's function."""

    def __init__(self, procfs: ProcFs, machine: str = platform.machine()) -> None:
        self._procfs = procfs
        calls = CALLS.get(machine, {})
        self._calls = {number: name for name, numbers in calls.items() for number in numbers}

    def of(self, pid: int, tid: int, listeners: Collection[int], *, only_polls_clients: bool = False) -> Waiting:
        """What the thread does. `listeners` are the inodes at which clients arrive; none: they are not known, and whom
        it waits for with select or poll is not, either.

        `only_polls_clients`: an event loop's epoll set is not looked into, which is dear where it is large.
        """
        words = self._procfs.system_call(pid, tid).split()
        if not self._calls or not words:
            return _by_function(self._procfs.sleeps_in(pid, tid))
        if words[0] == _RUNS:
            return Waiting("runs")
        name = self._calls.get(int(words[0]), f"system call {words[0]}")
        arguments = [int(word, 16) for word in words[1:7]]
        if name == "futex":
            return Waiting("lock", name, arguments[0])
        if name == "accept" or (name == "epoll" and only_polls_clients):
            return Waiting("clients", name)
        if name not in ("epoll", "poll", "select"):
            return Waiting("call", name)
        awaited = self._awaited(pid, name, arguments) if listeners else None
        if awaited is None:
            return Waiting("clients" if name == "epoll" else "unknown", name)
        return Waiting("clients" if awaited & set(listeners) else "call", name)

    def _awaited(self, pid: int, name: str, arguments: list[int]) -> set[int] | None:
        """Inodes of what it polls; None where that cannot be read."""
        if name == "epoll":
            return set(self._procfs.polled(pid, arguments[0]))
        fds = self._polled_fds(pid, *arguments[:2]) if name == "poll" else self._selected_fds(pid, *arguments[:2])
        if fds is None:
            return None
        files = (self._procfs.open_file(pid, fd) for fd in fds)
        return {file.inode for file in files if file is not None}

    def _polled_fds(self, pid: int, address: int, number: int) -> list[int] | None:
        """The descriptors of an array of struct pollfd."""
        size = _POLLFD.size * min(number, _MOST_POLLED)
        raw = self._procfs.memory(pid, address, size)
        return [fd for fd, _, _ in _POLLFD.iter_unpack(raw)] if len(raw) == size else None

    def _selected_fds(self, pid: int, number: int, address: int) -> list[int] | None:
        """The descriptors below `number` that a set of select's has; a set is an array of longs, a bit for each."""
        size = -(-number // _LONG_BITS) * _LONG_BYTES
        raw = self._procfs.memory(pid, address, size) if address else b""
        if len(raw) != size:
            return [] if not address else None
        bits = int.from_bytes(raw, "little")
        return [fd for fd in range(number) if bits >> fd & 1]


def _by_function(function: str | None) -> Waiting:
    """`0` is what a kernel says that hides the function."""
    if function is None:
        return Waiting("runs")
    if function == "0":
        return Waiting("unknown")
    for part, doing in _BY_FUNCTION.items():
        if part in function:
            return Waiting(doing, function)
    return Waiting("call", function)
