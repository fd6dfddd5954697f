"""Looks at listening sockets by netlink (sock_diag), in whatever network namespace they are.

The messages are pyroute2's; the socket is a plain one, as pyroute2's own brings an event loop along. A netlink socket
answers for the namespace that it was made in: for a namespace of its own a thread enters it, makes the socket there
and ends.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from agent.kernel.netlink import NetlinkMissingError, load

_NETLINK_SOCK_DIAG = 4
_SO_NETNS_COOKIE = 71
_CLONE_NEWNET = 0x40000000
_REQUEST_DUMP = 0x301
_ERROR, _DONE = 2, 3
_LISTENING = 1 << 10
_WITH_MEMORY = 1 << 6  # INET_DIAG_SKMEMINFO - 1
_DROPS_AT = 8 * 4  # SK_MEMINFO_DROPS
_ANSWER_WITHIN_S = 1.0
_ANSWER_BYTES = 64 * 1024
_INODE_AT = {socket.AF_UNIX: 20, socket.AF_INET: 84, socket.AF_INET6: 84}


class DiagError(RuntimeError):
    """Netlink diag cannot be used, or refused an answer; the text says why."""


@dataclass(frozen=True, slots=True)
class Sight:
    """One listener at one moment: connections waiting, its limit, and all drops of a TCP socket (None for unix)."""

    depth: int
    limit: int
    drops: int | None


@dataclass(slots=True)
class _Namespace:
    """A network namespace by the socket that was made in it, and the listeners to look at there."""

    socket: socket.socket
    inodes: set[int] = field(default_factory=set)


class QueueDiag:
    """Netlink diag, and one socket for each network namespace in which listeners are looked at."""

    def __init__(self) -> None:
        """Raises DiagError when pyroute2 is missing or the kernel offers no sock_diag."""
        try:
            self._messages: Any = load("netlink.diag")
            own = _open()
        except (NetlinkMissingError, OSError) as error:
            raise DiagError(f"netlink diag cannot be used: {error}") from None
        self._own = _cookie(own)
        self._namespaces = {self._own: _Namespace(own)}
        self._home: dict[int, int] = {}
        self._cookies: dict[int, int] = {}
        self._dump(own, frozenset())

    def look(self, holders: Mapping[int, int | None]) -> dict[int, Sight]:
        """The listeners that were found, by inode.

        `holders` names a process that has each open; it tells the namespace, None the agent's own. Raises DiagError.
        """
        for inode, holder_pid in holders.items():
            if inode not in self._home:
                self._settle(inode, holder_pid)
        found: dict[int, Sight] = {}
        for namespace in self._namespaces.values():
            if wanted := namespace.inodes & holders.keys():
                found |= self._dump(namespace.socket, wanted)
        # A service manager can hand a listener of the host to a service in a namespace of its own.
        if strangers := {inode for inode in holders.keys() - found.keys() if self._home[inode] != self._own}:
            found |= self._dump(self._namespaces[self._own].socket, strangers)
        return found

    def forget(self, inode: int) -> None:
        """Looks at the listener no more, and lets go of a namespace in which there is nothing else to look at."""
        cookie = self._home.pop(inode, None)
        if cookie is None:
            return
        namespace = self._namespaces[cookie]
        namespace.inodes.discard(inode)
        if not namespace.inodes and cookie != self._own:
            namespace.socket.close()
            del self._namespaces[cookie]
            self._cookies = {pid: known for pid, known in self._cookies.items() if known != cookie}

    def close(self) -> None:
        """Lets go of all namespaces."""
        for namespace in self._namespaces.values():
            namespace.socket.close()

    def _settle(self, inode: int, holder_pid: int | None) -> None:
        """Finds out in which namespace the listener is. A holder that is gone or out of reach: in the agent's own."""
        cookie = self._own if holder_pid is None else self._cookies.get(holder_pid)
        if cookie is None:
            assert holder_pid is not None
            cookie = self._enter(holder_pid)
            self._cookies[holder_pid] = cookie
        self._home[inode] = cookie
        self._namespaces[cookie].inodes.add(inode)

    def _enter(self, pid: int) -> int:
        with ThreadPoolExecutor(1) as thread:
            try:
                there = thread.submit(_open_beside, pid).result()
            except OSError:
                return self._own
        cookie = _cookie(there)
        if cookie in self._namespaces:
            there.close()
        else:
            self._namespaces[cookie] = _Namespace(there)
        return cookie

    def _dump(self, netlink: socket.socket, wanted: Set[int]) -> dict[int, Sight]:
        found: dict[int, Sight] = {}
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            request = self._unix_request() if family == socket.AF_UNIX else self._tcp_request()
            request["sdiag_family"] = family
            for data, at in _answers(netlink, request):
                (inode,) = struct.unpack_from("=I", data, at + _INODE_AT[family])
                if inode in wanted:
                    found[inode] = self._unix(data, at) if family == socket.AF_UNIX else self._tcp(data, at)
        return found

    def _unix_request(self) -> Any:
        request = self._messages.unix_diag_req()
        request["udiag_states"] = _LISTENING
        request["udiag_show"] = self._messages.UDIAG_SHOW_RQLEN
        return request

    def _tcp_request(self) -> Any:
        request = self._messages.inet_diag_req()
        request["idiag_states"] = _LISTENING
        request["sdiag_protocol"] = socket.IPPROTO_TCP
        request["idiag_ext"] = _WITH_MEMORY
        return request

    def _unix(self, data: bytes, at: int) -> Sight:
        message = self._messages.unix_diag_msg(data, offset=at)
        message.decode()
        lengths = message.get_attr("UNIX_DIAG_RQLEN")
        return Sight(lengths["udiag_rqueue"], lengths["udiag_wqueue"], None)

    def _tcp(self, data: bytes, at: int) -> Sight:
        message = self._messages.inet_diag_msg(data, offset=at)
        message.decode()
        memory = bytes.fromhex((message.get_attr("INET_DIAG_SKMEMINFO") or "").replace(":", ""))
        drops = int.from_bytes(memory[_DROPS_AT : _DROPS_AT + 4], "little") if len(memory) > _DROPS_AT else None
        return Sight(message["idiag_rqueue"], message["idiag_wqueue"], drops)


def _open() -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
    netlink.settimeout(_ANSWER_WITHIN_S)
    return netlink


def _open_beside(pid: int) -> socket.socket:
    """A socket in the network namespace of a process. To be run in a thread that ends: it stays in that namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        if libc.setns(process, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"the network namespace of pid {pid} cannot be entered: {os.strerror(number)}")
        return _open()
    finally:
        os.close(process)


def _cookie(netlink: socket.socket) -> int:
    """What tells the socket's namespace from others; before Linux 5.14 each socket counts as one of its own."""
    try:
        return int.from_bytes(netlink.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
    except OSError:
        return -netlink.fileno()


def _answers(netlink: socket.socket, request: Any) -> Iterator[tuple[bytes, int]]:
    """Each message of a dump as its buffer and where in it the message begins; raises DiagError."""
    request["header"]["type"] = 20  # SOCK_DIAG_BY_FAMILY
    request["header"]["flags"] = _REQUEST_DUMP
    request.encode()
    try:
        netlink.send(request.data)
        while True:
            data = netlink.recv(_ANSWER_BYTES)
            at = 0
            while at < len(data):
                length, kind = struct.unpack_from("=IH", data, at)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    (number,) = struct.unpack_from("=i", data, at + 16)
                    raise DiagError(f"the kernel answered netlink diag with: {os.strerror(-number)}")
                yield data, at
                at += length + 3 & ~3
    except OSError as error:
        raise DiagError(f"netlink diag failed: {error}") from None
