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
    for pid, inodes in holders.items():
        parent = procfs.parent_pid(pid)
        if parent is None or inodes & holders.get(parent, frozenset()):
            continue
        workers = tuple(_workers(procfs, pid, inodes, holders))
        process = procfs.process(pid)
        if workers and process is not None:
            yield FoundMaster(process, workers)


def _workers(
    procfs: ProcFs, master_pid: int, inodes: frozenset[int], holders: dict[int, frozenset[int]]
) -> Iterator[FoundWorker]:
    for child in procfs.children(master_pid):
        shared = inodes & holders.get(child, frozenset())
        start_ticks = procfs.start_ticks(child)
        if shared and start_ticks is not None:
            yield FoundWorker(child, start_ticks, max(shared))


def _holders(procfs: ProcFs) -> dict[int, frozenset[int]]:
    found = {pid: _heartbeats(procfs, pid) for pid in procfs.pids() if procfs.runs_python(pid)}
    return {pid: inodes for pid, inodes in found.items() if inodes}


def _heartbeats(procfs: ProcFs, pid: int) -> frozenset[int]:
    return frozenset(file.inode for file in procfs.open_files(pid, gunicorn.HEARTBEAT_MARK))
