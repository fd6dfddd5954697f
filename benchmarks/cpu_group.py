"""A cgroup of its own for each tool: the kernel adds up the CPU time of all its processes, those that ended included."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.stage import StageError

_EMPTYING_S = 5.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Memory:
    """Of all processes of a group, in bytes. `rss` counts shared pages in each process, `pss` shares them out."""

    processes: int
    rss: int
    pss: int


@dataclass(frozen=True, slots=True)
class CpuGroup:
    """One cgroup folder, of version 2 or of version 1's cpuacct."""

    folder: Path

    @property
    def procs(self) -> Path:
        """Writing a pid here moves the process into the group; its children are born in it."""
        return self.folder / "cgroup.procs"

    def pids(self) -> list[int]:
        """The processes that are in the group now."""
        return [int(line) for line in self.procs.read_text().split()]

    def cpu_ns(self) -> int:
        """CPU time of the group since it was made, in ns."""
        version_1 = self.folder / "cpuacct.usage"
        if version_1.exists():
            return int(version_1.read_text())
        return parse_cpu_ns((self.folder / "cpu.stat").read_text())

    def memory(self) -> Memory:
        """What the group's processes hold now."""
        found = [parse_smaps_rollup(text) for pid in self.pids() if (text := _smaps_rollup(pid)) is not None]
        return Memory(len(found), sum(rss for rss, _ in found), sum(pss for _, pss in found))


def parse_cpu_ns(cpu_stat: str) -> int:
    """The CPU time in a cpu.stat file, in ns; raises ValueError when it is not there."""
    for line in cpu_stat.splitlines():
        name, _, value = line.partition(" ")
        if name == "usage_usec":
            return int(value) * 1000
    raise ValueError("cpu.stat has no usage_usec")


def parse_smaps_rollup(text: str) -> tuple[int, int]:
    """RSS and PSS in a smaps_rollup file, in bytes."""
    fields = {name: value for name, _, value in (line.partition(":") for line in text.splitlines())}
    return tuple(int(fields[name].split()[0]) * 1024 for name in ("Rss", "Pss"))  # type: ignore[return-value]


def group_parent(mounts: str) -> Path | None:
    """Where groups are made: below cgroup version 2, which counts CPU time without a controller, else cpuacct."""
    lines = [line.split() for line in mounts.splitlines()]
    version_2 = [target for _, target, kind, *_ in lines if kind == "cgroup2"]
    version_1 = [
        target for _, target, kind, options, *_ in lines if kind == "cgroup" and "cpuacct" in options.split(",")
    ]
    return Path((version_2 + version_1)[0]) if version_2 + version_1 else None


@contextmanager
def cpu_group(name: str) -> Iterator[CpuGroup]:
    """A new group; what is left in it at the end is killed, for a tool put it there. Raises StageError."""
    parent = group_parent(Path("/proc/mounts").read_text())
    if parent is None:
        raise StageError("neither cgroup version 2 nor cpuacct is mounted, which count the tools' CPU time")
    group = CpuGroup(parent / f"reflex-bench-{name}-{os.getpid()}")
    group.folder.mkdir()
    try:
        yield group
    finally:
        _remove(group)


def _remove(group: CpuGroup) -> None:
    deadline = time.monotonic() + _EMPTYING_S
    while time.monotonic() < deadline:
        for pid in group.pids():
            _kill(pid)
        try:
            group.folder.rmdir()
            return
        except OSError:  # the last process is not gone yet
            time.sleep(_POLL_S)
    raise StageError(f"the cgroup {group.folder} does not become empty")


def _kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return


def _smaps_rollup(pid: int) -> str | None:
    """None for a process that is gone, or a thread of the kernel."""
    try:
        return Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
