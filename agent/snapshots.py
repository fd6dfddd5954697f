"""Keeps what a worker was doing before it is too late: stacks, memory map and numbers, as an artifact that an event names."""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.artifacts import snapshot_artifact
from agent.limits import Room
from agent.memory_map import MemoryMap, read_map
from agent.procfs import ProcFs
from agent.service import Worker
from agent.stacks import Stack, Stacks, Thread, Untold, lines_of
from agent.wire import Artifact

APART_S = 60.0
PER_HOST, PER_HOST_S = 20, 600.0
MOST_FILES = 64
MOST_PARTS = 20
MOST_CONNECTIONS = 50
MOST_SMAPS_BYTES = 4 << 30
"""Of a larger process the map is not read: the kernel walks a page table entry for each 4 KiB and holds a lock meanwhile."""

EARLIER_KEPT = 64
NOT_HAD = ("which line of code allocated: that takes memray or tracemalloc inside of the application",)
_PRIVATE = 0o600

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was kept. `stack` and `mappings` are texts, cut for an event; artifact and file have all of it."""

    path: Path
    found: Stack | Untold
    stack: str
    mappings: str


@dataclass(frozen=True, slots=True)
class _Earlier:
    """The kinds of memory that a snapshot of the same process found before, in bytes."""

    at_s: float
    kinds: Mapping[str, int]


class Snapshots:
    """Takes and keeps snapshots, within limits: of one worker once in APART_S, of a host PER_HOST in PER_HOST_S."""

    def __init__(
        self, procfs: ProcFs, stacks: Stacks, folder: Path, send: Callable[[Artifact], None] = lambda artifact: None
    ) -> None:
        """`send` takes each artifact on its way, before its event."""
        self._procfs = procfs
        self._stacks = stacks
        self._folder = folder
        self._send = send
        self._taken_s: deque[float] = deque(maxlen=PER_HOST)
        self._earlier: dict[tuple[int, int], _Earlier] = {}

    def is_due(self, worker: Worker, now_s: float) -> bool:
        """Whether the limits allow one now."""
        last_s = worker.health.snapshot_s
        if last_s is not None and now_s - last_s < APART_S:
            return False
        return len(self._taken_s) < PER_HOST or now_s - self._taken_s[0] > PER_HOST_S

    async def take(self, worker: Worker, name: str, why: str, room: Room | None, now_s: float) -> Snapshot:
        """Takes one; the stack first, as it is the most fleeting. `name` is the id of the event and of the artifact."""
        worker.health.snapshot_s = now_s
        self._taken_s.append(now_s)
        began_s, ts_us = time.monotonic(), time.time_ns() // 1000
        found = await self._stacks.of(worker.ref.pid, worker.ref.start_ticks)
        stacked_s = time.monotonic()
        memory, parts = await asyncio.to_thread(self._memory, worker, room, now_s)
        mapped_s = time.monotonic()
        sockets = await asyncio.to_thread(self._sockets, worker)
        content = {
            "why": why,
            "threads": [_told(thread) for thread in found.threads] if isinstance(found, Stack) else None,
            "no_stacks_because": found.reason if isinstance(found, Untold) else None,
            "limit": None
            if room is None
            else {"of": room.words, "bytes": room.limit_bytes, "used_bytes": room.usage_bytes},
            **memory,
            "sockets": sockets,
            "not_had": NOT_HAD,
            "took": {
                "stacks_ms": round((stacked_s - began_s) * 1000, 1),
                "memory_ms": round((mapped_s - stacked_s) * 1000, 1),
                "sockets_ms": round((time.monotonic() - mapped_s) * 1000, 1),
            },
        }
        artifact = snapshot_artifact(name, ts_us, worker, content)
        self._send(artifact)
        path = self._folder / f"{name}.json.gz"
        await asyncio.to_thread(self._write, path, artifact.content)
        stack = "\n".join(lines_of(found)) if isinstance(found, Stack) else ""
        return Snapshot(path, found, stack, parts)

    def _memory(self, worker: Worker, room: Room | None, now_s: float) -> tuple[dict[str, Any], str]:
        """The numbers and the map, and the map's largest parts as lines. What belongs to another process by then is not told."""
        procfs, pid, ident = self._procfs, worker.ref.pid, (worker.ref.pid, worker.ref.start_ticks)
        figures, found = procfs.figures(pid), None
        is_small = figures.get("rss_bytes", 0) <= MOST_SMAPS_BYTES
        if is_small:
            found = read_map(procfs.smaps(pid), MOST_PARTS)
        if procfs.start_ticks(pid) != worker.ref.start_ticks:
            figures, found = {}, None
        cgroups = None if room is None or not room.name else procfs.memory_cgroups()
        document: dict[str, Any] = {
            "process": figures or None,
            "cgroup": None if cgroups is None or room is None else cgroups.figures(room.name),
            "memory": None if found is None else _map(found),
            "no_memory_because": None
            if found is not None
            else "it is too large"
            if not is_small
            else "the process is gone",
            "growth": None if found is None else self._growth(worker, found, now_s),
        }
        if found is not None:
            self._earlier.pop(ident, None)
            self._earlier[ident] = _Earlier(now_s, found.kinds)
            if len(self._earlier) > EARLIER_KEPT:
                del self._earlier[next(iter(self._earlier))]
        parts = () if found is None else found.parts
        return document, "\n".join(f"{one.rss_bytes / 1048576:9.1f} MiB  {one.name}" for one in parts)

    def _sockets(self, worker: Worker) -> dict[str, Any] | None:
        """Whom the process is connected to; None when it is gone, or another one by then."""
        pid = worker.ref.pid
        held, found = self._procfs.sockets(pid), self._procfs.connections(pid)
        if self._procfs.start_ticks(pid) != worker.ref.start_ticks:
            return None
        kept = sorted(found, key=lambda one: (one.far, one.own))[:MOST_CONNECTIONS]
        return {
            "open": len(held),
            "by_state": Counter(one.state for one in found),
            "connections": [asdict(one) for one in kept],
            "connections_left_out": len(found) - len(kept),
        }

    def _growth(self, worker: Worker, found: MemoryMap, now_s: float) -> dict[str, Any] | None:
        """What grew since an earlier snapshot of the same process, and the trend that its readings show, if there are any."""
        earlier, leak = self._earlier.get((worker.ref.pid, worker.ref.start_ticks)), worker.health.leak
        growth: dict[str, Any] = {}
        if earlier is not None:
            kinds = {kind: size - earlier.kinds.get(kind, 0) for kind, size in found.kinds.items()}
            growth["since_last_snapshot"] = {"seconds": round(now_s - earlier.at_s, 1), "bytes_by_kind": kinds}
        if leak is not None:
            growth["trend"] = {"seconds": round(leak.seconds, 1), "bytes": leak.bytes, "bytes_per_s": round(leak.slope)}
        return growth or None

    def _write(self, path: Path, content: bytes) -> None:
        """A disk that is full costs the file; the artifact waits in the spool, the event has the most of it."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            kept = sorted(self._folder.glob("*.json.gz"))
            for old in kept[: max(len(kept) + 1 - MOST_FILES, 0)]:
                old.unlink(missing_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
            with os.fdopen(file, "wb") as opened:
                opened.write(gzip.compress(content, 6))
        except OSError as error:
            log.warning("the snapshot %s cannot be written: %s", path, error.strerror)


def _told(thread: Thread) -> dict[str, Any]:
    calls = [str(frame) for frame in thread.frames]
    return {
        "name": thread.name,
        "id": thread.os_id,
        "is_active": thread.is_active,
        "has_gil": thread.has_gil,
        "calls": calls,
    }


def _map(found: MemoryMap) -> dict[str, Any]:
    return {
        "rss_bytes": found.rss_bytes,
        "pss_bytes": found.pss_bytes,
        "uss_bytes": found.uss_bytes,
        "swap_bytes": found.swap_bytes,
        "mappings": found.mappings,
        "bytes_by_kind": found.kinds,
        "largest": [{"name": one.name, "kind": one.kind, "rss_bytes": one.rss_bytes} for one in found.parts],
    }
