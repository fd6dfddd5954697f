"""What the run-time statistics themselves cost: programs that return at once, beside those of the agent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from agent.kernel.libbpf import BpfObject, Libbpf
from benchmarks.drivers import compile_bpf
from benchmarks.programs import Program

SOURCE = "floor.bpf.c"
PROGRAM = "floor_program"


@asynccontextmanager
async def floors_on(library: Libbpf, tracepoints: Iterable[str], folder: Path) -> AsyncIterator[dict[str, Program]]:
    """One on each tracepoint, attached by this process while the context lasts; raises BpfError."""
    with ExitStack() as attached:
        floors = {}
        for tracepoint in tracepoints:
            target = folder / f"{tracepoint}.bpf.o"
            await compile_bpf(SOURCE, target, f"-DTRACEPOINT={tracepoint}")
            floors[tracepoint] = attached.enter_context(_attached(library, target, tracepoint))
        yield floors


@contextmanager
def _attached(library: Libbpf, object_file: Path, tracepoint: str) -> Iterator[Program]:
    floor = BpfObject(library, object_file)
    try:
        floor.load()
        floor.attach(PROGRAM)
        yield Program(PROGRAM, floor.program_fd(PROGRAM), tracepoint)
    finally:
        floor.close()
