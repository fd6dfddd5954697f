"""The files of a log: which records each holds, and reading them in blocks.

A name such as `00000000000000000040-00000000000000000041.log` says that the numbers before this file end at 40 and that
its first record is 41. When the two do not follow one another, the numbers between them were never used, or their loss
was told when it happened.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.spool.frames import Frame, count_begun, next_frame

BLOCK_BYTES = 128 * 1024

_NAME = re.compile(r"(\d{20})-(\d{20})\.log", re.ASCII)

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Segment:
    """One file: numbers `first_seq` to `last_seq` belong to it, those after `after_seq` and before `first_seq` to none."""

    path: Path
    after_seq: int
    first_seq: int
    last_seq: int
    size: int = 0
    is_synced: bool = True


def new_segment(folder: Path, *, after_seq: int, first_seq: int) -> Segment:
    """A segment that has no file yet."""
    return Segment(folder / f"{after_seq:020d}-{first_seq:020d}.log", after_seq, first_seq, first_seq - 1)


def find_segments(folder: Path) -> list[Segment]:
    """The segments of a folder in order; the last one's `last_seq` is what its sound records say."""
    found: list[Segment] = []
    for path in sorted(folder.iterdir()):
        name = _NAME.fullmatch(path.name)
        if name is None:
            continue
        after_seq, first_seq = int(name[1]), int(name[2])
        if found:
            found[-1].last_seq = after_seq
        found.append(Segment(path, after_seq, first_seq, first_seq - 1, path.stat().st_size))
    if found:
        found[-1].last_seq = _last_begun(found[-1])
    return found


def frames_of(segment: Segment, offset: int) -> Iterator[Frame]:
    """The sound frames from `offset` on, with one block in memory at a time; raises OSError."""
    with segment.path.open("rb", buffering=0) as file:
        file.seek(offset)
        data, block = b"", b"-"
        while block:
            block = file.read(BLOCK_BYTES) or b""
            data, at = data + block, 0
            while True:
                found, at = next_frame(data, at, is_all=not block)
                if found is None:
                    break
                yield found._replace(end=offset + found.end)
            data, offset = data[at:], offset + at


def _last_begun(segment: Segment) -> int:
    """The number of the last record, also when a crash left it unsound."""
    last_seq, end = segment.first_seq - 1, 0
    for found in frames_of(segment, 0):
        last_seq, end = found.seq, found.end
    with segment.path.open("rb") as file:
        file.seek(end)
        return last_seq + count_begun(file.read())
