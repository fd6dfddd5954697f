"""One append log of numbered records in segment files, read from the last acknowledged record on.

A damaged frame is found by its check sum and stepped over; the gap in the numbers says how many records that cost. A disk
that takes no more leaves records in bounded memory until it does.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.spool.frames import MAX_PAYLOAD_BYTES, Frame, frame
from agent.spool.mark import Mark, read_mark, write_mark
from agent.spool.segment import Segment, find_segments, frames_of, new_segment

SEGMENT_BYTES = 2 * 1024 * 1024
MEMORY_RECORDS = 20_000
MEMORY_BYTES = 8 * 1024 * 1024
CRASH_JUMP = 1_000_000
"""Numbers left out after a crash: more than a power cut can take from the disk without a trace."""

DAMAGED = "their spool file was damaged"
BEFORE_RESTART = "the agent ended before it could say why"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Drop:
    """Records that were given up, and why."""

    stream: str
    count: int
    reason: str


class Log:
    """The log of one stream. Numbers start at 1, rise by one (after a crash they leap) and are never used again."""

    def __init__(self, folder: Path, stream: str, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Opens or makes the log; raises OSError when the folder cannot be used."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.stream = stream
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._segments = find_segments(folder)
        mark = read_mark(folder / "mark")
        self.is_new = mark is None and not self._segments
        mark = mark or Mark(acked=self._segments[0].first_seq - 1 if self._segments else 0)
        self.acked = mark.acked
        self._looked_to = mark.looked_to
        self._drops = {BEFORE_RESTART: mark.untold} if mark.untold else {}
        self._bytes = sum(segment.size for segment in self._segments)
        self._memory: deque[tuple[int, bytes]] = deque()
        self._memory_bytes = 0
        self._trouble = ""
        self._at: tuple[Segment, int] | None = None
        self._ends: deque[tuple[int, Segment, int]] = deque()
        self._file: int | None = None
        self.next_seq = 1 if self.is_new else self._next_after(mark)
        write_mark(folder / "mark", self._mark(), durable=True)
        self._forget_acked_segments()
        self._start_segment_or_wait(self.next_seq)

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of all segment files."""
        return self._bytes

    @property
    def bytes_waiting(self) -> int:
        """Bytes on the disk that are not acknowledged."""
        return self._bytes - (self._at[1] if self._at else 0)

    @property
    def pending(self) -> int:
        """Records that are not acknowledged, those in damaged places among them until these were read."""
        on_disk = sum(max(0, one.last_seq - max(one.first_seq - 1, self.acked)) for one in self._segments)
        return on_disk + len(self._memory)

    def append(self, payload: bytes) -> int:
        """Keeps a record; its number. Raises ValueError for one that is too large to ever be sent."""
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"a record of {len(payload)} bytes is beyond the limit of {MAX_PAYLOAD_BYTES}")
        seq = self.next_seq
        self.next_seq += 1
        self._memory.append((seq, payload))
        self._memory_bytes += len(payload)
        self._write_memory()
        return seq

    def read(self, max_records: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """The oldest records that are not acknowledged, at least one if there is any that can be read."""
        self._ends.clear()
        found: list[tuple[int, bytes]] = []
        size = 0
        try:
            for seq, payload in self._unacked():
                size += len(payload)
                if found and (len(found) >= max_records or size > max_bytes):
                    break
                found.append((seq, payload))
        except OSError as error:
            self._tell_trouble(error)
            return found
        if not found:
            self._forget_all()
        return found

    def ack(self, seq: int) -> None:
        """Forgets everything up to `seq`."""
        if seq <= self.acked:
            return
        self.acked = min(seq, self.next_seq - 1)
        while self._ends and self._ends[0][0] <= self.acked:
            _, segment, end = self._ends.popleft()
            self._at = (segment, end)
        while self._memory and self._memory[0][0] <= self.acked:
            self._forget_in_memory()
        self._write_mark()
        self._forget_acked_segments()

    def drop_oldest(self, reason: str) -> bool:
        """Gives up the oldest segment file to make room; False when there is none with anything in it."""
        if not self.bytes_on_disk:
            return False
        segment = self._segments[0]
        try:
            given_up = sum(1 for _ in self._sound(segment, 0, self.acked + 1))
        except OSError:
            given_up = segment.last_seq - max(segment.first_seq - 1, self.acked)
        if len(self._segments) == 1:
            self._start_segment_or_wait(segment.last_seq + 1)
        self._remove_segment(segment)
        self._looked_to = max(self._looked_to, segment.last_seq)
        self._count_drop(given_up, reason)
        return True

    def take_drops(self) -> list[Drop]:
        """What was given up since the last call."""
        drops = [Drop(self.stream, count, reason) for reason, count in self._drops.items()]
        if drops:
            self._drops.clear()
            self._write_mark()
        return drops

    def take_unsynced(self) -> list[Path]:
        """Files that were written since the last call and that the disk was not yet asked to keep."""
        unsynced = [segment for segment in self._segments if not segment.is_synced]
        for segment in unsynced:
            segment.is_synced = True
        return [segment.path for segment in unsynced]

    def close(self) -> None:
        """Writes what can be written and closes the files."""
        self._write_memory()
        is_whole = self._file is not None and not self._memory
        self._close_file()
        self._write_mark(next_seq=self.next_seq if is_whole else 0)

    # Opening.

    def _next_after(self, mark: Mark) -> int:
        """The first number that was certainly never used."""
        last_begun = self._segments[-1].last_seq if self._segments else 0
        if mark.next_seq <= max(last_begun, mark.acked):
            return max(last_begun, mark.acked, mark.looked_to) + CRASH_JUMP
        if self._segments:
            self._segments[-1].last_seq = mark.next_seq - 1
        return mark.next_seq

    def _start_segment_or_wait(self, first_seq: int) -> None:
        try:
            self._start_segment(first_seq)
        except OSError as error:
            self._tell_trouble(error)

    def _start_segment(self, first_seq: int) -> None:
        """Goes on in a new file; one that got no record makes room for it."""
        self._close_file()
        last = self._segments[-1] if self._segments else None
        after_seq = last.last_seq if last else max(self.acked, self._looked_to)
        if last is not None and not last.size and last.last_seq < last.first_seq:
            after_seq = last.after_seq
            self._remove_segment(last)
        segment = new_segment(self._folder, after_seq=after_seq, first_seq=first_seq)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._segments.append(segment)

    # Writing.

    def _write_memory(self) -> None:
        """Moves records from memory to the disk, oldest first, as far as the disk takes them."""
        while self._memory:
            try:
                self._write_frame(*self._memory[0])
            except OSError as error:
                self._tell_trouble(error)
                self._keep_memory_bounded()
                return
            self._forget_in_memory()
        if self._trouble:
            log.info("the spool of %s can be written again", self.stream)
            self._trouble = ""

    def _write_frame(self, seq: int, payload: bytes) -> None:
        segment = self._segment_for(seq)
        assert self._file is not None
        data = frame(seq, payload)
        if os.pwrite(self._file, data, segment.size) != len(data):
            os.ftruncate(self._file, segment.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        segment.size += len(data)
        self._bytes += len(data)
        segment.last_seq = seq
        segment.is_synced = False

    def _segment_for(self, seq: int) -> Segment:
        if (
            self._file is None
            or self._segments[-1].size >= self._segment_bytes
            or self._segments[-1].last_seq + 1 != seq
            or os.fstat(self._file).st_nlink == 0  # somebody removed it; what is written to it could not be read again
        ):
            self._start_segment(seq)
        return self._segments[-1]

    def _keep_memory_bounded(self) -> None:
        given_up = 0
        while len(self._memory) > MEMORY_RECORDS or self._memory_bytes > MEMORY_BYTES:
            self._forget_in_memory()
            given_up += 1
        self._count_drop(given_up, f"the disk cannot be written ({self._trouble}) and memory is full")

    def _forget_in_memory(self) -> None:
        _, payload = self._memory.popleft()
        self._memory_bytes -= len(payload)

    def _tell_trouble(self, error: OSError) -> None:
        """Logs once until the trouble is over."""
        if not self._trouble:
            self._trouble = str(error)
            log.warning(
                "the spool of %s cannot be used (%s); up to %d records wait in memory",
                self.stream,
                error,
                MEMORY_RECORDS,
            )

    # Reading.

    def _unacked(self) -> Iterator[tuple[int, bytes]]:
        """Records after the acknowledged ones, and notes where each ends, for `ack`."""
        expected = self.acked + 1
        at, offset = self._at or (self._segments[0] if self._segments else None, 0)
        for segment in self._segments[self._segments.index(at) if at else 0 :]:
            self._note_missing(expected, segment.after_seq)
            for found in self._sound(segment, offset if segment is at else 0, expected):
                self._ends.append((found.seq, segment, found.end))
                yield found.seq, found.payload
            expected = max(expected, segment.last_seq + 1)
        yield from self._memory

    def _sound(self, segment: Segment, offset: int, expected: int) -> Iterator[Frame]:
        """The sound records of a segment from number `expected` on; counts those that should be there and are not."""
        expected = max(expected, segment.first_seq)
        try:
            for found in frames_of(segment, offset):
                if expected <= found.seq <= segment.last_seq:
                    self._note_missing(expected, found.seq - 1)
                    expected = found.seq + 1
                    yield found
        except OSError as error:
            if error.errno not in (errno.EIO, errno.ENOENT):
                raise
            log.warning("the spool file %s cannot be read: %s", segment.path, error)
            if segment is self._segments[-1]:
                self._close_file()  # the next record goes into a file of its own
        self._note_missing(expected, segment.last_seq)

    def _note_missing(self, first_seq: int, last_seq: int) -> None:
        """Counts numbers that should be there and are not, once, however often they are missed."""
        missing = last_seq - max(first_seq, self._looked_to + 1) + 1
        if missing > 0:
            self._looked_to = last_seq
            self._count_drop(missing, DAMAGED)

    # Housekeeping.

    def _forget_all(self) -> None:
        """Everything that waits is damaged."""
        self.ack(self.next_seq - 1)
        self._at = (self._segments[-1], self._segments[-1].size) if self._segments else None

    def _forget_acked_segments(self) -> None:
        """Removes files whose records are all acknowledged. The last one stays: its name keeps the numbers."""
        while len(self._segments) > 1 and self._segments[0].last_seq <= self.acked:
            self._remove_segment(self._segments[0])

    def _remove_segment(self, segment: Segment) -> None:
        with contextlib.suppress(FileNotFoundError):
            segment.path.unlink()
        self._segments.remove(segment)
        self._bytes -= segment.size
        if self._at is not None and self._at[0] is segment:
            self._at = None
        while self._ends and self._ends[0][1] is segment:
            self._ends.popleft()

    def _count_drop(self, count: int, reason: str) -> None:
        if count > 0:
            self._drops[reason] = self._drops.get(reason, 0) + count
            self._write_mark()

    def _mark(self, next_seq: int = 0) -> Mark:
        return Mark(self.acked, self._looked_to, sum(self._drops.values()), next_seq)

    def _write_mark(self, next_seq: int = 0) -> None:
        """A mark that is lost makes the server see some records again, which it drops."""
        try:
            write_mark(self._folder / "mark", self._mark(next_seq))
        except OSError as error:
            self._tell_trouble(error)

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
