"""The C library's heap of this process."""

from __future__ import annotations

import ctypes


def trim() -> None:
    """Gives free memory back to the system; the C library keeps it otherwise (glibc only, nothing elsewhere)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
