"""The kernel's process connector: a netlink group that tells every birth, exec and death on the host.

pyroute2 describes the messages. Its own socket is not used: for every read it runs an event loop, which cannot be
done inside the agent's, and it builds a dictionary for every message.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import select
import socket
import struct
import time
from collections.abc import Iterator

from agent.kernel.netlink import NetlinkMissingError
from agent.kernel.process_messages import LARGEST_MESSAGE_BYTES, ProcessEvent, ProcessMessages
from agent.kernel.reasons import CAP_NET_ADMIN, has_capability
from agent.procfs import foreign_namespaces

MESSAGES_AT_ONCE = 512
"""Messages read in one go before other work gets its turn."""

BUFFER_BYTES = 4 * 1024 * 1024
"""What may wait in the kernel: about five thousand messages."""

_ASK_TIMES = 3
"""Kernels before 6.6 count listeners. A program that left twice makes them deaf, until others have come as often."""

_ANSWER_WAIT_S = 0.5
_KERNEL = 0

# Numbers of Linux that Python's socket module does not name.
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_MEMINFO = 26, 33, 55
_MEMINFO = struct.Struct("=9I")
_MEMINFO_DROPS = 8


class ConnectorError(RuntimeError):
    """The process connector cannot be heard; the text says why."""


class ProcessEvents:
    """A socket that hears the connector. `fd` becomes readable when events wait."""

    def __init__(self) -> None:
        """Begins to listen; raises ConnectorError."""
        try:
            self._messages = ProcessMessages()
        except NetlinkMissingError as error:
            raise ConnectorError(str(error)) from None
        self._socket = _open(self._messages)
        self.fd = self._socket.fileno()
        try:
            self._listen()
        except ConnectorError:
            self._socket.close()
            raise

    def read(self) -> list[ProcessEvent]:
        """The events that wait, oldest first, MESSAGES_AT_ONCE at most. Those of threads are left out."""
        to_boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        events = (self._messages.event(data, to_boot_ns) for data in self._receive())
        return [event for event in events if event is not None]

    def lost(self) -> int:
        """How many events were lost so far because the buffer was full."""
        raw = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        drops: int = _MEMINFO.unpack(raw)[_MEMINFO_DROPS]
        return drops

    def close(self) -> None:
        """Stops listening. Kernels before 6.6 go on making events, for nobody, unless they are told to stop."""
        self._socket.send(self._messages.request(self._messages.IGNORE, 0))
        self._socket.close()

    def _listen(self) -> None:
        for _ in range(_ASK_TIMES):
            mark = secrets.randbits(31)
            try:
                self._socket.send(self._messages.request(self._messages.LISTEN, mark))
            except ConnectionRefusedError:
                raise ConnectorError(_elsewhere(("network",))) from None
            number = self._answer(mark)
            if number == 0:
                return
            if number is not None:
                raise ConnectorError(_refused(number))
            if foreign := foreign_namespaces():
                raise ConnectorError(_elsewhere(foreign))
        raise ConnectorError("this kernel does not answer (CONFIG_PROC_EVENTS is off)")

    def _answer(self, mark: int) -> int | None:
        """The error number, 0 for none, in the kernel's answer; None when it is silent."""
        deadline = time.monotonic() + _ANSWER_WAIT_S
        while (left := deadline - time.monotonic()) > 0:
            select.select([self._socket], [], [], left)
            for data in self._receive():
                if (number := self._messages.answer(data, mark)) is not None:
                    return number
        return None

    def _receive(self) -> Iterator[bytes]:
        """What waits. After a loss the kernel says so once (ENOBUFS); `lost` has the number."""
        for _ in range(MESSAGES_AT_ONCE):
            try:
                data, (sender, _groups) = self._socket.recvfrom(LARGEST_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue
            if sender == _KERNEL:
                yield data


def _open(messages: ProcessMessages) -> socket.socket:
    try:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, messages.family)
    except OSError:
        raise ConnectorError("this kernel has no connector (CONFIG_CONNECTOR is off)") from None
    try:
        _enlarge(opened)
        _attach_filter(opened, messages.filter())
        opened.bind((0, messages.group))
    except OSError as error:
        opened.close()
        raise ConnectorError(_refused(error.errno)) from None
    return opened


def _enlarge(opened: socket.socket) -> None:
    """As large a buffer as is permitted: beyond net.core.rmem_max it takes CAP_NET_ADMIN."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)


def _attach_filter(opened: socket.socket, instructions: list[bytes]) -> None:
    """The kernel takes a pointer to the instructions and copies them."""
    code = ctypes.create_string_buffer(b"".join(instructions))
    program = struct.pack("@HP", len(instructions), ctypes.addressof(code))
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _refused(number: int | None) -> str:
    if number == errno.EPERM and (foreign := foreign_namespaces()):
        return _elsewhere(foreign)
    text = f"the kernel refuses it ({os.strerror(number or 0)})"
    if number == errno.EPERM and not has_capability(CAP_NET_ADMIN):
        return f"{text}; it needs CAP_NET_ADMIN, which this process does not have"
    return text


def _elsewhere(namespaces: tuple[str, ...]) -> str:
    return f"it speaks in the initial {' and '.join(namespaces)} namespace only"
