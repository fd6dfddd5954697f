"""The frames of a spool file: a magic, length, CRC-32 and number, then the payload. Pure.

The magic lets a reader find the next sound frame after a damaged one. It begins with a byte that UTF-8 never has, so
no JSON payload holds it.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

MAX_PAYLOAD_BYTES = 2 * 1024 * 1024
"""More than the largest event that keeps the contract, less than one request may hold."""

_MAGIC = b"\xf5rfx"
_HEADER = struct.Struct("<4sIIQ")
_NUMBER = struct.Struct("<Q")


class Frame(NamedTuple):
    """A sound record; `end` is the offset of the byte after it."""

    seq: int
    payload: bytes
    end: int


def frame(seq: int, payload: bytes) -> bytes:
    """One record as it stands in a file."""
    return _HEADER.pack(_MAGIC, len(payload), _check(seq, payload), seq) + payload


def next_frame(data: bytes, start: int, *, is_all: bool) -> tuple[Frame | None, int]:
    """The first sound frame at or after `start`, and where to go on from; what is damaged is stepped over.

    None when `data` has no more; unless it `is_all` there is, bytes from the returned offset on may still become a frame.
    """
    at = data.find(_MAGIC, start)
    while at >= 0:
        end = _end_of(data, at)
        if end is None or end > len(data):
            if not is_all:
                return None, at
        elif (found := _sound(data, at, end)) is not None:
            return found, end
        at = data.find(_MAGIC, at + 1)
    return None, max(start, len(data) - len(_MAGIC) + 1)


def count_begun(tail: bytes) -> int:
    """How many frames an unsound tail of a file was made of, as far as it shows."""
    return tail.count(_MAGIC) + (tail != b"" and not tail.startswith(_MAGIC))


def _end_of(data: bytes, at: int) -> int | None:
    """Where the frame at `at` says that it ends: `at` itself when that is absurd, None when its header is cut off."""
    if at + _HEADER.size > len(data):
        return None
    length = _HEADER.unpack_from(data, at)[1]
    return at + _HEADER.size + length if length <= MAX_PAYLOAD_BYTES else at


def _sound(data: bytes, at: int, end: int) -> Frame | None:
    _, _, check, seq = _HEADER.unpack_from(data, at)
    payload = data[at + _HEADER.size : end]
    return Frame(seq, payload, end) if end > at and _check(seq, payload) == check else None


def _check(seq: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_NUMBER.pack(seq)))
