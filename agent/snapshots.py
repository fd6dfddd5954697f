"""Keeps what a worker was doing before it is too late: stacks, memory map and numbers, in a file that an event names."""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from agent.limits import Room
from agent.procfs import ProcFs
from agent.service import Worker
from agent.stacks import Stack, Stacks, Untold, lines_of

APART_S = 60.0
PER_HOST, PER_HOST_S = 20, 600.0
MOST_FILES = 64
MOST_MAPPINGS = 20
_PRIVATE = 0o600

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was kept. `stack` is text, cut for an event; the file has all of it."""

    path: Path
    found: Stack | Untold
    stack: str
    mappings: str


class Snapshots:
    """Takes and keeps snapshots, within limits: of one worker once in APART_S, of a host PER_HOST in PER_HOST_S."""

    def __init__(self, procfs: ProcFs, stacks: Stacks, folder: Path) -> None:
        self._procfs = procfs
        self._stacks = stacks
        self._folder = folder
        self._taken_s: deque[float] = deque(maxlen=PER_HOST)

    def is_due(self, worker: Worker, now_s: float) -> bool:
        """Whether the limits allow one now."""
        last_s = worker.health.snapshot_s
        if last_s is not None and now_s - last_s < APART_S:
            return False
        return len(self._taken_s) < PER_HOST or now_s - self._taken_s[0] > PER_HOST_S

    async def take(self, worker: Worker, name: str, why: str, room: Room | None, now_s: float) -> Snapshot:
        """Takes one; the stack first, as it is the most fleeting. `name` is the event's id and the file's name."""
        worker.health.snapshot_s = now_s
        self._taken_s.append(now_s)
        ref = worker.ref
        found = await self._stacks.of(ref.pid, ref.start_ticks)
        memory = await asyncio.to_thread(self._memory, ref.pid)
        document = {
            "id": name,
            "why": why,
            "service": worker.service.name,
            "release": worker.release,
            "worker": {"slot": ref.slot, "generation": ref.generation, "pid": ref.pid, "start_ticks": ref.start_ticks},
            "limit": None if room is None else {"of": room.words, "bytes": room.limit_bytes, "used": room.usage_bytes},
            "stacks": lines_of(found) if isinstance(found, Stack) else None,
            "no_stacks_because": found.reason if isinstance(found, Untold) else None,
            "open_files": self._procfs.descriptors(ref.pid),
            **memory,
        }
        path = self._folder / f"{name}.json.gz"
        await asyncio.to_thread(self._write, path, orjson.dumps(document))
        stack = "\n".join(lines_of(found)) if isinstance(found, Stack) else ""
        mappings = "\n".join(f"{size / 1048576:9.1f} MiB  {name}" for name, size in memory["mappings"])
        return Snapshot(path, found, stack, mappings)

    def _memory(self, pid: int) -> dict[str, Any]:
        shares = self._procfs.shares(pid)
        return {
            "pss_bytes": None if shares is None else shares.pss_bytes,
            "uss_bytes": None if shares is None else shares.uss_bytes,
            "mappings": [(one.name, one.rss_bytes) for one in self._procfs.largest_mappings(pid, MOST_MAPPINGS)],
        }

    def _write(self, path: Path, content: bytes) -> None:
        """A disk that is full costs the file; the event has the most of it."""
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
