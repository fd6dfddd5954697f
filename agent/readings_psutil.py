"""Readings of processes one by one, through psutil: the rung for kernels without BPF iterators."""

from __future__ import annotations

from collections.abc import Iterable

import psutil  # type: ignore[import-untyped]

from agent.kernel.readings import Reading
from agent.procfs import ProcFs
from agent.rollup import NS_PER_TICK


class PsutilReader:
    """Reads the processes that it is told of; keeps psutil's object of each for as long as it is asked for."""

    def __init__(self, procfs: ProcFs) -> None:
        self._procfs = procfs
        self._processes: dict[tuple[int, int], psutil.Process] = {}

    def read(self, idents: Iterable[tuple[int, int]]) -> list[Reading]:
        """The readings of those processes (pid and start in ticks) that are still there."""
        kept: dict[tuple[int, int], psutil.Process] = {}
        readings = []
        for ident in idents:
            try:
                process = self._processes.get(ident) or psutil.Process(ident[0])
                readings.append(_reading(process, ident))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            if self._procfs.start_ticks(ident[0]) != ident[1]:
                readings.pop()  # the pid has a new owner
                continue
            kept[ident] = process
        self._processes = kept
        return readings


def _reading(process: psutil.Process, ident: tuple[int, int]) -> Reading:
    """Memory that is not shared with files or other processes counts as anonymous; its parts and swap are not told.

    Context switches are those of the first thread, which are the process's while there is no other.
    """
    with process.oneshot():
        memory, times, threads = process.memory_info(), process.cpu_times(), process.num_threads()
        switches = process.num_ctx_switches() if threads == 1 else None
    return Reading(
        start_ns=ident[1] * NS_PER_TICK,
        cpu_ns=round((times.user + times.system) * 1e9),
        run_delay_ns=None,
        anon_bytes=memory.rss - memory.shared,
        file_bytes=None,
        shmem_bytes=None,
        swap_bytes=None,
        minor_faults=None,
        major_faults=None,
        voluntary_switches=None if switches is None else switches.voluntary,
        involuntary_switches=None if switches is None else switches.involuntary,
        pid=ident[0],
        threads=threads,
        accepts=None,
    )
