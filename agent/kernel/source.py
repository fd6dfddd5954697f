"""Attached BPF programs as a source of records: read what they report, steer what they follow."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from agent.kernel.figures import Counts, RunTime, parse_run_time
from agent.kernel.layout import LayoutError, TypeInformation
from agent.kernel.libbpf import BpfError, BpfMap, Libbpf, RingBuffer
from agent.kernel.listener_table import ListenerTable
from agent.kernel.records import ExitRecord, Record, RecordDecoder, Role
from agent.procfs import own_descriptor

RECORDS_AT_ONCE = 512
"""Records read in one go before other work gets its turn."""

MAX_TRACKED = 32768
"""Entries of the map `tracked`."""

FIRST_EPOCH = 2
"""The kernel takes slots of the epoch before, too; the empty slots are of epoch 0."""

_U32 = struct.Struct("=I")


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

    def __init__(
        self, library: Libbpf, programs: Programs, types: TypeInformation, *, counts_accepts: bool = False
    ) -> None:
        """`counts_accepts`: the hook on accept is among the programs."""
        self._object = programs
        self._counts_accepts = counts_accepts
        self._decoder = RecordDecoder(types)
        self._tracked_value = types.struct("tracked").packed
        self._counter_value = types.struct("counter").packed
        self._tracked = self._map("tracked", self._tracked_value)
        self.listeners = ListenerTable(self._object.map("listeners", types.struct("listener").packed.size), types)
        self._tracked_slots = self._map("tracked_slots", _U32)
        self._slots = types.enum("table_size")["TRACKED_SLOTS"]
        self._epoch = 0
        self._counters = self._object.map("counters", self._counter_value.size, per_cpu=True)
        self._ring = RingBuffer(library, self._object.map("records", 0), at_once=RECORDS_AT_ONCE)
        self.fd = self._ring.fd
        self.unreadable = 0
        self.refused = 0
        self.renew()

    def read(self) -> list[Record]:
        """The records that wait, oldest first, at most RECORDS_AT_ONCE. Bytes that are none are counted."""
        return [record for data in self._ring.consume() if (record := self._decode(data)) is not None]

    def track(self, pid: int, start_ns: int, role: Role) -> None:
        """Follows a process and, from now on, its children. One that does not fit is counted in `refused`."""
        self._set(self._tracked, _u32(pid), self._tracked_value.pack(start_ns, role, 0))
        self._set(self._tracked_slots, _u32(1 + pid % self._slots), _u32(self._epoch))

    def untrack(self, pid: int) -> None:
        """Follows the process no more."""
        self._tracked.delete(_u32(pid))

    def renew(self, is_gone: Callable[[int, int], bool] = lambda _pid, _start_ns: False) -> None:
        """Begins a new epoch of the kernel's small table, so that slots of the dead no longer send it to the large one.

        Processes that `is_gone` (pid, start in ns since boot) are followed no more: their ends were lost. To be
        called now and then; while the table changes too fast to be read, nothing is done.
        """
        keys = self._tracked.keys(_U32.size, 2 * MAX_TRACKED)
        if keys is None:
            return
        following = self._epoch + 1 if self._epoch else FIRST_EPOCH
        for key in keys:
            (pid,) = _U32.unpack(key)
            value = self._tracked.lookup(key)
            if value is not None and is_gone(pid, self._tracked_value.unpack(value)[0]):
                self._tracked.delete(key)
                continue
            self._set(self._tracked_slots, _u32(1 + pid % self._slots), _u32(following))
        self._set(self._tracked_slots, _u32(0), _u32(following))
        self._epoch = following

    def counts(self) -> dict[str, Counts]:
        """Records of each kind since the start, over all CPUs; `tracked` counts processes that did not fit."""
        names = {**self._decoder.kinds, len(self._decoder.kinds): "tracked"}
        return {name: self._count(index) for index, name in names.items()}

    def run_times(self, programs: Iterable[str]) -> dict[str, RunTime]:
        """What the kernel's run-time statistics say of each program."""
        return {name: parse_run_time(own_descriptor(self._object.program_fd(name))) for name in programs}

    def close(self) -> None:
        """Detaches everything."""
        self._ring.close()
        self._object.close()

    def _decode(self, data: bytes) -> Record | None:
        try:
            record = self._decoder.decode(data)
        except LayoutError:
            self.unreadable += 1
            return None
        if isinstance(record, ExitRecord) and not self._counts_accepts:
            return replace(record, accepts=None)
        return record

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
    return _U32.pack(value)


def _u64(value: int) -> bytes:
    return struct.pack("=Q", value)
