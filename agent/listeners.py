"""Keeps the listening sockets of services: their masters', and their workers' where those open their own (reuse_port)."""

from __future__ import annotations

from collections.abc import Iterable

from agent.procfs import Listener, ProcFs
from agent.service import Service

WORKERS_AT_ONCE = 8
"""New workers looked at in one go; the others have their turn the next time."""

_SOCKETS = "socket:["


_Ident = tuple[int, int]


class ListenerKeeper:
    """Keeps `listeners` of services true.

    A master is looked at again when its sockets have changed, a worker once, when it has become ready.
    """

    def __init__(self, procfs: ProcFs) -> None:
        self._procfs = procfs
        self._sockets: dict[_Ident, frozenset[str]] = {}
        self._found: dict[_Ident, tuple[Listener, ...]] = {}
        self._holders: dict[int, int] = {}

    def refresh(self, services: Iterable[Service]) -> None:
        """Looks at what is new, forgets what is gone."""
        holders: dict[int, int] = {}
        alive: set[_Ident] = set()
        budget = WORKERS_AT_ONCE
        for service in services:
            idents = [(service.master_pid, service.start_ticks)]
            self._look_at_master(idents[0])
            for worker in service.workers.values():
                ident = (worker.ref.pid, worker.ref.start_ticks)
                idents.append(ident)
                if budget and worker.ready_us is not None and ident not in self._found:
                    self._found[ident] = self._procfs.listeners(worker.ref.pid)
                    budget -= 1
            held = {listener.inode: listener for ident in reversed(idents) for listener in self._found.get(ident, ())}
            service.listeners = tuple(held[inode] for inode in sorted(held))
            for pid, start_ticks in idents:
                for listener in self._found.get((pid, start_ticks), ()):
                    holders.setdefault(listener.inode, pid)
            alive.update(idents)
        self._holders = holders
        self._found = {ident: found for ident, found in self._found.items() if ident in alive}
        self._sockets = {ident: sockets for ident, sockets in self._sockets.items() if ident in alive}

    def holder(self, inode: int) -> int | None:
        """A process that has the listener open: a master if one has."""
        return self._holders.get(inode)

    def _look_at_master(self, ident: _Ident) -> None:
        sockets = frozenset(file.link for file in self._procfs.open_files(ident[0], _SOCKETS))
        if self._sockets.get(ident) != sockets:
            self._sockets[ident] = sockets
            self._found[ident] = self._procfs.listeners(ident[0])
