"""One append log of numbered records in segment files, read from the last acknowledged record on.

A damaged frame is found by its CRC and skipped to the next segment; the gap in the numbers says how many records that
cost. A disk that takes no more leaves records in bounded memory until it does.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.spool.frames import HEADER_BYTES, MAX_PAYLOAD_BYTES, first_frame, frame

SEGMENT_BYTES = 2 * 1024 * 1024
MEMORY_RECORDS = 20_000

_SUFFIX = ".log"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Drop:
    """Records that were given up, and why."""

    stream: str
    count: int
    reason: str


@dataclass(slots=True)
class _Segment:
    first_seq: int
    path: Path
    size: int


class Log:
    """The log of one stream. Numbers start at 1, rise by one and are never used again."""

    def __init__(self, folder: Path, stream: str) -> None:
        """Opens or makes the log; raises OSError when the folder cannot be used."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.stream = stream
        self._folder = folder
        self._drops: dict[str, int] = {}
        self._memory: deque[tuple[int, bytes]] = deque()
        self._disk_trouble = ""
        self._gaps_told_to = 0
        self.acked = self._read_acked()
        self._segments = [_Segment(int(p.stem), p, p.stat().st_size) for p in sorted(folder.glob(f"*{_SUFFIX}"))]
        self.next_seq = max(self._repair_tail(), self.acked + 1)
        self._at = (0, 0)
        self._ends: deque[tuple[int, tuple[int, int]]] = deque()
        self._file: int | None = None
        self._forget_acked_segments()

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of all segment files."""
        return sum(segment.size for segment in self._segments)

    @property
    def pending(self) -> int:
        """Records that are not acknowledged."""
        return self.next_seq - 1 - self.acked

    def append(self, payload: bytes) -> int:
        """Keeps a record; its number. Raises ValueError for one that is too large to ever be sent."""
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"a record of {len(payload)} bytes is beyond the limit of {MAX_PAYLOAD_BYTES}")
        seq = self.next_seq
        self.next_seq += 1
        self._memory.append((seq, payload))
        self._write_memory()
        return seq

    def read(self, max_records: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """The oldest records that are not acknowledged, at least one if there is any."""
        self._ends.clear()
        found: list[tuple[int, bytes]] = []
        size = 0
        for seq, payload in self._unacked():
            size += len(payload)
            if found and (len(found) >= max_records or size > max_bytes):
                break
            found.append((seq, payload))
        return found

    def ack(self, seq: int) -> None:
        """Forgets everything up to `seq`."""
        if seq <= self.acked:
            return
        self.acked = min(seq, self.next_seq - 1)
        while self._ends and self._ends[0][0] <= self.acked:
            _, self._at = self._ends.popleft()
        while self._memory and self._memory[0][0] <= self.acked:
            self._memory.popleft()
        self._forget_acked_segments()
        self._write_acked()

    def drop_oldest(self, reason: str) -> bool:
        """Gives up the oldest segment file to make room; False when there is none."""
        if not self._segments:
            return False
        following = self._segments[1].first_seq if len(self._segments) > 1 else self._first_in_memory()
        self._count_drop(following - 1 - self.acked, reason)
        if len(self._segments) == 1:
            self._close_file()
        self._remove_segment(0)
        self.acked = max(self.acked, following - 1)
        self._write_acked()
        return True

    def take_drops(self) -> list[Drop]:
        """What was given up since the last call."""
        drops = [Drop(self.stream, count, reason) for reason, count in self._drops.items() if count > 0]
        self._drops.clear()
        return drops

    def sync(self) -> None:
        """Asks the disk to keep what was written; blocks, so call it off the event loop."""
        if self._file is not None:
            try:
                os.fdatasync(self._file)
            except OSError as error:
                log.warning("the spool of %s cannot be synced: %s", self.stream, error)

    def close(self) -> None:
        """Writes what can be written and closes the file."""
        self._write_memory()
        self._close_file()

    # Writing.

    def _write_memory(self) -> None:
        """Moves records from memory to the disk, oldest first, as far as the disk takes them."""
        while self._memory:
            seq, payload = self._memory[0]
            try:
                self._write_frame(seq, frame(seq, payload))
            except OSError as error:
                self._trouble(error)
                return
            self._memory.popleft()
        if self._disk_trouble:
            log.info("the spool of %s can be written again", self.stream)
            self._disk_trouble = ""

    def _write_frame(self, seq: int, data: bytes) -> None:
        segment = self._writable_segment(seq)
        assert self._file is not None
        written = os.write(self._file, data)
        if written != len(data):
            os.ftruncate(self._file, segment.size)
            os.lseek(self._file, segment.size, os.SEEK_SET)
            raise OSError(28, "the disk took only a part of a record")
        segment.size += written

    def _writable_segment(self, seq: int) -> _Segment:
        if self._file is None or not self._segments or self._segments[-1].size >= SEGMENT_BYTES:
            self._close_file()
            path = self._folder / f"{seq:020d}{_SUFFIX}"
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._segments.append(_Segment(seq, path, 0))
        return self._segments[-1]

    def _trouble(self, error: OSError) -> None:
        if not self._disk_trouble:
            self._disk_trouble = str(error)
            log.warning(
                "the spool of %s cannot be written (%s); up to %d records wait in memory",
                self.stream,
                error,
                MEMORY_RECORDS,
            )
        while len(self._memory) > MEMORY_RECORDS:
            self._memory.popleft()
            self._count_drop(1, f"the disk cannot be written ({self._disk_trouble}) and memory is full")

    def _first_in_memory(self) -> int:
        return self._memory[0][0] if self._memory else self.next_seq

    # Reading.

    def _unacked(self) -> Iterator[tuple[int, bytes]]:
        """Records after the acknowledged ones, and notes where each ends, for `ack`."""
        expected = self.acked + 1
        index, offset = self._at
        while index < len(self._segments):
            data = memoryview(self._segment_bytes(index, offset))
            while (found := first_frame(data)) is not None:
                seq, payload, taken = found
                data, offset = data[taken:], offset + taken
                if seq < expected:
                    continue
                self._note_gap(expected, seq)
                self._ends.append((seq, (index, offset)))
                yield seq, payload
                expected = seq + 1
            index, offset = index + 1, 0
        in_memory = self._first_in_memory()
        if expected < in_memory:
            self._note_gap(expected, in_memory)
        yield from list(self._memory)

    def _note_gap(self, expected: int, found: int) -> None:
        """Numbers that are nowhere: their records were damaged. They count as acknowledged from now on."""
        self._count_drop(found - max(expected, self._gaps_told_to), "their spool file was damaged")
        self._gaps_told_to = max(self._gaps_told_to, found)
        if not self._ends:
            self.acked = max(self.acked, found - 1)

    def _segment_bytes(self, index: int, offset: int) -> bytes:
        try:
            with self._segments[index].path.open("rb") as file:
                file.seek(offset)
                return file.read()
        except OSError as error:
            log.warning("the spool file %s cannot be read: %s", self._segments[index].path, error)
            return b""

    # Housekeeping.

    def _forget_acked_segments(self) -> None:
        """Removes files whose records are all acknowledged; the one that is written to is kept until it is full."""
        while self._segments:
            is_last = len(self._segments) == 1
            following = self._first_in_memory() if is_last else self._segments[1].first_seq
            if following - 1 > self.acked or (
                is_last and self._file is not None and self._segments[0].size < SEGMENT_BYTES
            ):
                return
            if is_last:
                self._close_file()
            self._remove_segment(0)

    def _remove_segment(self, index: int) -> None:
        segment = self._segments.pop(index)
        segment.path.unlink(missing_ok=True)
        at_index, at_offset = self._at
        self._at = (at_index - 1, at_offset) if at_index > index else (0, 0)
        self._ends.clear()

    def _repair_tail(self) -> int:
        """Cuts a torn record off the last file; the number after the last sound one."""
        if not self._segments:
            return 1
        last = self._segments[-1]
        data, sound, seq = memoryview(last.path.read_bytes()), 0, last.first_seq - 1
        while (found := first_frame(data[sound:])) is not None:
            seq, _, taken = found
            sound += taken
        if sound < last.size and last.size - sound >= HEADER_BYTES:
            self._count_drop(1, "their spool file was damaged")
        os.truncate(last.path, sound)
        last.size = sound
        return seq + 1

    def _count_drop(self, count: int, reason: str) -> None:
        if count > 0:
            self._drops[reason] = self._drops.get(reason, 0) + count

    def _read_acked(self) -> int:
        try:
            return int((self._folder / "acked").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def _write_acked(self) -> None:
        """A mark that is lost only makes the server see some records again, which it drops."""
        new = self._folder / "acked.new"
        try:
            new.write_text(str(self.acked))
            new.replace(self._folder / "acked")
        except OSError as error:
            self._trouble(error)

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
