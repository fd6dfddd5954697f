"""Reads whole files of /proc and cgroupfs, up to a bound."""

from __future__ import annotations

import os
from pathlib import Path

_PIECE_BYTES = 16 * 1024
_MOST_PIECES = 256
GONE = (FileNotFoundError, ProcessLookupError, NotADirectoryError, PermissionError)
"""What reading says of a process or a cgroup that is gone, or that may not be read."""


def text_of(path: str | Path) -> str:
    """What a file says; nothing when it is gone. It never waits, whatever a user has put in the file's place."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except GONE:
        return ""
    try:
        return bytes_of(file).decode("utf-8", "replace")
    except (*GONE, BlockingIOError):
        return ""
    finally:
        os.close(file)


def bytes_of(file: int) -> bytes:
    """The rest of a file, up to a bound. Nearly all files of /proc fit into one small piece, and a large buffer is dear."""
    pieces = []
    for _ in range(_MOST_PIECES):
        piece = os.read(file, _PIECE_BYTES)
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces)
