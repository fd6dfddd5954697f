"""The frames of a spool file: length, CRC-32 and sequence number, then the payload. Pure."""

from __future__ import annotations

import struct
import zlib

_HEADER = struct.Struct("<IIQ")
HEADER_BYTES = _HEADER.size
MAX_PAYLOAD_BYTES = 1024 * 1024


def frame(seq: int, payload: bytes) -> bytes:
    """One record as it stands in a file."""
    return _HEADER.pack(len(payload), _check(seq, payload), seq) + payload


def first_frame(data: memoryview) -> tuple[int, bytes, int] | None:
    """The record that `data` begins with: number, payload, bytes taken. None when there is no sound one."""
    if len(data) < HEADER_BYTES:
        return None
    length, check, seq = _HEADER.unpack_from(data)
    if length > MAX_PAYLOAD_BYTES or len(data) < HEADER_BYTES + length:
        return None
    payload = bytes(data[HEADER_BYTES : HEADER_BYTES + length])
    return (seq, payload, HEADER_BYTES + length) if _check(seq, payload) == check else None


def _check(seq: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(seq.to_bytes(8, "little")))
