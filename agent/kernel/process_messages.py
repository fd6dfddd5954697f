"""The messages of the kernel's process connector: as pyroute2 describes them, each read by one unpacking."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

from agent.kernel import netlink

LARGEST_MESSAGE_BYTES = 256

_LOAD, _TO_X, _EQUALS, _EQUALS_X, _GIVE = 0x20, 0x07, 0x15, 0x1D, 0x06
"""Instructions of classic BPF; `_LOAD` takes a word of the message, in network byte order."""


@dataclass(frozen=True, slots=True)
class Forked:
    """`parent_pid` forked `pid`. Here and below: `at_ns` is the boot clock in ns, pids are thread group ids."""

    at_ns: int
    parent_pid: int
    pid: int


@dataclass(frozen=True, slots=True)
class Executed:
    """`pid` became another program."""

    at_ns: int
    pid: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The main thread of `pid` ended; `wait_status` is what the parent's wait(2) returns. Parent 0 is unknown."""

    at_ns: int
    pid: int
    wait_status: int
    parent_pid: int


ProcessEvent: TypeAlias = Forked | Executed | Ended


class _Layout:
    """One message class of pyroute2 as a struct, of which `read` gives the fields `wanted`."""

    def __init__(self, message: Any, *wanted: str) -> None:
        fields = [*message.header, *message.fields]
        self._names = [name for name, _ in fields]
        self._codes = [code for _, code in fields]
        self._packed = struct.Struct("=" + "".join(self._codes))
        self._pick = itemgetter(*(self._names.index(name) for name in wanted))

    def read(self, data: bytes) -> Any:
        """The wanted fields in their order; raises struct.error for too few bytes."""
        return self._pick(self._packed.unpack_from(data))

    def at(self, name: str) -> int:
        """Where a field begins, in bytes."""
        return struct.calcsize("=" + "".join(self._codes[: self._names.index(name)]))


class ProcessMessages:
    """Reads and writes the messages. Raises netlink.NetlinkMissingError where pyroute2 is not there."""

    def __init__(self) -> None:
        known = netlink.load("netlink.connector.cn_proc")
        self._control = known.proc_event_control
        self._netlink = netlink.load("netlink")
        self.family: int = self._netlink.NETLINK_CONNECTOR
        self.group: int = known.CN_IDX_PROC
        self.LISTEN: int = known.PROC_CN_MCAST_LISTEN
        self.IGNORE: int = known.PROC_CN_MCAST_IGNORE
        self._channel: tuple[int, int] = (known.CN_IDX_PROC, known.CN_VAL_PROC)
        self._answered: int = known.PROC_EVENT_NONE
        self._forked: int = known.PROC_EVENT_FORK
        self._executed: int = known.PROC_EVENT_EXEC
        self._ended: int = known.PROC_EVENT_EXIT
        self._what = _Layout(known.proc_event_base, "what")
        self._answer = _Layout(known.proc_event_exec, "what", "ack", "process_pid")
        self._fork = _Layout(known.proc_event_fork, "timestamp_ns", "parent_tgid", "child_tgid", "child_pid")
        self._exec = _Layout(known.proc_event_exec, "timestamp_ns", "process_tgid", "process_pid")
        self._exit = _Layout(
            known.proc_event_exit, "timestamp_ns", "process_tgid", "process_pid", "exit_code", "parent_tgid"
        )

    def event(self, data: bytes, monotonic_to_boot_ns: int) -> ProcessEvent | None:
        """The event that a message tells; None for one of a thread, for answers and for what is too short."""
        try:
            what = self._what.read(data)
            if what == self._forked:
                at_ns, parent, pid, thread = self._fork.read(data)
                return Forked(at_ns + monotonic_to_boot_ns, parent, pid) if pid == thread else None
            if what == self._executed:
                at_ns, pid, thread = self._exec.read(data)
                return Executed(at_ns + monotonic_to_boot_ns, pid) if pid == thread else None
            if what == self._ended:
                at_ns, pid, thread, status, parent = self._exit.read(data)
                return Ended(at_ns + monotonic_to_boot_ns, pid, status, parent) if pid == thread else None
        except struct.error:
            pass
        return None

    def request(self, action: int, mark: int) -> bytes:
        """`LISTEN` or `IGNORE`; the kernel's answer carries `mark` + 1."""
        message = self._control()
        message["idx"], message["val"] = self._channel
        message["ack"], message["len"], message["action"] = mark, struct.calcsize("=I"), action
        message["header"]["type"] = self._netlink.NLMSG_DONE
        message.encode()
        return bytes(message.data)

    def answer(self, data: bytes, mark: int) -> int | None:
        """The error number (0 for none) in the answer to the request with this mark; None for any other message."""
        try:
            what, found, number = self._answer.read(data)
        except struct.error:
            return None
        return number if (what, found) == (self._answered, mark + 1) else None

    def filter(self) -> list[bytes]:
        """Instructions of a socket filter: births, execs and deaths of processes pass, and answers.

        So threads that come and go, changes of names and users and the like never wake the agent.
        """
        program = (
            (_LOAD, 0, 0, self._what.at("what")),
            (_EQUALS, 11, 0, socket.htonl(self._answered)),
            (_EQUALS, 2, 0, socket.htonl(self._executed)),
            (_EQUALS, 1, 0, socket.htonl(self._ended)),
            (_EQUALS, 4, 9, socket.htonl(self._forked)),
            (_LOAD, 0, 0, self._exec.at("process_pid")),
            (_TO_X, 0, 0, 0),
            (_LOAD, 0, 0, self._exec.at("process_tgid")),
            (_EQUALS_X, 4, 5, 0),
            (_LOAD, 0, 0, self._fork.at("child_pid")),
            (_TO_X, 0, 0, 0),
            (_LOAD, 0, 0, self._fork.at("child_tgid")),
            (_EQUALS_X, 0, 1, 0),
            (_GIVE, 0, 0, LARGEST_MESSAGE_BYTES),
            (_GIVE, 0, 0, 0),
        )
        return [struct.pack("=HBBI", *instruction) for instruction in program]
