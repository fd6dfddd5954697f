"""Finds the Gunicorn services that run already, from who shares which heartbeat file with whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.procfs import Process, ProcFs
from agent.workers import gunicorn


@dataclass(frozen=True, slots=True)
class FoundWorker:
    """A worker and its own heartbeat file's inode."""

    pid: int
    start_ticks: int
    heartbeat_inode: int


@dataclass(frozen=True, slots=True)
class FoundMaster:
    """A master and its workers."""

    process: Process
    workers: tuple[FoundWorker, ...]


def find_masters(procfs: ProcFs) -> Iterator[FoundMaster]:
    """All Gunicorn masters of the host.

    A worker shares its heartbeat file with its parent, the master; a master shares none with its own parent. That
    tells masters from workers whatever their titles say, and a new master under an old one (USR2) from a worker.
    """
    holders = _holders(procfs)
    parents = {pid: procfs.parent_pid(pid) for pid in holders}
    for pid, inodes in holders.items():
        parent = parents[pid]
        if parent is None or inodes & holders.get(parent, frozenset()):
            continue
        workers = tuple(
            FoundWorker(child, start_ticks, max(shared))
            for child, parent_of_child in parents.items()
            if parent_of_child == pid
            and (shared := inodes & holders[child])
            and (start_ticks := procfs.start_ticks(child)) is not None
        )
        process = procfs.process(pid)
        if workers and process is not None:
            yield FoundMaster(process, workers)


def _holders(procfs: ProcFs) -> dict[int, frozenset[int]]:
    """Who holds heartbeat files, and which. Parents are asked of every holder, not children of every parent: the
    kernel's list of children is not reliable while children come and go."""
    found = {pid: _heartbeats(procfs, pid) for pid in procfs.pids() if procfs.runs_python(pid)}
    return {pid: inodes for pid, inodes in found.items() if inodes}


def _heartbeats(procfs: ProcFs, pid: int) -> frozenset[int]:
    return frozenset(file.inode for file in procfs.open_files(pid, gunicorn.HEARTBEAT_MARK))
