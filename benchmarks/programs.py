"""What each BPF program costs, from the kernel's own run-time statistics, which are on only while somebody looks."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent.kernel.libbpf import BpfError, Libbpf

_RUN_TIME = 0
_INFO_BYTES = 256
_NAME_AT, _NAME_BYTES = 64, 16
"""Where struct bpf_prog_info (include/uapi/linux/bpf.h) has the name, of which the kernel keeps 15 characters."""


@dataclass(frozen=True, slots=True)
class Runs:
    """How often a program ran while the statistics were on, and how long in all."""

    count: int
    time_ns: int

    def since(self, before: Runs) -> Runs:
        """What came since then."""
        return Runs(self.count - before.count, self.time_ns - before.time_ns)

    @property
    def ns_each(self) -> float | None:
        """Mean time of one run, in ns; None without any."""
        return self.time_ns / self.count if self.count else None


@dataclass(frozen=True, slots=True)
class Program:
    """A loaded program by a descriptor of this process's own. `tracepoint` is empty where it is on none.

    An iterator is on no path of others: the process that holds it runs it, once for each thing that it visits.
    """

    name: str
    fd: int
    tracepoint: str = ""
    is_iterator: bool = False

    def runs(self) -> Runs:
        """Its statistics until now; raises BpfError where the kernel keeps none."""
        found = parse_runs(Path(f"/proc/self/fdinfo/{self.fd}").read_text())
        if found is None:
            raise BpfError(f"the kernel tells no run times of the program {self.name}")
        return found


def parse_fdinfo(text: str) -> dict[str, str]:
    """The fields of one /proc/PID/fdinfo file."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def parse_runs(text: str) -> Runs | None:
    """The statistics in the fdinfo of a program's descriptor; None for any other descriptor."""
    fields = parse_fdinfo(text)
    if "run_cnt" not in fields or "run_time_ns" not in fields:
        return None
    return Runs(int(fields["run_cnt"]), int(fields["run_time_ns"]))


@contextmanager
def statistics_on(library: Libbpf) -> Iterator[None]:
    """The kernel counts run times while the context lasts, and stops by itself should this process die."""
    fd = int(library.c.bpf_enable_stats(_RUN_TIME))
    if fd < 0:
        raise BpfError(-fd, "the kernel's run-time statistics cannot be switched on")
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def programs_of(library: Libbpf, pid: int) -> Iterator[list[Program]]:
    """The programs that a process holds, directly or by the links that attach them."""
    found: list[Program] = []
    try:
        for number, link in sorted(_held(pid).items()):
            fd = int(library.c.bpf_prog_get_fd_by_id(number))
            if fd >= 0:
                found.append(Program(_name(library, fd), fd, link.get("tp_name", ""), link.get("link_type") == "iter"))
        yield found
    finally:
        for program in found:
            os.close(program.fd)


def _held(pid: int) -> dict[int, dict[str, str]]:
    """Ids of programs, each with the fields of the link that attaches it, where one does."""
    found: dict[int, dict[str, str]] = {}
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed since the folder was listed
            fields = parse_fdinfo(path.read_text())
            if "prog_id" in fields:
                known = found.setdefault(int(fields["prog_id"]), {})
                known.update(fields if "link_type" in fields else {})
    return found


def _name(library: Libbpf, fd: int) -> str:
    info = ctypes.create_string_buffer(_INFO_BYTES)
    length = ctypes.c_uint32(_INFO_BYTES)
    if library.c.bpf_obj_get_info_by_fd(fd, info, ctypes.byref(length)):
        raise BpfError(ctypes.get_errno(), "a program's name cannot be read")
    return info.raw[_NAME_AT : _NAME_AT + _NAME_BYTES].split(b"\0")[0].decode()
