"""Stacks of real processes, and every way not to get one."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.procfs import ProcFs
from agent.stacks import Stack, Stacks, Untold, lines_of, waits_for_work

PROCFS = ProcFs(Path("/proc"))
PROGRAM = """
import queue, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
def innermost():
    print("there", flush=True)
    time.sleep(60)
def outer():
    innermost()
pool = ThreadPoolExecutor(1, thread_name_prefix="pool")
pool.submit(lambda: None).result()
outer()
"""


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a program and waits for its first line."""
    started: list[subprocess.Popen[str]] = []

    def begin(*command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def _ticks(process: subprocess.Popen[str]) -> int:
    return PROCFS.start_ticks(process.pid) or 0


async def test_a_process_with_an_idle_pool(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start(sys.executable, "-c", PROGRAM)
    found = await Stacks(PROCFS).of(process.pid, _ticks(process))
    assert isinstance(found, Stack), found
    assert found.main is not None
    assert [frame.function for frame in found.main.frames][:2] == ["innermost", "outer"]
    assert not waits_for_work(found.main)
    (pooled,) = found.threads[1:]
    assert pooled.name.startswith("pool")
    assert waits_for_work(pooled)
    assert any("innermost (<string>:" in line for line in lines_of(found))
    texts = await Stacks(PROCFS).stack(process.pid, _ticks(process))
    assert texts is not None
    assert texts[0].startswith("innermost (")


async def test_the_process_goes_on_meanwhile(start: Callable[..., subprocess.Popen[str]]) -> None:
    counting = "import time\nprint()\nwhile True:\n    print(time.monotonic(), flush=True)\n    time.sleep(0.001)\n"
    process = start(sys.executable, "-c", counting)
    for _ in range(5):
        await Stacks(PROCFS).of(process.pid, _ticks(process))
    process.kill()
    assert process.stdout is not None
    times = [float(line) for line in process.stdout.read().splitlines() if line.count(".") == 1][:-1]
    assert len(times) > 5
    assert max(b - a for a, b in itertools.pairwise(times)) < 1.0


async def test_why_there_is_none(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    process = start("sh", "-c", "echo; sleep 60")
    no_python = await Stacks(PROCFS).of(process.pid, _ticks(process))
    assert isinstance(no_python, Untold)
    assert "py-spy: " in no_python.reason
    missing = await Stacks(PROCFS, tmp_path / "py-spy").of(process.pid, _ticks(process))
    assert isinstance(missing, Untold)
    assert "cannot be started" in missing.reason
    another = await Stacks(PROCFS).of(process.pid, _ticks(process) + 1)
    assert another == Untold("the process is gone")
    assert await Stacks(PROCFS).stack(process.pid, _ticks(process)) is None


async def test_a_program_that_hangs_is_ended(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    hanging = tmp_path / "py-spy"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    process = start(sys.executable, "-c", PROGRAM)
    began_s = time.monotonic()
    found = await Stacks(PROCFS, hanging).of(process.pid, _ticks(process))
    assert isinstance(found, Untold)
    assert "took longer" in found.reason
    assert time.monotonic() - began_s < 10
