"""What a log must remember beside its records, in one line of fixed width that is overwritten in place.

Overwriting takes no room, so it also works on a full disk, and a single write is whole after kill -9. A check sum finds
a line that a power cut left half written; it counts as lost.
"""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(rb"(\d{20}) (\d{20}) (\d{20}) (\d{20}) ([0-9a-f]{8})\n")


@dataclass(frozen=True, slots=True)
class Mark:
    """`next_seq` is 0 unless the log was closed in good order.

    `looked_to` is the number up to which damage is counted, `untold` how many lost records nobody was told of yet.
    """

    acked: int
    looked_to: int = 0
    untold: int = 0
    next_seq: int = 0


def read_mark(path: Path) -> Mark | None:
    """The mark; None when there is no sound one. Raises OSError when the file cannot be read."""
    try:
        found = _LINE.match(path.read_bytes())
    except FileNotFoundError:
        return None
    if found is None or int(found[5], 16) != zlib.crc32(found[0][:83]):
        return None
    return Mark(*(int(number) for number in found.groups()[:4]))


def write_mark(path: Path, mark: Mark, *, durable: bool = False) -> None:
    """Puts the mark in the place of the old one; raises OSError."""
    numbers = b"%020d %020d %020d %020d" % (mark.acked, mark.looked_to, mark.untold, mark.next_seq)
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(file, b"%s %08x\n" % (numbers, zlib.crc32(numbers)), 0)
        if durable:
            os.fdatasync(file)
    finally:
        os.close(file)
