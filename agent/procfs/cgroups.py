"""Memory cgroups, of version 1 and 2 alike."""

from __future__ import annotations

import os
from pathlib import Path

from agent.procfs.text import text_of
from agent.procfs.values import OomCount

_NO_LIMIT_BYTES = 1 << 60
_CGROUP_FIGURES = {
    1: {"total_rss": "anon", "total_cache": "cache", "total_shmem": "shmem", "total_inactive_file": "inactive_file"},
    2: {
        "anon": "anon",
        "file": "cache",
        "shmem": "shmem",
        "inactive_file": "inactive_file",
        "kernel": "kernel",
        "sock": "sockets",
    },
}
"""Names in memory.stat by version of the cgroup, and what a snapshot calls them."""


class MemoryCgroups:
    """The cgroup file system that accounts for memory: where it is mounted, from which cgroup on, and its version."""

    def __init__(self, mounted: Path, top: str, version: int) -> None:
        self._mounted = mounted
        self._top = top.rstrip("/")
        self.version = version
        self.counter = "memory.events" if version == 2 else "memory.oom_control"

    def owner(self, path: str) -> str | None:
        """The memory cgroup of a process in the cgroup `path`: that one, or the nearest above it that counts.

        None for the top: what happens there is the host's.
        """
        while path not in ("", "/"):
            if (folder := self._folder(path)) is not None and (folder / self.counter).exists():
                return path
            path = os.path.dirname(path)
        return None

    def oom_count(self, path: str) -> OomCount | None:
        """What was counted in a cgroup; None when it is gone."""
        folder = self._folder(path)
        return None if folder is None else _oom_count(folder / self.counter)

    def limit_bytes(self, path: str) -> int | None:
        """The limit of this very cgroup; None where it has none."""
        text = self._text_of(path, "memory.max" if self.version == 2 else "memory.limit_in_bytes")
        limit = int(text) if text.isdigit() else None
        return None if limit is None or limit >= _NO_LIMIT_BYTES else limit

    def set_limit(self, path: str, memory_bytes: int) -> None:
        """Sets the limit of this very cgroup; raises OSError."""
        folder = self._folder(path)
        if folder is None:
            raise FileNotFoundError(2, "no such cgroup")
        name = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
        (folder / name).write_text(str(memory_bytes))

    def usage_bytes(self, path: str) -> int | None:
        """What counts against the limit, the page cache included; None when the cgroup is gone."""
        text = self._text_of(path, "memory.current" if self.version == 2 else "memory.usage_in_bytes")
        return int(text) if text.isdigit() else None

    def inactive_file_bytes(self, path: str) -> int:
        """Page cache that the kernel gives up before it kills anybody."""
        name = "inactive_file" if self.version == 2 else "total_inactive_file"
        for line in self._text_of(path, "memory.stat").splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
        return 0

    def figures(self, path: str) -> dict[str, int]:
        """What the cgroup's memory is made of, in bytes by name; nothing when it is gone."""
        names = _CGROUP_FIGURES[self.version]
        pairs = (line.split() for line in self._text_of(path, "memory.stat").splitlines())
        return {f"{names[key]}_bytes": int(value) for key, value in pairs if key in names}

    def _text_of(self, path: str, name: str) -> str:
        folder = self._folder(path)
        return "" if folder is None else text_of(folder / name).strip()

    def group_kills(self) -> dict[str, int]:
        """For each cgroup of the first level, how often a whole cgroup in it had to die together. Version 2 only."""
        if self.version == 1:
            return {}
        found = {folder.name: _oom_count(folder / self.counter) for folder in self._mounted.iterdir()}
        return {name: count.group_kills for name, count in found.items() if count is not None}

    def _folder(self, path: str) -> Path | None:
        if ".." in path.split("/") or not f"{path}/".startswith(f"{self._top}/"):
            return None
        return self._mounted / path.removeprefix(self._top).lstrip("/")


def _oom_count(path: Path) -> OomCount | None:
    counts = dict(line.split(maxsplit=1) for line in text_of(path).splitlines())
    kills = counts.get("oom_kill")
    return None if kills is None else OomCount(int(kills), int(counts.get("oom_group_kill", 0)))
