"""The spool of one agent: logs of events, artifacts and samples under one cap, locked against a second agent."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from agent.spool.log import SEGMENT_BYTES, Drop, Log

SEGMENTS_OF_CAP = 8
"""A full spool gives up one segment at a time; a segment is no larger than this part of the cap."""

log = logging.getLogger(__name__)


class SpoolError(OSError):
    """The spool's folder cannot be used; the text says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class SpoolBatch:
    """Records that wait to be sent, with their numbers, oldest first."""

    events: tuple[tuple[int, bytes], ...]
    samples: tuple[tuple[int, bytes], ...]
    artifacts: tuple[tuple[int, bytes], ...] = ()

    def __len__(self) -> int:
        return len(self.events) + len(self.samples) + len(self.artifacts)


class Spool:
    """`append_*` keeps a record, `next_batch` hands out the oldest ones again and again until `ack` forgets them.

    Over `cap_bytes` the oldest samples are given up first, then artifacts; events only when nothing else is left.
    """

    def __init__(self, ident: str, events: Log, samples: Log, artifacts: Log, cap_bytes: int, lock: int) -> None:
        self.id = ident
        self._events = events
        self._samples = samples
        self._artifacts = artifacts
        self._cap_bytes = cap_bytes
        self._lock = lock
        self._on_event: Callable[[], None] = lambda: None
        self._on_sample: Callable[[], None] = lambda: None

    @classmethod
    def open(cls, folder: Path, cap_bytes: int) -> Spool:
        """Opens or makes the spool in `folder`; raises SpoolError."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _lock(folder)
        except BlockingIOError:
            raise SpoolError(f"the spool {folder} is in use by another agent; stop that one first") from None
        except OSError as error:
            raise _unusable(folder, error) from None
        try:
            segment_bytes = min(SEGMENT_BYTES, cap_bytes // SEGMENTS_OF_CAP)
            events = Log(folder / "events", "events", segment_bytes=segment_bytes)
            samples = Log(folder / "samples", "samples", segment_bytes=segment_bytes)
            artifacts = Log(folder / "artifacts", "artifacts", segment_bytes=segment_bytes)
            ident = _ident(folder / "id", is_new=events.is_new or samples.is_new)
            return cls(ident, events, samples, artifacts, cap_bytes, lock)
        except OSError as error:
            os.close(lock)
            raise _unusable(folder, error) from None

    @property
    def _logs(self) -> tuple[Log, Log, Log]:
        return (self._events, self._artifacts, self._samples)

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait on the disk."""
        return sum(one.bytes_waiting for one in self._logs)

    @property
    def pending_events(self) -> int:
        """Events that the server has not acknowledged."""
        return self._events.pending

    @property
    def pending(self) -> int:
        """Records that the server has not acknowledged."""
        return sum(one.pending for one in self._logs)

    @property
    def waiting(self) -> bool:
        """Whether anything waits to be sent."""
        return self.pending > 0

    def wake(self, *, on_event: Callable[[], None], on_sample: Callable[[], None]) -> None:
        """Calls these after every append."""
        self._on_event, self._on_sample = on_event, on_sample

    def append_event(self, payload: bytes) -> int:
        """Keeps an event; its number."""
        seq = self._events.append(payload)
        self._keep_cap()
        self._on_event()
        return seq

    def append_artifact(self, payload: bytes) -> int:
        """Keeps an artifact; its number."""
        seq = self._artifacts.append(payload)
        self._keep_cap()
        self._on_event()
        return seq

    def append_sample(self, payload: bytes) -> int:
        """Keeps a sample; its number."""
        seq = self._samples.append(payload)
        self._keep_cap()
        self._on_sample()
        return seq

    def next_batch(self, max_records: int, max_bytes: int) -> SpoolBatch:
        """The oldest records: events, then artifacts, then samples. The same ones again until they are acknowledged."""
        taken: dict[str, tuple[tuple[int, bytes], ...]] = {}
        for one in (self._events, self._artifacts, self._samples):
            found = one.read(max_records, max_bytes) if one.pending and max_records > 0 and max_bytes > 0 else []
            max_records -= len(found)
            max_bytes -= sum(len(payload) for _, payload in found)
            taken[one.stream] = tuple(found)
        return SpoolBatch(**taken)

    def ack(self, *, events: int | None, samples: int | None, artifacts: int | None = None) -> None:
        """Forgets everything up to these numbers."""
        if events is not None:
            self._events.ack(events)
        if samples is not None:
            self._samples.ack(samples)
        if artifacts is not None:
            self._artifacts.ack(artifacts)

    def take_drops(self) -> list[Drop]:
        """What was given up since the last call."""
        return [drop for one in self._logs for drop in one.take_drops()]

    async def sync(self) -> None:
        """Asks the disk to keep the events and artifacts that were written, off the event loop."""
        if unsynced := [*self._events.take_unsynced(), *self._artifacts.take_unsynced()]:
            await asyncio.to_thread(_sync, unsynced)

    def close(self) -> None:
        """Closes the files and frees the lock."""
        for one in self._logs:
            one.close()
        os.close(self._lock)

    def _keep_cap(self) -> None:
        while sum(one.bytes_on_disk for one in self._logs) > self._cap_bytes:
            reason = f"the spool reached its cap of {self._cap_bytes / 1e6:.3g} MB"
            if not any(one.drop_oldest(reason) for one in (self._samples, self._artifacts, self._events)):
                return


def _unusable(folder: Path, error: OSError) -> SpoolError:
    return SpoolError(f"the spool {folder} cannot be used: {error}; free the disk or set state_dir")


def _sync(paths: list[Path]) -> None:
    for path in paths:
        try:
            with path.open("r+b") as file:
                os.fdatasync(file.fileno())
        except FileNotFoundError:
            continue  # acknowledged and removed meanwhile
        except OSError as error:
            log.warning("the spool file %s cannot be synced: %s", path, error)


def _lock(folder: Path) -> int:
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _ident(path: Path, *, is_new: bool) -> str:
    """The spool's name for the server. Numbers begin anew only under a new name."""
    try:
        if not is_new:
            return str(UUID(path.read_text().strip()))
    except (FileNotFoundError, ValueError):
        pass
    ident = str(uuid4())
    path.write_text(ident)
    return ident
