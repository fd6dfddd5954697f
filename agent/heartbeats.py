"""The heartbeat files of Gunicorn's workers: whose is which, and when each beat last."""

from __future__ import annotations

from agent.clock import Clock
from agent.procfs import OpenFile, ProcFs
from agent.service import Service, Worker
from agent.workers import gunicorn


class HeartbeatFiles:
    """Reads them through the descriptors of workers and masters."""

    def __init__(self, procfs: ProcFs, clock: Clock) -> None:
        self._procfs = procfs
        self._clock = clock

    def of_new_worker(self, service: Service, pid: int, forked_ns: int) -> int | None:
        """Inode of a heartbeat file that this process, forked at `forked_ns` of the boot clock, shares with its master only.

        A new master, which an old one forks (USR2), holds files of its own workers only. A worker that was killed and
        that its master has not reaped yet leaves its file open: one that beat before the fork is somebody else's.
        """
        others = frozenset(w.heartbeat_inode for w in service.workers.values() if w.heartbeat_inode is not None)
        files = self._procfs.open_files(pid, gunicorn.HEARTBEAT_MARK)
        forked_us = self._clock.boot_to_us(forked_ns)
        fresh = [file for file in files if (beat_us := self._beat_us(file)) is None or beat_us >= forked_us]
        own = gunicorn.heartbeat(fresh, others)
        if own is None:
            return None
        shared = {file.inode for file in self._procfs.open_files(service.master_pid, gunicorn.HEARTBEAT_MARK)}
        return own.inode if own.inode in shared else None

    def _beat_us(self, file: OpenFile) -> int | None:
        beat_ns = gunicorn.last_beat_ns(
            file, uptime_ns=self._clock.monotonic_ns(), wall_offset_ns=self._clock.monotonic_to_wall_ns
        )
        return None if beat_ns is None else self._clock.monotonic_to_us(beat_ns)

    def heartbeat_age_s(self, worker: Worker) -> float | None:
        """How long ago a worker last said that it is alive; None for one without a heartbeat, or before its first."""
        if worker.heartbeat_inode is None:
            return None
        file = None
        if worker.heartbeat_fd is not None:
            file = self._procfs.open_file(worker.ref.pid, worker.heartbeat_fd)
        if file is None or file.inode != worker.heartbeat_inode:
            files = self._procfs.open_files(worker.ref.pid, gunicorn.HEARTBEAT_MARK)
            file = next((file for file in files if file.inode == worker.heartbeat_inode), None)
        if file is None:
            return None
        worker.heartbeat_fd = file.fd
        uptime_ns = self._clock.monotonic_ns()
        beat_ns = gunicorn.last_beat_ns(file, uptime_ns=uptime_ns, wall_offset_ns=self._clock.monotonic_to_wall_ns)
        return None if beat_ns is None else max(uptime_ns - beat_ns, 0) / 1e9

    def last_beat_ns(self, worker: Worker, holder: int) -> int | None:
        """When the worker last said that it is alive, in ns of CLOCK_MONOTONIC; `holder` has its file open."""
        for file in self._procfs.open_files(holder, gunicorn.HEARTBEAT_MARK):
            if file.inode == worker.heartbeat_inode:
                return gunicorn.last_beat_ns(
                    file, uptime_ns=self._clock.monotonic_ns(), wall_offset_ns=self._clock.monotonic_to_wall_ns
                )
        return None

    def age_at_abort_s(self, worker: Worker, at_ns: int) -> float | None:
        """How long a worker has been silent when its master aborts it; read through the master's own descriptor."""
        beat_ns = self.last_beat_ns(worker, worker.service.master_pid)
        if beat_ns is None:
            return None
        return max(self._clock.boot_to_us(at_ns) - self._clock.monotonic_to_us(beat_ns), 0) / 1e6
