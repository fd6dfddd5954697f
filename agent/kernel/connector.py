"""Births and deaths without BPF: records made of what the kernel's process connector tells and /proc still shows.

The connector tells pids and little else, of the whole host. Who is who is kept here, by the rules that
bpf/lifecycle.bpf.h keeps in the kernel. A process that is gone before /proc was read is told all the same, with what
is known: its start is then the time of its fork, and what nobody saw is None.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from agent.kernel.figures import Counts
from agent.kernel.process_events import ProcessEvents
from agent.kernel.process_messages import Ended, Executed, Forked, ProcessEvent
from agent.kernel.records import ExecRecord, ExitRecord, ForkRecord, Record, Role
from agent.procfs import TICKS_PER_SECOND, ProcFs

MAX_TRACKED = 32768
LIFECYCLE = ("fork", "exec", "exit")

_NS_PER_TICK = 1_000_000_000 // TICKS_PER_SECOND
_INTERPRETERS = ("python", "pypy", "uwsg")
_CHILD_OF = {Role.CANDIDATE: Role.CANDIDATE, Role.MASTER: Role.WORKER}


class Peer(Protocol):
    """Another source that follows processes, and learns from here what its missing programs do not tell it."""

    def track(self, pid: int, start_ns: int, role: Role) -> None: ...

    def untrack(self, pid: int) -> None: ...


@dataclass(frozen=True, slots=True)
class _Tracked:
    """`parent_pid` is 0 where it is not known."""

    start_ns: int
    role: Role
    parent_pid: int = 0


class ConnectorSource:
    """A source of fork, exec and exit records. `fd` becomes readable when some may wait."""

    def __init__(self, kinds: Collection[str], procfs: ProcFs, peer: Peer | None = None) -> None:
        """Delivers only the `kinds` of LIFECYCLE that no better means delivers; raises ConnectorError."""
        self._kinds = frozenset(kinds)
        self._procfs = procfs
        self._peer = peer
        self._tracked: dict[int, _Tracked] = {}
        self._sent = dict.fromkeys(LIFECYCLE, 0)
        self._lost_seen = 0
        self.refused = 0
        self._events = ProcessEvents()
        self.fd = self._events.fd

    def read(self) -> list[Record]:
        """The records that wait, oldest first, bounded in number."""
        records = [record for event in self._events.read() if (record := self._record(event)) is not None]
        self._forget_the_dead_after_losses()
        return records

    def track(self, pid: int, start_ns: int, role: Role) -> None:
        """Follows a process and, from now on, its children. One that does not fit is counted in `refused`."""
        known = self._tracked.get(pid)
        self._put(pid, _Tracked(start_ns, role, 0 if known is None else known.parent_pid))

    def untrack(self, pid: int) -> None:
        """Follows the process no more."""
        self._tracked.pop(pid, None)

    def counts(self) -> dict[str, Counts]:
        """Records of each kind since the start. Lost ones have no kind: `lifecycle` counts them together."""
        sent = {kind: Counts(count, 0) for kind, count in self._sent.items() if kind in self._kinds}
        return {**sent, "lifecycle": Counts(0, self._events.lost()), "tracked": Counts(0, self.refused)}

    def close(self) -> None:
        """Stops listening."""
        self._events.close()

    def _record(self, event: ProcessEvent) -> Record | None:
        match event:
            case Forked():
                return self._told("fork", self._forked(event))
            case Executed():
                return self._told("exec", self._executed(event))
            case Ended():
                return self._told("exit", self._ended(event))

    def _told(self, kind: str, record: Record | None) -> Record | None:
        if record is None or kind not in self._kinds:
            return None
        self._sent[kind] += 1
        return record

    def _forked(self, event: Forked) -> ForkRecord | None:
        parent = self._tracked.get(event.parent_pid)
        if parent is None:
            return None
        role = _CHILD_OF.get(parent.role, Role.HELPER)
        if role is Role.HELPER:
            self._follow(event.pid, _Tracked(event.at_ns, role, event.parent_pid))
            return None
        start_ns = self._start_ns(event.pid, event.at_ns) or event.at_ns
        self._follow(event.pid, _Tracked(start_ns, role, event.parent_pid))
        return ForkRecord(event.at_ns, start_ns, event.pid, event.parent_pid, role)

    def _executed(self, event: Executed) -> ExecRecord | None:
        """A program that is gone again before its name was read is taken for no interpreter, which takes longer."""
        known = self._tracked.get(event.pid)
        before = known.role if known is not None else Role.NONE
        exe = self._procfs.binary_name(event.pid)
        after = _role_after_exec(before, is_interpreter=exe.startswith(_INTERPRETERS))
        if after is Role.NONE:
            if known is not None:
                self._unfollow(event.pid)
            return None
        start_ns = self._start_ns(event.pid, event.at_ns) or (known.start_ns if known is not None else None)
        if start_ns is None or before is after is Role.HELPER:
            return None
        process = self._procfs.process(event.pid)
        parent_pid = process.parent_pid if process is not None else 0
        self._follow(event.pid, _Tracked(start_ns, after, parent_pid))
        return ExecRecord(
            at_ns=event.at_ns,
            start_ns=start_ns,
            pid=event.pid,
            parent_pid=parent_pid,
            uid=process.uid if process is not None else None,
            role_before=before,
            role=after,
            comm=process.comm if process is not None else "",
            exe=exe,
        )

    def _ended(self, event: Ended) -> ExitRecord | None:
        known = self._tracked.get(event.pid)
        if known is None:
            return None
        if known.role is Role.HELPER:
            self._unfollow(event.pid)
            return None
        left = self._procfs.remains(event.pid, known.start_ns // _NS_PER_TICK)
        if left is not None and not left.is_dead:  # a thread became another program: the process lives on
            return None
        self._unfollow(event.pid)
        return ExitRecord(
            at_ns=event.at_ns,
            start_ns=known.start_ns,
            pid=event.pid,
            cpu_ns=left.cpu_ns if left is not None else None,
            peak_rss_bytes=None,
            accepts=None,
            parent_pid=event.parent_pid or known.parent_pid,
            wait_status=event.wait_status,
            role=known.role,
            uid=left.uid if left is not None else None,
            comm=left.comm if left is not None else "",
        )

    def _start_ns(self, pid: int, at_ns: int) -> int | None:
        """When the process started, in ns since boot by whole ticks; None when it is gone.

        One that started after the event is another process, to which the pid was given again.
        """
        ticks = self._procfs.start_ticks(pid)
        if ticks is None or ticks * _NS_PER_TICK > at_ns:
            return None
        return ticks * _NS_PER_TICK

    def _follow(self, pid: int, process: _Tracked) -> None:
        self._put(pid, process)
        if self._peer is not None:
            self._peer.track(pid, process.start_ns, process.role)

    def _put(self, pid: int, process: _Tracked) -> None:
        if pid in self._tracked or len(self._tracked) < MAX_TRACKED:
            self._tracked[pid] = process
        else:
            self.refused += 1

    def _unfollow(self, pid: int) -> None:
        self.untrack(pid)
        if self._peer is not None:
            self._peer.untrack(pid)

    def _forget_the_dead_after_losses(self) -> None:
        """Lost deaths would leave roles behind for whoever is given the pid next."""
        lost = self._events.lost()
        if lost == self._lost_seen:
            return
        self._lost_seen = lost
        for pid, known in list(self._tracked.items()):
            if self._procfs.start_ticks(pid) != known.start_ns // _NS_PER_TICK:
                self._unfollow(pid)


def _role_after_exec(before: Role, *, is_interpreter: bool) -> Role:
    """What an exec makes of a process: an interpreter may become a service, whatever it was before."""
    if is_interpreter:
        return Role.MASTER if before is Role.MASTER else Role.CANDIDATE
    if before in (Role.WORKER, Role.HELPER):
        return Role.HELPER
    return Role.MASTER if before is Role.MASTER else Role.NONE
