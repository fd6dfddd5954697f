"""Finds the services that run already: by what their processes hold open, and by their command lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from agent.managers import is_keeper
from agent.procfs import Process, ProcFs
from agent.workers import KINDS, gunicorn
from agent.workers.kind import Kind

_BINARIES = ("python", "pypy", "uwsgi")


@dataclass(frozen=True, slots=True)
class FoundWorker:
    """A process below a master; for a Gunicorn worker with its own heartbeat file's inode."""

    pid: int
    start_ticks: int
    heartbeat_inode: int | None


@dataclass(frozen=True, slots=True)
class FoundMaster:
    """A master and the processes below it that may be its workers."""

    kind: Kind
    process: Process
    children: tuple[FoundWorker, ...]


def kind_of_command(argv: tuple[str, ...]) -> Kind | None:
    """The kind that an argument vector, or the title in its place, is of."""
    if is_keeper(argv):
        return None
    return next((kind for kind in KINDS.values() if kind.is_command(argv)), None)


def find_masters(
    procfs: ProcFs,
    kind_of: Callable[[Process], Kind | None],
    network: str | None = None,
    is_worker: Callable[[int], bool] = lambda pid: False,
) -> list[FoundMaster]:
    """The masters of the host, the oldest first, so that the order is that of their starts.

    `kind_of` tells the kind of a process that is not found by its heartbeats. With `network`, only masters in the network
    namespace of that name. Processes that `is_worker` knows as living workers are not looked at again, which is most of
    what a look costs; a master is left out where all its workers are such.
    """
    candidates = _candidates(procfs, network, is_worker)
    holders = {pid: inodes for pid in candidates if (inodes := _heartbeats(procfs, pid))}
    found = [*_by_heartbeat(procfs, candidates, holders), *_by_command(procfs, candidates, holders, kind_of)]
    found += _without_workers(procfs, candidates, holders, found, kind_of)
    return sorted(found, key=lambda master: (master.process.start_ticks, master.process.pid))


def _candidates(procfs: ProcFs, network: str | None, is_worker: Callable[[int], bool]) -> dict[int, int]:
    """Processes whose binary can be a service's, with their parents.

    A known worker is among them if it has a child that is not one: what the two share tells masters from workers.
    """
    pids = [pid for pid in procfs.pids() if not is_worker(pid) and procfs.binary_name(pid).startswith(_BINARIES)]
    pids = [pid for pid in pids if network in (None, procfs.network(pid))]
    parents = _with_parents(procfs, pids)
    return parents | _with_parents(procfs, {parent for parent in parents.values() if is_worker(parent)})


def _with_parents(procfs: ProcFs, pids: Iterable[int]) -> dict[int, int]:
    found = ((pid, procfs.parent_pid(pid)) for pid in pids)
    return {pid: parent for pid, parent in found if parent is not None}


def _by_heartbeat(
    procfs: ProcFs, parents: Mapping[int, int], holders: Mapping[int, frozenset[int]]
) -> Iterator[FoundMaster]:
    """Gunicorn masters.

    A worker shares its heartbeat file with its parent, the master; a master shares none with its own parent. That
    tells masters from workers whatever their titles say, and a new master under an old one (USR2) from a worker.
    """
    for pid, inodes in holders.items():
        if inodes & holders.get(parents[pid], frozenset()):
            continue
        workers = tuple(
            FoundWorker(child, start_ticks, max(shared))
            for child, held in holders.items()
            if parents[child] == pid
            and (shared := inodes & held)
            and (start_ticks := procfs.start_ticks(child)) is not None
        )
        process = procfs.process(pid)
        if workers and process is not None:
            yield FoundMaster(KINDS[gunicorn.KIND], process, workers)


def _without_workers(
    procfs: ProcFs,
    parents: Mapping[int, int],
    holders: Mapping[int, frozenset[int]],
    found: Iterable[FoundMaster],
    kind_of: Callable[[Process], Kind | None],
) -> list[FoundMaster]:
    """Gunicorn masters that let all their workers end (WINCH) after they have begun a second master on their listeners.

    A worker that begins a Gunicorn of its own is none: it holds a heartbeat.
    """
    begun = {parents[one.process.pid]: one.process.pid for one in found if one.kind.KIND == gunicorn.KIND}
    olds = [
        (process, second)
        for pid, second in begun.items()
        if pid in parents and pid not in holders and (process := procfs.process(pid)) is not None
    ]
    return [
        FoundMaster(kind, process, ())
        for process, second in olds
        if (kind := kind_of(process)) is not None
        and kind.KIND == gunicorn.KIND
        and {one.inode for one in procfs.listeners(process.pid)} & procfs.sockets(second)
    ]


def _by_command(
    procfs: ProcFs,
    parents: Mapping[int, int],
    holders: Mapping[int, frozenset[int]],
    kind_of: Callable[[Process], Kind | None],
) -> Iterator[FoundMaster]:
    """Masters of the other kinds: a fork of a master shows the master's command line, or a worker's title."""
    found = ((pid, procfs.process(pid)) for pid in parents if pid not in holders)
    processes = {pid: process for pid, process in found if process is not None}
    for pid, process in processes.items():
        parent = processes.get(parents[pid])
        if parent is not None and parent.argv == process.argv:
            continue
        kind = kind_of(process)
        if kind is None or kind.KIND == gunicorn.KIND:
            continue
        if kind.is_worker_title(process.argv) and parent is not None and kind_of(parent) is kind:
            continue
        children = (child for child, parent_pid in parents.items() if parent_pid == pid)
        yield FoundMaster(
            kind,
            process,
            tuple(
                FoundWorker(child, start_ticks, None)
                for child in children
                if (start_ticks := procfs.start_ticks(child)) is not None
            ),
        )


def _heartbeats(procfs: ProcFs, pid: int) -> frozenset[int]:
    return frozenset(file.inode for file in procfs.open_files(pid, gunicorn.HEARTBEAT_MARK))
