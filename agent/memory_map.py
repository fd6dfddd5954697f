"""What a process's memory is made of, from the text of /proc/PID/smaps. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

KINDS = ("heap", "anonymous", "stack", "shared", "file", "written_file")
"""`anonymous` is what the program mapped for itself, as allocators do for large blocks; `written_file` are pages of files
that the process has changed for itself, such as the data of libraries."""

_LONGEST = 200
_SHARED = ("/dev/shm/", "/memfd:", "/SYSV", "/dev/zero")


@dataclass(frozen=True, slots=True)
class Part:
    """All mappings of one name together: `[heap]`, `(anonymous)`, a file. Resident bytes."""

    name: str
    kind: str
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """Sums over all mappings, in bytes. `parts` has the largest first."""

    rss_bytes: int = 0
    pss_bytes: int = 0
    uss_bytes: int = 0
    swap_bytes: int = 0
    mappings: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()


def read_map(smaps: str, most_parts: int) -> MemoryMap | None:
    """The map that the text describes; None for an empty one, as a process that is gone has."""
    sums: dict[str, int] = {}
    kinds = dict.fromkeys(KINDS, 0)
    parts: dict[str, int] = {}
    name, kind, rss, mappings = "", "anonymous", 0, 0
    for line in smaps.splitlines():
        first, _, rest = line.partition(" ")
        if not first.endswith(":"):
            fields = rest.split(maxsplit=4)
            name = fields[4] if len(fields) > 4 else "(anonymous)"
            kind, mappings = _kind(name), mappings + 1
            continue
        words = rest.split()
        if len(words) != 2 or words[1] != "kB":
            continue
        size = int(words[0]) * 1024
        sums[first] = sums.get(first, 0) + size
        if first == "Rss:":
            parts[name] = parts.get(name, 0) + size
            kinds[kind] += size
            rss = size
        elif first == "Anonymous:" and kind == "file":
            written = min(size, rss)
            kinds["file"] -= written
            kinds["written_file"] += written
    if not mappings:
        return None
    largest = sorted(parts.items(), key=lambda item: -item[1])[:most_parts]
    return MemoryMap(
        rss_bytes=sums.get("Rss:", 0),
        pss_bytes=sums.get("Pss:", 0),
        uss_bytes=sums.get("Private_Clean:", 0) + sums.get("Private_Dirty:", 0) + sums.get("Private_Hugetlb:", 0),
        swap_bytes=sums.get("Swap:", 0),
        mappings=mappings,
        kinds=kinds,
        parts=tuple(Part(path[-_LONGEST:], _kind(path), size) for path, size in largest if size),
    )


def _kind(name: str) -> str:
    if name == "[heap]":
        return "heap"
    if name.startswith("[stack"):
        return "stack"
    if name.startswith(("(anonymous)", "[")):
        return "anonymous"
    return "shared" if name.startswith(_SHARED) else "file"
