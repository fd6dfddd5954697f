"""Keeps the listening sockets of services: their masters', and their workers' where those open their own (reuse_port)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.procfs import Listener, ProcFs
from agent.service import Service
from agent.workers import KINDS

WORKERS_AT_ONCE, LIKELY_AT_ONCE = 2, 32
"""New workers of a service looked at in one go; the second where some have listeners of their own. The others have
their turn the next time."""

_Ident = tuple[int, int]
_Listeners = Mapping[int, Listener]


class ListenerKeeper:
    """Keeps `listeners` of services true.

    A worker is looked at once, when it has become ready: its listeners are its master's, or its own from the start.
    """

    def __init__(self, procfs: ProcFs) -> None:
        self._procfs = procfs
        self._sockets: dict[_Ident, frozenset[int]] = {}
        self._found: dict[_Ident, _Listeners] = {}
        self._holders: dict[int, int] = {}

    def refresh(self, services: Iterable[Service], *, masters_again: bool = True) -> None:
        """Looks at what is new and, if so wished, whether sockets of known masters have changed; forgets what is gone."""
        networks = _Networks(self._procfs)
        holders: dict[int, int] = {}
        alive: set[_Ident] = set()
        for service in services:
            master = (service.master_pid, service.start_ticks)
            if masters_again or master not in self._found:
                self._look_at_master(master, networks)
            ready = [worker.ref for worker in service.workers.values() if worker.ready_us is not None]
            workers = [(ref.pid, ref.start_ticks) for ref in ready]
            at_once = LIKELY_AT_ONCE if any(self._found.get(ident) for ident in workers) else WORKERS_AT_ONCE
            for ident in [ident for ident in workers if ident not in self._found][:at_once]:
                self._look_at_worker(ident, self._found[master], networks)
            idents = [master, *workers]
            serves_clients = KINDS[service.kind].serves_clients
            held: dict[int, Listener] = {}
            for pid, start_ticks in reversed(idents):
                for inode, listener in self._found.get((pid, start_ticks), {}).items():
                    if not serves_clients(listener.address):
                        continue
                    held[inode] = listener
                    holders[inode] = pid
            service.listeners = tuple(held[inode] for inode in sorted(held))
            alive.update(idents)
        self._holders = holders
        self._found = {ident: found for ident, found in self._found.items() if ident in alive}
        self._sockets = {ident: sockets for ident, sockets in self._sockets.items() if ident in alive}

    def holder(self, inode: int) -> int | None:
        """A process that has the listener open: a master if one has."""
        return self._holders.get(inode)

    def _look_at_master(self, ident: _Ident, networks: _Networks) -> None:
        sockets = self._procfs.sockets(ident[0])
        if self._sockets.get(ident) != sockets:
            self._sockets[ident] = sockets
            self._found[ident] = networks.listeners(ident[0], sockets)

    def _look_at_worker(self, ident: _Ident, inherited: _Listeners, networks: _Networks) -> None:
        own = self._procfs.sockets(ident[0]) - inherited.keys()
        self._found[ident] = networks.listeners(ident[0], own)


class _Networks:
    """The listeners of each network namespace, read at most once."""

    def __init__(self, procfs: ProcFs) -> None:
        self._procfs = procfs
        self._known: dict[str, _Listeners] = {}

    def listeners(self, pid: int, sockets: frozenset[int]) -> _Listeners:
        """Those of the process's sockets that listen."""
        if not sockets:
            return {}
        name = self._procfs.network(pid)
        every = self._known.get(name)
        if every is None:
            every = self._procfs.listening(pid)
            if name:
                self._known[name] = every
        return {inode: every[inode] for inode in sockets & every.keys()}
