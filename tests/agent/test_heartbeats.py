"""Whose heartbeat file is whose: real files of real processes that share them as Gunicorn's do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.clock import Clock
from agent.heartbeats import HeartbeatFiles
from agent.procfs import ProcFs
from agent.service import Service
from agent.slots import Slots

MASTER = """
import os, sys, tempfile, time
def heartbeat_file():
    fd, path = tempfile.mkstemp(prefix="wgunicorn-", dir=sys.argv[1])
    os.unlink(path)
    return fd
files = sorted((heartbeat_file() for _ in range(2)), key=lambda fd: os.fstat(fd).st_ino)
own, dead = files
now = time.monotonic() - 5
os.utime(dead, (now, now))
forked_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
child = os.fork()
if child == 0:
    time.sleep(120)
print(child, forked_ns, os.fstat(own).st_ino, flush=True)
for line in sys.stdin:
    beat = time.monotonic()
    os.utime(own, (beat, beat))
    print("beaten", flush=True)
os.kill(child, 9)
"""


@pytest.fixture
def master(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", MASTER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def test_the_file_of_a_worker_that_died_unreaped_is_not_its_successors(master: subprocess.Popen[str]) -> None:
    assert master.stdin is not None and master.stdout is not None
    child, forked_ns, own_inode = map(int, master.stdout.readline().split())
    procfs = ProcFs()
    ticks = procfs.start_ticks(master.pid)
    assert ticks is not None
    service = Service("shop", "gunicorn", master.pid, ticks, None, "", Slots())
    files = HeartbeatFiles(procfs, Clock())
    assert files.of_new_worker(service, child, forked_ns) == own_inode
    master.stdin.write("beat\n")
    master.stdin.flush()
    assert master.stdout.readline() == "beaten\n"
    assert files.of_new_worker(service, child, forked_ns) == own_inode
    later_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 10**9
    assert files.of_new_worker(service, child, later_ns) is None
