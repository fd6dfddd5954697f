"""The programs compiled on this very kernel by BCC: skipped where its headers or BCC are not there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.kernel.ladder import parse_wishes
from agent.kernel.opening import open_kernel
from agent.kernel.records import ExecRecord, ExitRecord, ForkRecord, OomRecord, SignalRecord
from demo.cgroup import CgroupError, make_group
from tests.kernel.queue_stage import BACKLOG, KINDS, connect, deepest, inode_of, listening, read, watch

OBJECT = Path(__file__).parents[2] / "agent" / "kernel" / "reflex.bpf.o"
WISHES = "fork=bcc,exec=bcc,exit=bcc,oom=bcc,signal=bcc,queue=bcc"
TIMES = 23
MIB = 1024 * 1024
LIVES = f"""
import os, subprocess, sys
for number in range({TIMES}):
    if (pid := os.fork()) == 0:
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", f"import os; os._exit({{number}})"])
    os.waitpid(pid, 0)
"""
GROW = (
    "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid()))\nheld = []\nwhile True: held.append(b'x' * 999_999)"
)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Any]:
    """Compiled once for all of these tests: it takes seconds on real hardware, minutes under emulation."""
    opened = open_kernel(OBJECT, parse_wishes(WISHES))
    by_bcc = {probe.signal for probe in opened.probes if probe.means == "bcc"}
    if not by_bcc:
        reason = opened.probe("exit").reason
        opened.close()
        pytest.skip(f"not on this kernel: {reason}")
    assert by_bcc == {"fork", "exec", "exit", "oom", "signal", "queue"}
    yield opened
    opened.close()


@pytest.fixture
def ear(kernel: Any, hear: Any) -> Any:
    kernel.read()
    return hear(kernel)


def test_every_fork_exec_and_exit_is_heard_once(ear: Any) -> None:
    parent = subprocess.Popen([sys.executable, "-I", "-S", "-c", LIVES])
    parent.wait()
    heard = ear.until(lambda records: any(isinstance(r, ExitRecord) and r.pid == parent.pid for r in records))
    forks = [r.pid for r in heard if isinstance(r, ForkRecord) and r.parent_pid == parent.pid]
    execs = [r.pid for r in heard if isinstance(r, ExecRecord) and r.pid in forks]
    exits = {r.pid: r for r in heard if isinstance(r, ExitRecord) and r.pid in forks}
    assert len(forks) == len(set(forks)) == TIMES
    assert sorted(execs) == sorted(forks)
    assert sorted(r.wait_status >> 8 for r in exits.values()) == list(range(TIMES))
    assert all(r.peak_rss_bytes > MIB and r.cpu_ns > 0 for r in exits.values())


def test_an_oom_kill_and_its_signal(ear: Any) -> None:
    try:
        group = make_group("reflex-bcc-test", 48 * MIB)
    except CgroupError as error:
        pytest.skip(str(error))
    try:
        victim = subprocess.Popen([sys.executable, "-I", "-S", "-c", GROW, str(group.procs)])
        assert victim.wait() == -9
        heard = ear.until(lambda records: any(isinstance(r, ExitRecord) and r.pid == victim.pid for r in records))
    finally:
        group.remove()
    (oom,) = [r for r in heard if isinstance(r, OomRecord) and r.pid == victim.pid]
    assert (oom.allocator_pid, oom.limit_bytes, oom.cgroup_name) == (victim.pid, 48 * MIB, "reflex-bcc-test")
    assert 32 * MIB < oom.anon_bytes <= 52 * MIB
    (kill,) = [r for r in heard if isinstance(r, SignalRecord) and r.pid == victim.pid]
    assert (kill.signal, kill.code) == (9, 128)


@pytest.mark.parametrize("kind", KINDS)
def test_the_depth_of_an_accept_queue(kernel: Any, kind: str, tmp_path: Path) -> None:
    with listening(kind, tmp_path) as listener:
        watch(kernel, listener)
        clients = [connect(listener) for _ in range(5)]
        reading = read(kernel, listener)
        for client in clients:
            client.close()
        kernel.forget_listener(inode_of(listener))
    assert deepest(reading) == (5, BACKLOG)
    assert reading.arrivals == 5
