"""How much memory a service may still take: the memory cgroup around it that is fullest, else the host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from agent.procfs import MemoryCgroups, ProcFs

LIMITS_KEPT_S = 30.0
EXACT_FROM = 0.6
"""From this share of a limit on, page cache that the kernel would give up first is not counted."""


@dataclass(frozen=True, slots=True)
class Room:
    """A limit and what is used of it, in bytes. `name` is the cgroup's path; empty for the host."""

    name: str
    limit_bytes: int
    usage_bytes: int

    @property
    def share(self) -> float:
        """How full it is, from 0 to 1."""
        return self.usage_bytes / self.limit_bytes

    @property
    def left_bytes(self) -> int:
        """What is left."""
        return max(self.limit_bytes - self.usage_bytes, 0)

    @property
    def words(self) -> str:
        """How a sentence calls it."""
        return f"the memory limit of cgroup {self.name}" if self.name else "the host's memory"


class MemoryLimits:
    """Looks at limits; those themselves are read again after LIMITS_KEPT_S."""

    def __init__(self, procfs: ProcFs) -> None:
        self._procfs = procfs
        self._cgroups: MemoryCgroups | None = None
        self._limits: dict[str, tuple[tuple[str, int], ...]] = {}
        self._read_s = -LIMITS_KEPT_S

    def room(self, cgroup: str, now_s: float) -> Room | None:
        """The fullest limited cgroup from this one upwards; None where none has a limit, or it is gone."""
        if now_s - self._read_s >= LIMITS_KEPT_S:
            self._limits, self._read_s = {}, now_s
            self._cgroups = self._cgroups or self._procfs.memory_cgroups()
        if self._cgroups is None:
            return None
        if cgroup not in self._limits:
            self._limits[cgroup] = tuple(_limited(self._cgroups, cgroup))
        rooms = [room for path, limit in self._limits[cgroup] if (room := self._room(path, limit)) is not None]
        return max(rooms, key=lambda room: room.share, default=None)

    def host(self) -> Room | None:
        """The host's own memory."""
        memory = self._procfs.host_memory()
        return None if memory is None else Room("", memory[0], memory[0] - memory[1])

    def _room(self, path: str, limit_bytes: int) -> Room | None:
        assert self._cgroups is not None
        usage = self._cgroups.usage_bytes(path)
        if usage is None or limit_bytes <= 0:
            return None
        if usage > EXACT_FROM * limit_bytes:
            usage = max(usage - self._cgroups.inactive_file_bytes(path), 0)
        return Room(path, limit_bytes, usage)


def _limited(cgroups: MemoryCgroups, path: str) -> Iterator[tuple[str, int]]:
    while path not in ("", "/"):
        limit = cgroups.limit_bytes(path)
        if limit is not None:
            yield path, limit
        path = os.path.dirname(path)
