"""A memory cgroup with a limit, version 1 or 2, whatever the host has; taken away again at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

V1_MEMORY = Path("/sys/fs/cgroup/memory")
V2_ROOT = Path("/sys/fs/cgroup")
_EMPTYING_S = 10.0


class CgroupError(OSError):
    """The host does not let a memory cgroup be made; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """One cgroup folder; `procs` is the file that takes a pid."""

    folder: Path
    limit_bytes: int
    version: int

    @property
    def procs(self) -> Path:
        """Writing a pid here moves the process into the group."""
        return self.folder / "cgroup.procs"

    def remove(self) -> None:
        """Removes the group; what its master left behind in it is killed. Gives up after some seconds."""
        deadline = time.monotonic() + _EMPTYING_S
        while self.folder.exists():
            try:
                self.folder.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                self._kill_members()
                time.sleep(0.05)

    def _kill_members(self) -> None:
        """Who is in the group was started for it: nobody else is asked."""
        with contextlib.suppress(OSError):
            for pid in self.procs.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


def make_group(name: str, limit_bytes: int) -> MemoryGroup:
    """A new group with a hard limit and no swap; raises CgroupError."""
    try:
        return _make_v1(name, limit_bytes) if _is_v1() else _make_v2(name, limit_bytes)
    except OSError as error:
        raise CgroupError(
            f"no memory cgroup can be made here ({error}); the demo needs root and a memory controller"
        ) from None


def _is_v1() -> bool:
    return (V1_MEMORY / "memory.limit_in_bytes").exists()


def _make_v1(name: str, limit_bytes: int) -> MemoryGroup:
    folder = V1_MEMORY / name
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text(str(limit_bytes))
    with_swap = folder / "memory.memsw.limit_in_bytes"
    if with_swap.exists():
        with_swap.write_text(str(limit_bytes))
    return MemoryGroup(folder, limit_bytes, version=1)


def _make_v2(name: str, limit_bytes: int) -> MemoryGroup:
    if "memory" not in (V2_ROOT / "cgroup.controllers").read_text().split():
        raise OSError("cgroup v2 is mounted without the memory controller")
    (V2_ROOT / "cgroup.subtree_control").write_text("+memory")
    folder = V2_ROOT / name
    folder.mkdir()
    (folder / "memory.max").write_text(str(limit_bytes))
    swap = folder / "memory.swap.max"
    if swap.exists():
        swap.write_text("0")
    return MemoryGroup(folder, limit_bytes, version=2)


def enter_and_exec(procs: str, argv: list[str]) -> None:
    """Moves this process into the group and becomes `argv`; for `python -m demo.cgroup PROCS PROGRAM ARGS…`."""
    Path(procs).write_text(str(os.getpid()))
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    import sys

    enter_and_exec(sys.argv[1], sys.argv[2:])
