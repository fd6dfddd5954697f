"""The kernel as the agent's source of records: attach what can be attached, read records, steer the filters."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from agent.kernel.ladder import Attached, Probe, climb, nothing_heard
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


class KernelSource:
    """An attached BPF object. `open_kernel` makes one. `fd` becomes readable when records wait."""

    def __init__(self, library: Libbpf, attached: Attached, object_file: bytes) -> None:
        types = TypeInformation(object_file)
        self.probes = attached.probes
        self._object = attached.object
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


def open_kernel(object_path: Path) -> tuple[KernelSource | None, tuple[Probe, ...]]:
    """Attaches what this kernel lets be attached. Without any BPF at all: None, and probes that say why."""
    try:
        library = Libbpf()
        data = object_path.read_bytes()
        attached = climb(library, object_path)
        return KernelSource(library, attached, data), attached.probes
    except FileNotFoundError:
        return None, nothing_heard(f"the BPF object {object_path} is not built; run ./reflex setup or make -C bpf")
    except LayoutError as error:
        return None, nothing_heard(f"the BPF object {object_path} cannot be used: {error}")
    except BpfError as error:
        return None, nothing_heard(error.strerror or str(error))


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


def _u64(value: int) -> bytes:
    return struct.pack("=Q", value)
