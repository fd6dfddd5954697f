"""ns/event of each BPF program, for processes that the agent does not track and for those that it does."""

from __future__ import annotations

import os
import signal
import statistics
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.kernel.libbpf import Libbpf
from benchmarks.crowd import Member, answers
from benchmarks.drivers import INTERPRETER, run, run_round, storms
from benchmarks.floors import floors_on
from benchmarks.programs import Runs, programs_of, statistics_on
from demo.stage import StageError

SLICES = 5
SLICE_S = 0.3
SIGNALS = 1000
CONNECTIONS = 500
ENOUGH_RUNS = 100
"""A program that ran less often in a slice was woken by something else on the host."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What one program did in one slice of a storm, and the program that returns at once on the same hook."""

    storm: str
    tracked: bool
    runs: Runs
    floor: Runs | None


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians over the slices of a storm: ns/event as the kernel counts it, and the counting's own share."""

    storm: str
    events: int
    raw_ns: float
    floor_ns: float | None

    @property
    def net_ns(self) -> float:
        """Without the counting, where its share is known."""
        return max(self.raw_ns - (self.floor_ns or 0.0), 0.0)


async def measure(folder: Path, agent_pid: int, member: Member) -> dict[str, Any]:
    """Runs each storm in slices while the kernel counts; `folder` holds the compiled drivers."""
    library = Libbpf()
    slices: dict[str, list[Slice]] = {}
    with statistics_on(library), programs_of(library, agent_pid) as programs:
        hooked = [program for program in programs if not program.is_iterator]
        async with floors_on(library, {p.tracepoint for p in hooked if p.tracepoint}, folder) as floors:
            everything = [*hooked, *floors.values()]
            for name, tracked, storm in [one for one in _storms(folder, member) for _ in range(SLICES)]:
                before = {program.fd: program.runs() for program in everything}
                await storm()
                done = {program.fd: program.runs().since(before[program.fd]) for program in everything}
                for program in hooked:
                    floor = floors.get(program.tracepoint)
                    one = Slice(name, tracked, done[program.fd], done[floor.fd] if floor is not None else None)
                    slices.setdefault(program.name, []).append(one)
        iterators = {program.name: program.runs() for program in programs if program.is_iterator}
    return {**summary(slices), "iterators": {name: iterated(runs) for name, runs in iterators.items()}}


def iterated(runs: Runs) -> dict[str, Any]:
    """An iterator's mean time for each thing that it visited."""
    return {"visits": runs.count, "raw_ns": None if runs.ns_each is None else round(runs.ns_each, 1)}


def summary(slices: Mapping[str, Sequence[Slice]]) -> dict[str, Any]:
    """Each program's ns/event, untracked and tracked, in the storm that was dearest for it.

    Null: no storm ran the program often enough.
    """
    programs = {}
    for name in sorted(slices):
        untracked, tracked = (_dearest(costs(slices[name], tracked=side)) for side in (False, True))
        programs[name] = _cells("untracked", untracked) | _cells("tracked", tracked)
    floors = [cells[key] for cells in programs.values() for key in cells if key.endswith("floor_ns") and cells[key]]
    return {"floor_ns": round(statistics.median(floors), 1) if floors else None, "programs": programs}


def costs(slices: Sequence[Slice], *, tracked: bool) -> list[Cost]:
    """One program's cost in each storm that ran it often enough."""
    found = []
    for storm in dict.fromkeys(one.storm for one in slices if one.tracked == tracked):
        often = [one for one in slices if one.storm == storm and one.runs.count >= ENOUGH_RUNS]
        raw = [one.runs.ns_each for one in often if one.runs.ns_each is not None]
        floors = [one.floor.ns_each for one in often if one.floor is not None and one.floor.ns_each is not None]
        if raw:
            floor_ns = statistics.median(floors) if floors else None
            found.append(Cost(storm, sum(one.runs.count for one in often), statistics.median(raw), floor_ns))
    return found


def _dearest(found: Sequence[Cost]) -> Cost | None:
    return max(found, key=lambda cost: cost.net_ns, default=None)


def _cells(side: str, cost: Cost | None) -> dict[str, Any]:
    if cost is None:
        return {f"{side}_ns": None}
    return {
        f"{side}_ns": round(cost.net_ns, 1),
        f"{side}_raw_ns": round(cost.raw_ns, 1),
        f"{side}_floor_ns": None if cost.floor_ns is None else round(cost.floor_ns, 1),
        f"{side}_events": cost.events,
        f"{side}_storm": cost.storm,
    }


def _storms(folder: Path, member: Member) -> Iterator[tuple[str, bool, Callable[[], Awaitable[object]]]]:
    """Name, whether its processes are tracked, and how a slice of it is run."""
    for storm in storms(folder):
        yield storm.name, False, lambda storm=storm: run_round(storm, SLICE_S)  # type: ignore[misc]
    spawn = [str(folder / f"{INTERPRETER}spawn"), f"{SLICE_S:g}", "1", str(folder / f"{INTERPRETER}nothing")]
    yield "spawn of interpreters", True, lambda: run(spawn)
    yield "signals to a tracked process", True, lambda: run([str(folder / f"{INTERPRETER}signals"), str(SIGNALS)])
    yield "connections to a worker's listener", True, lambda: _fill(folder, member)


async def _fill(folder: Path, member: Member) -> None:
    """With the workers halted, connections only queue: nothing but the listener becomes readable.

    A connection that was closed in the queue stays there until a worker takes it. Requests are answered in the order
    of their connections, so an answer says that the queue is empty.
    """
    if not await answers(member):
        raise StageError(f"the Gunicorn {member.name} no longer answers")
    with ExitStack() as halted:
        for pid in member.workers():
            halted.enter_context(_halted(pid))
        await run([str(folder / "fill"), str(member.port), str(CONNECTIONS)])


@contextmanager
def _halted(pid: int) -> Iterator[None]:
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGSTOP)
        yield
    finally:
        with suppress(ProcessLookupError):  # who is gone need not go on
            signal.pidfd_send_signal(process, signal.SIGCONT)
        os.close(process)
