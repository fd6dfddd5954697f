"""The kernel's map of watched listeners, and what its programs have counted in it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from agent.kernel.layout import TypeInformation
from agent.kernel.libbpf import BpfError, BpfMap

_INODE = struct.Struct("=Q")
_AF_UNIX = 1


@dataclass(frozen=True, slots=True)
class SecondSeen:
    """The extremes of one second of the boot clock: most connections waiting, longest wait of an accepted one."""

    second: int
    depth: int
    limit: int
    longest_wait_ns: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One value of the map. `drops` are the TCP socket's own counter at its first and latest arrival, None for unix."""

    seconds: tuple[SecondSeen, ...]
    arrivals_hooked: int
    arrivals_data_ready: int
    found_waiting: int
    accepts: int
    waited_ns: int
    turned_away: int
    blocked: int
    waits: tuple[int, ...]
    depth: int
    limit: int
    drops: tuple[int, int] | None


class ListenerTable:
    """The map `listeners`. Listeners that do not fit are counted in `refused`."""

    def __init__(self, listeners: BpfMap, types: TypeInformation) -> None:
        layout = types.struct("listener")
        self._unpack = layout.packed.unpack
        self._empty = bytes(layout.packed.size)
        self._at = {name: index for index, name in enumerate(layout.fields)}
        buckets = [index for name, index in self._at.items() if name.startswith("waits[")]
        self._waits = slice(buckets[0], buckets[-1] + 1)
        self._listeners = listeners
        self._watched: set[int] = set()
        self._rows: dict[int, tuple[bytes, Row]] = {}
        self.refused = 0

    def watch(self, inode: int) -> None:
        """Counts for this listening socket from now on; one that is watched already keeps its counts."""
        if inode in self._watched:
            return
        try:
            self._listeners.update(_INODE.pack(inode), self._empty)
        except BpfError:
            self.refused += 1
        else:
            self._watched.add(inode)

    def forget(self, inode: int) -> None:
        """Counts no more."""
        self._watched.discard(inode)
        self._rows.pop(inode, None)
        self._listeners.delete(_INODE.pack(inode))

    def row(self, inode: int) -> Row | None:
        """What was counted since `watch`; None for a listener that is not watched."""
        raw = self._listeners.lookup(_INODE.pack(inode)) if inode in self._watched else None
        if raw is None:
            return None
        same, row = self._rows.get(inode, (b"", None))
        if row is None or raw != same:
            row = self._row(self._unpack(raw))
            self._rows[inode] = (raw, row)
        return row

    def _row(self, values: tuple[int, ...]) -> Row:
        def value(name: str) -> int:
            return values[self._at[name]]

        seconds = [
            SecondSeen(*(value(f"seconds[{slot}].{name}") for name in ("second", "depth", "limit", "longest_wait_ns")))
            for slot in (0, 1)
        ]
        unix = value("family") in (_AF_UNIX, 0)
        return Row(
            seconds=tuple(seen for seen in seconds if seen.second),
            arrivals_hooked=max(value("arrivals_fentry"), value("arrivals_kprobe")),
            arrivals_data_ready=value("arrivals_data_ready"),
            found_waiting=value("found_waiting"),
            accepts=value("accepts"),
            waited_ns=value("waited_ns"),
            turned_away=value("turned_away"),
            blocked=value("blocked"),
            waits=values[self._waits],
            depth=value("depth"),
            limit=value("limit"),
            drops=None if unix else (value("drops_before"), value("drops")),
        )
