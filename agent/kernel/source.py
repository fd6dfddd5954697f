"""Attached BPF programs as a source of records: read what they report, steer what they follow."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

from agent.kernel.layout import LayoutError, TypeInformation
from agent.kernel.libbpf import BpfError, BpfMap, Libbpf, RingBuffer
from agent.kernel.records import Record, RecordDecoder, Role

RECORDS_AT_ONCE = 512
"""Records read in one go before other work gets its turn."""


@dataclass(frozen=True, slots=True)
class Peak:
    """The deepest accept queue of one listener within one second, and its limit, in connections."""

    depth: int
    limit: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Records of one kind since the start: sent by the kernel, and lost because the buffer was full."""

    sent: int
    lost: int


class Programs(Protocol):
    """Loaded and attached programs, however they came into the kernel: their maps by name, and their end."""

    def map(self, name: str, value_bytes: int, *, per_cpu: bool = False) -> BpfMap:
        """A map; `value_bytes` is the size of one value (of one CPU)."""

    def program_fd(self, name: str) -> int:
        """The file descriptor of a loaded program."""

    def close(self) -> None:
        """Detaches everything."""


class BpfSource:
    """Attached programs and their maps. `fd` becomes readable when records wait."""

    def __init__(self, library: Libbpf, programs: Programs, types: TypeInformation) -> None:
        self._object = programs
        self._decoder = RecordDecoder(types)
        self._tracked_value = types.struct("tracked").packed
        self._listener_value = types.struct("listener").packed
        self._counter_value = types.struct("counter").packed
        self._tracked = self._map("tracked", self._tracked_value)
        self._listeners = self._map("listeners", self._listener_value)
        self._counters = self._object.map("counters", self._counter_value.size, per_cpu=True)
        self._ring = RingBuffer(library, self._object.map("records", 0), at_once=RECORDS_AT_ONCE)
        self.fd = self._ring.fd
        self.unreadable = 0
        self.refused = 0

    def read(self) -> list[Record]:
        """The records that wait, oldest first, at most RECORDS_AT_ONCE. Bytes that are none are counted."""
        return [record for data in self._ring.consume() if (record := self._decode(data)) is not None]

    def track(self, pid: int, start_ns: int, role: Role) -> None:
        """Follows a process and, from now on, its children. One that does not fit is counted in `refused`."""
        self._set(self._tracked, _u32(pid), self._tracked_value.pack(start_ns, role, 0))

    def untrack(self, pid: int) -> None:
        """Follows the process no more."""
        self._tracked.delete(_u32(pid))

    def watch_listener(self, inode: int) -> None:
        """Keeps the depth of this listening socket's queue from now on. One that does not fit is counted."""
        self._set(self._listeners, _u64(inode), bytes(self._listener_value.size))

    def forget_listener(self, inode: int) -> None:
        """Keeps it no more."""
        self._listeners.delete(_u64(inode))

    def peak(self, inode: int, second: int) -> Peak | None:
        """The deepest queue within `second` of the boot clock; None when no connection came in it."""
        raw = self._listeners.lookup(_u64(inode))
        if raw is None:
            return None
        at, depth, limit, _wakeups = self._listener_value.unpack(raw)[4 * (second & 1) :][:4]
        return Peak(depth, limit) if at == second else None

    def counts(self) -> dict[str, Counts]:
        """Records of each kind since the start, over all CPUs; `tracked` counts processes that did not fit."""
        names = {**self._decoder.kinds, len(self._decoder.kinds): "tracked"}
        return {name: self._count(index) for index, name in names.items()}

    def program_fd(self, name: str) -> int:
        """The file descriptor of a program, for its run-time statistics."""
        return self._object.program_fd(name)

    def close(self) -> None:
        """Detaches everything."""
        self._ring.close()
        self._object.close()

    def _decode(self, data: bytes) -> Record | None:
        try:
            return self._decoder.decode(data)
        except LayoutError:
            self.unreadable += 1
            return None

    def _set(self, target: BpfMap, key: bytes, value: bytes) -> None:
        try:
            target.update(key, value)
        except BpfError:
            self.refused += 1

    def _count(self, index: int) -> Counts:
        raw = self._counters.lookup(_u32(index)) or b""
        rows = list(self._counter_value.iter_unpack(raw))
        return Counts(sum(sent for sent, _ in rows), sum(lost for _, lost in rows))

    def _map(self, name: str, value: struct.Struct) -> BpfMap:
        return self._object.map(name, value.size)


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


def _u64(value: int) -> bytes:
    return struct.pack("=Q", value)
