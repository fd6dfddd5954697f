"""Real OOM kills in a real memory cgroup; the numbers are those of the kernel's own log line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from agent.kernel.records import ExitRecord, OomRecord, SignalRecord
from demo.cgroup import CgroupError, MemoryGroup, make_group

LIMIT_BYTES = 64 * 1024 * 1024
GROW = """
import os, sys
open(sys.argv[1], "w").write(str(os.getpid()))
held = []
while True:
    held.append(os.urandom(1) * 1_000_000)
"""


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    try:
        made = make_group(f"reflex-test-{os.getpid()}", LIMIT_BYTES)
    except CgroupError as error:
        pytest.skip(str(error))
    yield made
    made.remove()


def test_an_oom_kill_with_its_numbers(ear: Any, group: MemoryGroup) -> None:
    victim = subprocess.Popen([sys.executable, "-I", "-S", "-c", GROW, str(group.procs)])
    assert victim.wait() == -9
    heard = ear.until(lambda records: any(isinstance(r, ExitRecord) and r.pid == victim.pid for r in records))
    (oom,) = [r for r in heard if isinstance(r, OomRecord) and r.pid == victim.pid]
    assert oom.allocator_pid == victim.pid
    assert oom.limit_bytes == LIMIT_BYTES
    assert oom.cgroup_name == group.folder.name
    assert oom.cgroup_id == group.folder.stat().st_ino
    assert LIMIT_BYTES * 0.7 < oom.anon_bytes <= LIMIT_BYTES * 1.1
    (kill,) = [r for r in heard if isinstance(r, SignalRecord) and r.pid == victim.pid]
    assert (kill.signal, kill.code) == (9, 128)
    assert next(r for r in heard if isinstance(r, ExitRecord) and r.pid == victim.pid).start_ns == oom.start_ns


def test_who_allocates_and_who_dies_are_told_apart(ear: Any, group: MemoryGroup) -> None:
    """A big process waits; a small one allocates; the kernel takes the big one."""
    big_code = GROW.replace("while True:", "for _ in range(45):") + "print(flush=True); import time; time.sleep(60)"
    big = subprocess.Popen([sys.executable, "-I", "-S", "-c", big_code, str(group.procs)], stdout=subprocess.PIPE)
    assert big.stdout is not None
    big.stdout.readline()
    small_code = GROW.replace("while True:", "for _ in range(30):")
    small = subprocess.Popen([sys.executable, "-I", "-S", "-c", small_code, str(group.procs)])
    assert small.wait() == 0
    assert big.wait() == -9
    heard = ear.until(lambda records: any(isinstance(r, OomRecord) and r.pid == big.pid for r in records))
    (oom,) = [r for r in heard if isinstance(r, OomRecord)]
    assert (oom.pid, oom.allocator_pid) == (big.pid, small.pid)
