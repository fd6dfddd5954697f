"""Whether this kernel lets maps be used by whoever holds their descriptors, or only with CAP_BPF.

Until Linux 5.18, `kernel.unprivileged_bpf_disabled` closes all of bpf(2) to processes without the capability; since
5.19, only the making of maps and programs. Kernels of distributions differ, so it is tried.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor

from agent.kernel.capabilities import keep_only

_ARRAY = 2
_WORD = 4


def maps_need_capability() -> bool:
    """Whether a thread without any capability is refused a look into a map. True when it cannot be tried."""
    try:
        library = ctypes.CDLL("libbpf.so.1")
        fd = library.bpf_map_create(_ARRAY, b"reflex_try", _WORD, _WORD, 1, None)
        if fd < 0:
            return True
        try:
            with ThreadPoolExecutor(1) as thread:
                return not thread.submit(_looks_without_capability, library, fd).result()
        finally:
            os.close(fd)
    except OSError:
        return True


def _looks_without_capability(library: ctypes.CDLL, fd: int) -> bool:
    """To be run in a thread that ends: it gives everything away."""
    keep_only(())
    key, value = ctypes.create_string_buffer(_WORD), ctypes.create_string_buffer(_WORD)
    return bool(library.bpf_map_lookup_elem(fd, key, value) == 0)
