"""Keeps the listening sockets of services: their masters', and their workers' where those open their own (reuse_port)."""

from __future__ import annotations

from collections.abc import Iterable

from agent.procfs import Listener, ProcFs
from agent.service import Service, Worker

WORKERS_AT_ONCE = 8
"""New workers looked at in one go; the others have their turn the next time."""

_SOCKETS = "socket:["


class ListenerKeeper:
    """Keeps `listeners` of services true. A process is looked at again only when its sockets have changed."""

    def __init__(self, procfs: ProcFs) -> None:
        self._procfs = procfs
        self._sockets: dict[tuple[int, int], frozenset[str]] = {}
        self._found: dict[tuple[int, int], tuple[Listener, ...]] = {}

    def refresh(self, services: Iterable[Service]) -> None:
        """Looks at masters whose sockets have changed and at workers that have become ready since."""
        alive: set[tuple[int, int]] = set()
        budget = WORKERS_AT_ONCE
        for service in services:
            master = (service.master_pid, service.start_ticks)
            self._look_at_master(master, service)
            holders = [master]
            for worker in service.workers.values():
                ident = (worker.ref.pid, worker.ref.start_ticks)
                if ident not in self._found and budget and worker.ready_us is not None:
                    self._found[ident] = self._procfs.listeners(worker.ref.pid)
                    budget -= 1
                holders.append(ident)
            service.listeners = _distinct(self._found[holder] for holder in holders if holder in self._found)
            alive.update(holders)
        self._found = {ident: found for ident, found in self._found.items() if ident in alive}
        self._sockets = {ident: sockets for ident, sockets in self._sockets.items() if ident in alive}

    def holder(self, service: Service, inode: int) -> int:
        """A process that has the listener open: the master if it has, else a worker."""
        for worker in service.workers.values():
            if any(found.inode == inode for found in self._own(worker)):
                return worker.ref.pid
        return service.master_pid

    def _own(self, worker: Worker) -> tuple[Listener, ...]:
        """What the worker has and its master has not."""
        service = worker.service
        inherited = self._found.get((service.master_pid, service.start_ticks), ())
        return tuple(f for f in self._found.get((worker.ref.pid, worker.ref.start_ticks), ()) if f not in inherited)

    def _look_at_master(self, ident: tuple[int, int], service: Service) -> None:
        sockets = frozenset(file.link for file in self._procfs.open_files(service.master_pid, _SOCKETS))
        if self._sockets.get(ident) != sockets:
            self._sockets[ident] = sockets
            self._found[ident] = self._procfs.listeners(service.master_pid)


def _distinct(groups: Iterable[tuple[Listener, ...]]) -> tuple[Listener, ...]:
    return tuple({listener.inode: listener for group in groups for listener in group}.values())
