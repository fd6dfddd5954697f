"""What the agent asks of its own process and of the kernel it runs on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from agent.procfs.text import GONE, text_of

OWN_SESSION = "/proc/self/autogroup"
"""The niceness of a process's whole session, for it to change; only where the kernel groups tasks by session."""

_INITIAL_NAMESPACES = {"pid": 0xEFFFFFFC, "user": 0xEFFFFFFD}  # PROC_PID_INIT_INO, PROC_USER_INIT_INO


def perf_event_paranoid() -> int:
    """The sysctl kernel.perf_event_paranoid: how much of perf events is kept from users; -1 (nothing) when it is not there."""
    text = text_of("/proc/sys/kernel/perf_event_paranoid")
    return int(text) if text else -1


def own_capabilities() -> int:
    """The capabilities that this process has in effect, one bit each, numbered as in capability(7)."""
    return own_capability_sets()["CapEff"]


def own_capability_sets() -> dict[str, int]:
    """The capability sets of this thread as /proc names them (CapEff, CapPrm, CapBnd, …), one bit for each capability."""
    return _capability_sets("/proc/thread-self/status")


def own_threads() -> dict[int, dict[str, int]]:
    """The capability sets of every thread of this process, by its id."""
    found = {}
    for name in os.listdir("/proc/self/task"):
        with contextlib.suppress(*GONE):
            found[int(name)] = _capability_sets(f"/proc/self/task/{name}/status")
    return found


def own_oom_score_adj() -> int:
    """What the kernel's OOM killer adds to this process's score, from -1000 (never chosen) to 1000."""
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        return int(file.read())


def set_own_oom_score_adj(value: int) -> None:
    """Changes it, for the children to come as well; raises OSError, for a lower value without CAP_SYS_RESOURCE."""
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(value))


def foreign_namespaces() -> tuple[str, ...]:
    """Which of the pid and the user namespace of this process are not the initial ones."""
    return tuple(
        kind for kind, inode in _INITIAL_NAMESPACES.items() if os.stat(f"/proc/self/ns/{kind}").st_ino != inode
    )


def own_network() -> str:
    """The name of this process's network namespace."""
    return os.readlink("/proc/self/ns/net")


@contextlib.contextmanager
def short_path(folder: Path) -> Iterator[Path]:
    """The folder under a short name, for as long as this lasts: the address of a unix socket holds some 100 bytes.

    Raises OSError.
    """
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def own_descriptor(fd: int) -> dict[str, str]:
    """What the kernel says of one of this process's own file descriptors: name to text, as in /proc/self/fdinfo."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii", errors="replace") as file:
        pairs = (line.partition(":") for line in file)
        return {name.strip(): text.strip() for name, _, text in pairs}


def _capability_sets(path: str) -> dict[str, int]:
    with open(path, encoding="ascii", errors="replace") as file:
        pairs = (line.split() for line in file if line.startswith("Cap"))
        return {name.removesuffix(":"): int(mask, 16) for name, mask in pairs}
