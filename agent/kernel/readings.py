"""Looks at all masters and workers: memory, CPU and waiting of each, out of one run of a BPF iterator.

The kernel keeps what was told of each process, so a look hands over only those of which there is something to tell.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import NamedTuple, Protocol

from agent.kernel.layout import LayoutError, TypeInformation

READ_ALL, READ_MOVED = "read_tasks", "read_moved"
PROGRAMS = (READ_ALL, READ_MOVED)


class Known(IntFlag):
    """Which parts of a row mean something; mirrors `enum reading_part` of bpf/reading_types.h."""

    MEMORY = 1
    THREADS = 2
    RUN_DELAY = 4


class ReadingStep(IntEnum):
    """How far a value may move untold, and what a quiet process may use in a second; mirrors `enum reading_step`."""

    STEP_BYTES = 256 * 1024
    STEP_PARTS = 100
    QUIET_CPU_NS = 5_000_000
    QUIET_RUN_DELAY_NS = QUIET_CPU_NS
    QUIET_MINOR_FAULTS = 10
    QUIET_MAJOR_FAULTS = 0
    QUIET_SWITCHES = 5
    QUIET_ACCEPTS = 0
    RENEWAL_S = 60


class Reading(NamedTuple):
    """One process at one moment: sizes in bytes now, and sums over all threads since it began.

    None is what the means cannot tell. `accepts` counts connections since the process is followed. `start_ns` is on CLOCK_BOOTTIME; with `pid` it names the process for good.
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
    accepts: int | None


class Moved(NamedTuple):
    """A process of which there is something to tell: its reading, and the one of the look before, if there was one.

    `renews`: its values were told RENEWAL_S ago, or never. `settles`: its rates are those of a quiet process again,
    each at most what QUIET_… says; until they are not, no more is told of them.
    """

    before: Reading | None
    now: Reading
    passed_s: float
    renews: bool
    settles: bool


class Iterators(Protocol):
    """Loaded programs that can be run."""

    def run_iterator(self, name: str) -> bytes:
        """What the program wrote; raises BpfError."""


class TaskReader:
    """Reads the tracked masters and workers, all at once."""

    def __init__(self, programs: Iterators, types: TypeInformation, *, counts_accepts: bool) -> None:
        """`counts_accepts`: the hook on accept is attached. Raises LayoutError when the rows are not what is expected."""
        self._programs = programs
        self._counts_accepts = counts_accepts
        self._rows = types.struct("task_reading").packed
        self._moved_rows = types.struct("moved_task").packed
        _check(types)

    def read(self) -> list[Reading]:
        """All masters and workers; raises BpfError."""
        return [self._reading(row) for row in self._rows.iter_unpack(self._programs.run_iterator(READ_ALL))]

    def read_moved(self) -> list[Moved]:
        """Those of which there is something to tell since the look before; raises BpfError."""
        return [self._moved(row) for row in self._moved_rows.iter_unpack(self._programs.run_iterator(READ_MOVED))]

    def _reading(self, row: tuple[int, ...]) -> Reading:
        values, known = row[: len(Reading._fields)], row[len(Reading._fields)]
        if known == _ALL:
            return Reading._make(values if self._counts_accepts else (*values[:-1], None))
        named = zip(Reading._fields, values, strict=True)
        reading = Reading._make([value if _is_known(field, known) else None for field, value in named])
        return reading if self._counts_accepts else reading._replace(accepts=None)

    def _moved(self, row: tuple[int, ...]) -> Moved:
        size = len(_ROW)
        before, now, (passed_ns, renews, settles) = row[:size], row[size : 2 * size], row[2 * size :]
        old = self._reading(before) if before[0] else None
        return Moved(old, self._reading(now), passed_ns / 1e9, bool(renews), bool(settles))


_ALL = Known.MEMORY | Known.THREADS | Known.RUN_DELAY
_MEMORY = frozenset({"anon_bytes", "file_bytes", "shmem_bytes", "swap_bytes"})
_ALWAYS = frozenset({"start_ns", "pid", "threads", "accepts"})


def _is_known(field: str, known: int) -> bool:
    if field in _ALWAYS:
        return True
    if field in _MEMORY:
        return bool(known & Known.MEMORY)
    needed = Known.THREADS | Known.RUN_DELAY if field == "run_delay_ns" else Known.THREADS
    return known & needed == needed


_ROW = (*Reading._fields, "known")


def _check(types: TypeInformation) -> None:
    for name, expected in {
        "task_reading": _ROW,
        "moved_task": (*_ROW, *_ROW, "passed_ns", "renews", "settles"),
    }.items():
        if (offered := types.struct(name).fields) != expected:
            raise LayoutError(f"{name} in the BPF object has the members {offered}, the agent expects {expected}")
    parts = {name.removeprefix("READING_"): value for name, value in types.enum("reading_part").items()}
    if parts != {part.name: part.value for part in Known}:
        raise LayoutError("enum reading_part of the BPF object differs from the agent's")
    if dict(types.enum("reading_step")) != {name: step.value for name, step in ReadingStep.__members__.items()}:
        raise LayoutError("enum reading_step of the BPF object differs from the agent's")
