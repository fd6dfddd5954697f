"""The kernel's records as Python values, decoded by the layouts that the BPF object describes itself.

Pure. Times are nanoseconds of CLOCK_BOOTTIME; pids are thread group ids of the initial pid namespace.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TypeAlias

from agent.kernel.layout import LayoutError, TypeInformation


class Role(IntEnum):
    """What a tracked process is; mirrors `enum role` of bpf/events.h, and a mismatch is refused at load."""

    CANDIDATE = 0
    MASTER = 1
    WORKER = 2
    HELPER = 3
    NONE = 4


class OomReason(IntEnum):
    """Which limit was hit; mirrors `enum oom_reason` of bpf/events.h, and a mismatch is refused at load."""

    UNTOLD = 0
    HOST = 1
    CPUSET = 2
    MEMORY_POLICY = 3
    CGROUP = 4


@dataclass(frozen=True, slots=True)
class ForkRecord:
    """A tracked process forked; `pid` is the child."""

    at_ns: int
    start_ns: int
    pid: int
    parent_pid: int
    role: int


@dataclass(frozen=True, slots=True)
class ExecRecord:
    """A process became another program; `exe` is the file name of the binary (of a script: its interpreter)."""

    at_ns: int
    start_ns: int
    pid: int
    parent_pid: int
    uid: int | None
    role_before: int
    role: int
    comm: str
    exe: str


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """A tracked process ended; `wait_status` is what its parent's wait(2) returns. None is what the means cannot tell.

    `accepts` counts connections of watched listeners since the process was followed.
    """

    at_ns: int
    start_ns: int
    pid: int
    cpu_ns: int | None
    peak_rss_bytes: int | None
    accepts: int | None
    parent_pid: int
    wait_status: int
    role: int
    uid: int | None
    comm: str


@dataclass(frozen=True, slots=True)
class OomRecord:
    """The OOM killer chose a victim (`pid`); `limit_bytes` is 0 when no memory cgroup was found full.

    `total_bytes`, `points` (pages), `order` and `chosen_pid` are 0 where `constraint` is UNTOLD.
    """

    at_ns: int
    start_ns: int
    pid: int
    anon_bytes: int
    file_bytes: int
    shmem_bytes: int
    swap_bytes: int
    total_vm_bytes: int
    limit_bytes: int
    usage_bytes: int
    cgroup_id: int
    allocator_start_ns: int
    total_bytes: int
    points: int
    constraint: int
    order: int
    chosen_pid: int
    group: int
    allocator_pid: int
    victim_uid: int
    oom_score_adj: int
    role: int
    victim_comm: str
    allocator_comm: str
    cgroup_name: str


@dataclass(frozen=True, slots=True)
class SignalRecord:
    """A signal that ends, reloads or scales was sent to a tracked process (`pid`)."""

    at_ns: int
    start_ns: int
    pid: int
    sender_start_ns: int
    sender_pid: int
    sender_uid: int
    sender_parent_pid: int
    signal: int
    code: int
    result: int
    role: int
    sender_comm: str
    sender_parent_comm: str
    sender_tty: str


Record: TypeAlias = ForkRecord | ExecRecord | ExitRecord | OomRecord | SignalRecord

RECORD_TYPES: dict[str, type[Record]] = {
    "fork": ForkRecord,
    "exec": ExecRecord,
    "exit": ExitRecord,
    "oom": OomRecord,
    "signal": SignalRecord,
}
"""The record kinds, named as in `enum record_kind` without its prefix."""

_NOT_CARRIED = frozenset({"kind", "padding"})
_KIND_AT = 16


class RecordDecoder:
    """Turns the bytes of one ring buffer record into its value."""

    def __init__(self, types: TypeInformation) -> None:
        _check_enum(types, "role", Role)
        _check_enum(types, "oom_reason", OomReason, prefix="OOM_")
        kinds = types.enum("record_kind")
        self.kinds: dict[int, str] = {kinds[f"RECORD_{name.upper()}"]: name for name in RECORD_TYPES}
        self._decoders = {number: _decoder(types, name) for number, name in self.kinds.items()}

    def decode(self, data: bytes) -> Record:
        """The record; raises LayoutError for bytes that no known record has."""
        try:
            (kind,) = struct.unpack_from("=I", data, _KIND_AT)
            return self._decoders[kind](data)
        except (struct.error, KeyError) as error:
            raise LayoutError(f"a kernel record of {len(data)} bytes cannot be read: {error!r}") from None


def _decoder(types: TypeInformation, name: str) -> Callable[[bytes], Record]:
    layout = types.struct(f"{name}_record")
    record_type: Callable[..., Record] = RECORD_TYPES[name]
    wanted = tuple(f.name for f in fields(RECORD_TYPES[name]))
    offered = tuple(f for f in layout.fields if f not in _NOT_CARRIED)
    if wanted != offered:
        raise LayoutError(
            f"{name}_record in the BPF object has the members {offered}, the agent expects {wanted}; "
            "agent and object are of different versions: rebuild the object with make -C bpf"
        )
    keep = [i for i, field in enumerate(layout.fields) if field not in _NOT_CARRIED]
    unpack, size = layout.packed.unpack_from, layout.packed.size

    def decode(data: bytes) -> Record:
        if len(data) < size:
            raise struct.error(f"{name}_record needs {size} bytes")
        values = unpack(data)
        return record_type(*[_text(v) if isinstance(v := values[i], bytes) else v for i in keep])

    return decode


def _check_enum(types: TypeInformation, name: str, mirror: type[IntEnum], prefix: str = "ROLE_") -> None:
    offered = {member.removeprefix(prefix): value for member, value in types.enum(name).items()}
    if offered != {member.name: member.value for member in mirror}:
        raise LayoutError(f"enum {name} of the BPF object differs from the agent's; rebuild it with: make -C bpf")


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")
