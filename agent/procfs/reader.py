"""Reads processes out of /proc. The root is a parameter, so that trees can be tried."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from agent.procfs.addresses import plain_ipv4, tcp_address
from agent.procfs.cgroups import MemoryCgroups
from agent.procfs.text import GONE, text_of
from agent.procfs.values import (
    PAGE_BYTES,
    TICKS_PER_SECOND,
    Connection,
    Listener,
    OpenFile,
    Peer,
    Process,
    Remains,
    Shares,
    Usage,
)

_NS_PER_TICK = 1_000_000_000 // TICKS_PER_SECOND
_TCP_LISTEN = "0A"
_TCP_STATES = {
    "01": "established",
    "02": "syn-sent",
    "03": "syn-recv",
    "04": "fin-wait-1",
    "05": "fin-wait-2",
    "06": "time-wait",
    "07": "closed",
    "08": "close-wait",
    "09": "last-ack",
    "0B": "closing",
    "0C": "syn-recv",
}
"""The kernel's numbers in include/net/tcp_states.h, by the names that ss prints."""

_UNIX_LISTENS = 0x10000  # __SO_ACCEPTCON
_DEAD_STATES = frozenset("ZXx")
_AWAITED_INODE = re.compile(r" ino:([0-9a-f]+) ")
_STAT_FIGURES = {"minor_faults": 7, "major_faults": 9}
_STAT_TIMES = {"user_ms": 11, "system_ms": 12}
_STATUS_FIGURES = {
    "VmSize": "virtual_bytes",
    "VmHWM": "peak_rss_bytes",
    "VmRSS": "rss_bytes",
    "RssAnon": "rss_anon_bytes",
    "RssFile": "rss_file_bytes",
    "RssShmem": "rss_shmem_bytes",
    "VmSwap": "swap_bytes",
    "Threads": "threads",
    "voluntary_ctxt_switches": "ctx_voluntary",
    "nonvoluntary_ctxt_switches": "ctx_involuntary",
}


class ProcFs:
    """/proc, or a tree that looks like it."""

    def __init__(self, root: Path = Path("/proc")) -> None:
        self._root = str(root)  # joining Paths would be most of the cost of a look

    def oom_kills(self) -> int | None:
        """How many processes the kernel's OOM killer has killed on this host since boot; None before Linux 4.13."""
        for line in text_of(f"{self._root}/vmstat").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return None

    def host_memory(self) -> tuple[int, int] | None:
        """Bytes of memory that the host has, and that programs could still have."""
        sizes = dict(line.split()[:2] for line in text_of(f"{self._root}/meminfo").splitlines() if line.endswith(" kB"))
        if "MemTotal:" not in sizes or "MemAvailable:" not in sizes:
            return None
        return int(sizes["MemTotal:"]) * 1024, int(sizes["MemAvailable:"]) * 1024

    def memory_stalled(self) -> float | None:
        """For how many per cent of the last 10 s some task waited for memory (PSI); None where the kernel does not say."""
        for line in text_of(f"{self._root}/pressure/memory").splitlines():
            if line.startswith("some avg10="):
                return float(line.split()[1].partition("=")[2])
        return None

    def smaps(self, pid: int) -> str:
        """Every mapping of the process with its sizes; nothing when it is gone. Dear: the kernel walks all its page tables."""
        return self._read(pid, "smaps")

    def figures(self, pid: int) -> dict[str, int]:
        """Numbers of the process by name, with units: memory, threads, open files, CPU, faults, switches; none when it is gone."""
        fields, status = self._stat(pid), self._read(pid, "status")
        if fields is None or not status:
            return {}
        numbers = fields[1]
        found = {name: int(numbers[place]) for name, place in _STAT_FIGURES.items()}
        found |= {name: int(numbers[place]) * 1000 // TICKS_PER_SECOND for name, place in _STAT_TIMES.items()}
        for line in status.splitlines():
            key, _, rest = line.partition(":")
            if (name := _STATUS_FIGURES.get(key)) is not None:
                amount, *unit = rest.split()
                found[name] = int(amount) * (1024 if unit == ["kB"] else 1)
        files = self.descriptors(pid)
        return found if files is None else {**found, "open_files": files}

    def descriptors(self, pid: int) -> int | None:
        """How many files the process has open."""
        try:
            return len(os.listdir(f"{self._root}/{pid}/fd"))
        except GONE:
            return None

    def boot_id(self) -> str:
        """What names this boot of the host; empty where the kernel does not tell."""
        return text_of(f"{self._root}/sys/kernel/random/boot_id").strip()

    def memory_cgroups(self) -> MemoryCgroups | None:
        """The memory controller's file system, version 1 where that is mounted, else version 2; None without either."""
        unified = None
        for line in text_of(f"{self._root}/self/mountinfo").splitlines():
            mount, _, kind = line.partition(" - ")
            _id, _parent, _device, top, mounted, *_options = mount.split()
            name, _source, options = kind.split(maxsplit=2)
            if name == "cgroup" and "memory" in options.split(","):
                return MemoryCgroups(Path(_unescaped(mounted)), _unescaped(top), 1)
            if name == "cgroup2" and unified is None:
                unified = MemoryCgroups(Path(_unescaped(mounted)), _unescaped(top), 2)
        return unified

    def pids(self) -> Iterator[int]:
        """All processes there are now."""
        for name in os.listdir(self._root):
            if name.isdigit():
                yield int(name)

    def process(self, pid: int) -> Process | None:
        """The process, or None when it is gone."""
        fields = self._stat(pid)
        if fields is None:
            return None
        comm, numbers = fields
        return Process(
            pid=pid,
            start_ticks=int(numbers[19]),
            parent_pid=int(numbers[1]),
            comm=comm,
            argv=self._strings(pid, "cmdline"),
            uid=self._owner(pid),
            folder=self._link(pid, "cwd"),
            cgroup=self._cgroup(pid),
        )

    def only_user(self, pid: int) -> int:
        """Whose the process is; -1 where it is gone, or where one user has begun it and it acts as another (setuid)."""
        for line in self._read(pid, "status").splitlines():
            if line.startswith("Uid:"):
                users = set(line.split()[1:])
                return int(users.pop()) if len(users) == 1 else -1
        return -1

    def start_ticks(self, pid: int) -> int | None:
        """The start of the process since boot in ticks, or None when it is gone."""
        fields = self._stat(pid)
        return None if fields is None else int(fields[1][19])

    def parent_pid(self, pid: int) -> int | None:
        """The parent, or None when the process is gone. A zombie still has one."""
        fields = self._stat(pid)
        return None if fields is None else int(fields[1][1])

    def command(self, pid: int) -> tuple[str, ...]:
        """The argument vector, as far as the process has not written over it."""
        return self._strings(pid, "cmdline")

    def runs_python(self, pid: int) -> bool:
        """Whether the process's binary is a Python interpreter."""
        name = os.path.basename(self._link(pid, "exe"))
        return name.startswith(("python", "pypy"))

    def binary_name(self, pid: int) -> str:
        """File name of the process's binary (of a script: its interpreter); empty when it is gone."""
        path = self._link(pid, "exe")
        if not path:  # another user's process: its link cannot be read, but its arguments can
            path = next(iter(self._strings(pid, "cmdline")), "")
        return os.path.basename(path).removesuffix(" (deleted)")

    def has_file(self, pid: int, path: str) -> bool:
        """Whether the process sees a file there; a relative path begins at its working folder."""
        return os.path.exists(self._inside(pid, path))

    def file_text(self, pid: int, path: str) -> str:
        """What a regular file says as the process sees it, up to a bound; nothing when it cannot be read."""
        inside = self._inside(pid, path)
        return text_of(inside) if os.path.isfile(inside) else ""

    def _inside(self, pid: int, path: str) -> str:
        return f"{self._root}/{pid}/root{path}" if path.startswith("/") else f"{self._root}/{pid}/cwd/{path}"

    def awaited(self, pid: int) -> frozenset[int]:
        """Inodes of the files that the process waits on by epoll, as far as it has been told to."""
        polls = self.open_files(pid, "anon_inode:[eventpoll]")
        return frozenset().union(*(self.polled(pid, file.fd) for file in polls))

    def sleeps_in(self, pid: int, tid: int | None = None) -> str | None:
        """The kernel's function that the main thread, or another, sleeps in, `0` where the kernel does not tell.

        None while it runs.
        """
        place = "" if tid is None else f"task/{tid}/"
        fields = self._stat(pid, place)
        return self._read(pid, f"{place}wchan") or "0" if fields is not None and fields[1][0] == "S" else None

    def threads(self, pid: int) -> tuple[int, ...]:
        """The ids of the process's threads, the main one first."""
        try:
            names = os.listdir(f"{self._root}/{pid}/task")
        except GONE:
            return ()
        return tuple(sorted((int(name) for name in names), key=lambda tid: (tid != pid, tid)))

    def runs(self, pid: int, tid: int) -> int | None:
        """How often a thread has been given a CPU: one that stands still is not. None where the kernel does not tell."""
        fields = self._read(pid, f"task/{tid}/schedstat").split()
        return int(fields[2]) or None if len(fields) > 2 else None

    def system_call(self, pid: int, tid: int) -> str:
        """The call that a thread sleeps in, as proc_pid_syscall(5) writes it; nothing where that may not be read."""
        return self._read(pid, f"task/{tid}/syscall").strip()

    def memory(self, pid: int, address: int, size: int) -> bytes:
        """Some bytes of the process's memory; fewer or none where they cannot be read."""
        try:
            file = os.open(f"{self._root}/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.pread(file, size, address)
        except (OSError, OverflowError):  # the process is gone, or nothing lies there
            return b""
        finally:
            os.close(file)

    def polled(self, pid: int, fd: int) -> frozenset[int]:
        """Inodes of the files that one epoll descriptor of the process waits for."""
        lines = self._read(pid, f"fdinfo/{fd}").splitlines()
        found = (_AWAITED_INODE.search(line) for line in lines if line.startswith("tfd:"))
        return frozenset(int(inode[1], 16) for inode in found if inode is not None)

    def environment(self, pid: int) -> dict[str, str]:
        """The environment at exec, as far as the process has not written over it."""
        pairs = (item.partition("=") for item in self._strings(pid, "environ"))
        return {name: value for name, _, value in pairs if name}

    def children(self, pid: int) -> tuple[int, ...]:
        """The children of the process's main thread."""
        raw = self._read(pid, f"task/{pid}/children")
        return tuple(int(child) for child in raw.split()) if raw else ()

    def open_file(self, pid: int, fd: int) -> OpenFile | None:
        """One open file by its number, without what its link says."""
        try:
            info = os.stat(f"{self._root}/{pid}/fd/{fd}")
        except GONE:
            return None
        return OpenFile(fd, "", info.st_ino, info.st_mtime_ns, info.st_ctime_ns, info.st_mode)

    def open_files(self, pid: int, name_part: str) -> tuple[OpenFile, ...]:
        """The open files whose link contains `name_part`, with the file's own times."""
        found = []
        folder = f"{self._root}/{pid}/fd"
        try:
            names = os.listdir(folder)
        except GONE:
            return ()
        for name in names:
            path = f"{folder}/{name}"
            try:
                link = os.readlink(path)
                if name_part not in link:
                    continue
                info = os.stat(path)
            except GONE:
                continue
            found.append(OpenFile(int(name), link, info.st_ino, info.st_mtime_ns, info.st_ctime_ns, info.st_mode))
        return tuple(found)

    def pipe_of(self, pid: int, name: str) -> str | None:
        """Where the pipe with that file name can be opened that the process has open; None where it has none."""
        for one in self.open_files(pid, name):
            if stat.S_ISFIFO(one.mode) and os.path.basename(one.link) == name:
                return f"{self._root}/{pid}/fd/{one.fd}"
        return None

    def listeners(self, pid: int) -> tuple[Listener, ...]:
        """The listening TCP and unix sockets that the process holds open."""
        held = self.sockets(pid)
        if not held:
            return ()
        return tuple(listener for inode, listener in self.listening(pid).items() if inode in held)

    def sockets(self, pid: int) -> frozenset[int]:
        """Inodes of the sockets that the process holds open."""
        prefix = "socket:["
        files = self.open_files(pid, prefix)
        return frozenset(int(file.link[len(prefix) : -1]) for file in files if stat.S_ISSOCK(file.mode))

    def network(self, pid: int) -> str:
        """The name of the process's network namespace; empty when it cannot be had."""
        return self._link(pid, "ns/net")

    def listening(self, pid: int) -> dict[int, Listener]:
        """All listeners in the process's network namespace, by inode.

        Dear: for TCP the kernel walks its whole table of connections, some 10 ms on a host with much memory.
        """
        every = (*self._tcp(pid, "tcp"), *self._tcp(pid, "tcp6"), *self._unix(pid))
        return {listener.inode: listener for listener in every}

    def peers(self, pid: int) -> tuple[Peer, ...]:
        """The process's established TCP connections. As dear as `listening`: ask seldom."""
        return tuple(Peer(one.own, one.far) for one in self.connections(pid) if one.state == "established")

    def connections(self, pid: int) -> tuple[Connection, ...]:
        """The TCP sockets that the process holds open and that do not listen. As dear as `listening`: ask seldom."""
        held = self.sockets(pid)
        if not held:
            return ()
        lines = (line.split() for name in ("tcp", "tcp6") for line in self._read(pid, f"net/{name}").splitlines()[1:])
        return tuple(
            _connection(fields)
            for fields in lines
            if len(fields) > 9 and fields[3] != _TCP_LISTEN and int(fields[9]) in held
        )

    def inner_pid(self, pid: int, tid: int | None = None) -> int | None:
        """The id by which the process, or its thread, knows itself: another one in a container. None when it is gone."""
        for line in self._read(pid, "status" if tid is None else f"task/{tid}/status").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
        return None

    def usage(self, pid: int) -> Usage | None:
        """What the process has used so far, or None when it is gone."""
        fields, memory = self._stat(pid), self._read(pid, "statm")
        if fields is None or not memory:
            return None
        ticks = int(fields[1][11]) + int(fields[1][12])
        return Usage(ticks * _NS_PER_TICK, int(memory.split()[1]) * PAGE_BYTES)

    def shares(self, pid: int) -> Shares | None:
        """The process's share of memory, or None when it is gone. Dear: the kernel walks all its page tables."""
        words = [line.split() for line in self._read(pid, "smaps_rollup").splitlines()[1:]]
        sizes = {name: int(kib) * 1024 for name, kib, _unit in words}
        if "Pss:" not in sizes:
            return None
        alone = sizes["Private_Clean:"] + sizes["Private_Dirty:"] + sizes.get("Private_Hugetlb:", 0)
        return Shares(sizes["Pss:"], alone)

    def remains(self, pid: int, start_ticks: int) -> Remains | None:
        """What is left of this very process, or None when its parent has reaped it."""
        fields = self._stat(pid)
        if fields is None or int(fields[1][19]) != start_ticks:
            return None
        comm, numbers = fields
        ticks = int(numbers[11]) + int(numbers[12])
        return Remains(numbers[0] in _DEAD_STATES, ticks * _NS_PER_TICK, self._owner(pid), comm)

    def _stat(self, pid: int, place: str = "") -> tuple[str, list[str]] | None:
        """Name and the fields after it: index 0 is the state, 1 the parent, 19 the start time."""
        raw = self._read(pid, f"{place}stat")
        if not raw:
            return None
        name, _, rest = raw[raw.index("(") + 1 :].rpartition(")")
        return name, rest.split()

    def _read(self, pid: int, name: str) -> str:
        return text_of(f"{self._root}/{pid}/{name}")

    def _strings(self, pid: int, name: str) -> tuple[str, ...]:
        return tuple(part for part in self._read(pid, name).split("\0") if part)

    def _link(self, pid: int, name: str) -> str:
        try:
            return os.readlink(f"{self._root}/{pid}/{name}")
        except GONE:
            return ""

    def _owner(self, pid: int) -> int:
        try:
            return os.stat(f"{self._root}/{pid}").st_uid
        except GONE:
            return -1

    def _cgroup(self, pid: int) -> str:
        """The cgroup that holds its memory: the v1 memory hierarchy where there is one, else the unified one."""
        unified = ""
        for line in self._read(pid, "cgroup").splitlines():
            _number, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                return path
            if not controllers:
                unified = path
        return unified

    def _tcp(self, pid: int, name: str) -> Iterator[Listener]:
        for line in self._read(pid, f"net/{name}").splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _TCP_LISTEN:
                yield Listener(int(fields[9]), f"tcp {tcp_address(fields[1])}")

    def _unix(self, pid: int) -> Iterator[Listener]:
        for line in self._read(pid, "net/unix").splitlines()[1:]:
            fields = line.split(maxsplit=7)
            if len(fields) >= 7 and int(fields[3], 16) & _UNIX_LISTENS:
                yield Listener(int(fields[6]), f"unix {fields[7] if len(fields) > 7 else '(unnamed)'}")


def _connection(fields: list[str]) -> Connection:
    """A line of /proc/net/tcp: slot, both addresses, state, `unsent:unread` in hex, ..."""
    unsent, _, unread = fields[4].partition(":")
    return Connection(
        plain_ipv4(tcp_address(fields[1])),
        plain_ipv4(tcp_address(fields[2])),
        _TCP_STATES.get(fields[3], fields[3]),
        int(unsent, 16),
        int(unread, 16),
    )


def _unescaped(word: str) -> str:
    """A path of mountinfo, which writes white space and backslashes as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word)
