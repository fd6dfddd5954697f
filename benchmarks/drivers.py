"""The storms in C: compiled at the time of measuring, and how a round of each is run."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.stage import StageError

SOURCES = Path(__file__).parent / "storms"
PROGRAMS = ("spawn", "connect", "pingpong", "fill", "signals", "nothing")
INTERPRETER = "python-"
"""A program whose file name begins like an interpreter's is tracked by the agent, and so are its children."""

BPF_FLAGS = ("-g", "-O2", "-target", "bpf", "-mcpu=v3", f"-I/usr/include/{os.uname().machine}-linux-gnu")


@dataclass(frozen=True, slots=True)
class Storm:
    """One load. `argv` is complete but for its duration, which replaces the word "SECONDS"."""

    name: str
    unit: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """What one round gave: operations a second, and operations in a second of CPU time.

    The second is steadier on a busy host: what others run takes time from a storm, but hardly makes it cost more.
    """

    per_s: float
    per_cpu_s: float


async def build(folder: Path) -> None:
    """Compiles all drivers into `folder`, each also under an interpreter's name; raises StageError."""
    if shutil.which("clang") is None:
        raise StageError("clang is missing, which compiles the storms; run ./reflex setup")
    for name in PROGRAMS:
        # Static, so that an exec costs as little as it can and what the agent adds stands out most.
        await _compile("-O2", "-static", str(SOURCES / f"{name}.c"), "-o", str(folder / name))
        shutil.copy(folder / name, folder / (INTERPRETER + name))


async def compile_bpf(source: str, target: Path, *flags: str) -> None:
    """Compiles one of the BPF sources; raises StageError."""
    await _compile(*BPF_FLAGS, *flags, "-c", str(SOURCES / source), "-o", str(target))


def storms(folder: Path) -> list[Storm]:
    """The storms that need nothing but their driver; one loop for each CPU, so that no CPU is left to hide a cost in."""
    loops = str(min(os.cpu_count() or 1, 64))

    def driver(name: str, *arguments: str) -> tuple[str, ...]:
        return (str(folder / name), "SECONDS", loops, *arguments)

    return [
        Storm("spawn", "fork+exec+exit/s", driver("spawn", str(folder / "nothing"))),
        Storm("connect", "connect+accept+close/s", driver("connect")),
        Storm("tcp_pingpong", "round trips/s", driver("pingpong", "tcp")),
        Storm("unix_pingpong", "round trips/s", driver("pingpong", "unix")),
    ]


async def run_round(storm: Storm, seconds: float) -> Round:
    """Runs a driver for about so long; raises StageError."""
    return parse_round(await run([word.replace("SECONDS", f"{seconds:g}") for word in storm.argv]))


def parse_round(output: str) -> Round:
    """The two figures that a driver prints; raises StageError."""
    found = re.fullmatch(r"(\d+\.\d+) (\d+\.\d+)\s*", output)
    if found is None or float(found[1]) == 0:
        raise StageError(f"a storm gave no rate: {output.strip():.500}")
    return Round(float(found[1]), float(found[2]))


async def run(argv: Sequence[str]) -> str:
    """What a program prints; ends it when this task is cancelled. Raises StageError when it fails."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise StageError(f"{' '.join(argv)} ended with {process.returncode}: {errors.decode(errors='replace'):.500}")
    return output.decode(errors="replace")


async def _compile(*arguments: str) -> None:
    await run(["clang", "-Wall", "-Wextra", "-Wno-unused-parameter", *arguments])
