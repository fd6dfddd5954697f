"""One look at all masters and workers: memory, CPU and waiting of each, out of one run of a BPF iterator."""

from __future__ import annotations

from enum import IntFlag
from typing import NamedTuple, Protocol

from agent.kernel.layout import LayoutError, TypeInformation

PROGRAM = "read_tasks"


class Known(IntFlag):
    """Which parts of a row mean something; mirrors `enum reading_part` of bpf/reading_types.h."""

    MEMORY = 1
    THREADS = 2
    RUN_DELAY = 4


class Reading(NamedTuple):
    """One process at one moment: sizes in bytes now, and sums over all threads since it began.

    None is what the means cannot tell. `start_ns` is on CLOCK_BOOTTIME; with `pid` it names the process for good.
    """

    start_ns: int
    cpu_ns: int | None
    run_delay_ns: int | None
    anon_bytes: int | None
    file_bytes: int | None
    shmem_bytes: int | None
    swap_bytes: int | None
    minor_faults: int | None
    major_faults: int | None
    voluntary_switches: int | None
    involuntary_switches: int | None
    pid: int
    threads: int | None


class Iterators(Protocol):
    """Loaded programs that can be run."""

    def run_iterator(self, name: str) -> bytes:
        """What the program wrote; raises BpfError."""


class TaskReader:
    """Reads every tracked master and worker at once."""

    def __init__(self, programs: Iterators, types: TypeInformation) -> None:
        """Raises LayoutError when the object's rows are not what the agent expects."""
        self._programs = programs
        self._rows = types.struct("task_reading").packed
        _check(types)

    def read(self) -> list[Reading]:
        """All masters and workers; raises BpfError."""
        return [_reading(row) for row in self._rows.iter_unpack(self._programs.run_iterator(PROGRAM))]


_ALL = Known.MEMORY | Known.THREADS | Known.RUN_DELAY
_MEMORY = frozenset({"anon_bytes", "file_bytes", "shmem_bytes", "swap_bytes"})
_ALWAYS = frozenset({"start_ns", "pid", "threads"})


def _reading(row: tuple[int, ...]) -> Reading:
    values = row[: len(Reading._fields)]
    known = row[len(Reading._fields)]
    if known == _ALL:
        return Reading._make(values)
    named = zip(Reading._fields, values, strict=True)
    return Reading._make([value if _is_known(field, known) else None for field, value in named])


def _is_known(field: str, known: int) -> bool:
    if field in _ALWAYS:
        return True
    if field in _MEMORY:
        return bool(known & Known.MEMORY)
    needed = Known.THREADS | Known.RUN_DELAY if field == "run_delay_ns" else Known.THREADS
    return known & needed == needed


def _check(types: TypeInformation) -> None:
    offered, expected = types.struct("task_reading").fields, (*Reading._fields, "known", "padding")
    if offered != expected:
        raise LayoutError(f"task_reading in the BPF object has the members {offered}, the agent expects {expected}")
    parts = {name.removeprefix("READING_"): value for name, value in types.enum("reading_part").items()}
    if parts != {part.name: part.value for part in Known}:
        raise LayoutError("enum reading_part of the BPF object differs from the agent's")
