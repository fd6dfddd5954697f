"""What the OOM killer itself decides by: which limit, which score, one process or a whole cgroup."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from agent.kernel.records import ExitRecord, OomReason, OomRecord
from demo.cgroup import CgroupError, MemoryGroup, make_group

MIB = 1024 * 1024
LIMIT_BYTES = 64 * MIB
IN_VM = bool(os.environ.get("REFLEX_EMULATED"))
ENTER = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid()))\n"
GROW = ENTER + "held = []\nwhile True: held.append(os.urandom(1) * 1_000_000)"
WAIT = ENTER + "print(flush=True); sys.stdin.read()"
CONTEXT_RUNGS = ("oom_context=fentry", "oom_context=kprobe")
INFERRED = "oom_context=tp_btf"


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    try:
        made = make_group(f"reflex-context-{os.getpid()}", LIMIT_BYTES)
    except CgroupError as error:
        pytest.skip(str(error))
    yield made
    made.remove()


@pytest.mark.parametrize("rungs", CONTEXT_RUNGS)
def test_the_decision_is_told(listen: Any, group: MemoryGroup, rungs: str) -> None:
    ear = listen(rungs)
    victim = _start(GROW, group)
    assert victim.wait() == -signal.SIGKILL
    oom = _oom_of(ear, victim.pid)
    assert (OomReason(oom.constraint), oom.chosen_pid, oom.group) == (OomReason.CGROUP, victim.pid, 0)
    assert oom.total_bytes == LIMIT_BYTES
    assert 0 < oom.points <= LIMIT_BYTES // 4096 * 1.2
    assert (oom.limit_bytes, oom.cgroup_name) == (LIMIT_BYTES, group.folder.name)


@pytest.mark.parametrize("rungs", [INFERRED, *CONTEXT_RUNGS])
def test_a_limit_above_the_victims_own_cgroup(listen: Any, group: MemoryGroup, rungs: str) -> None:
    """The victim's own cgroup has room; the one above it is full."""
    if group.version != 2:
        pytest.skip("cgroup v1 charges a child to its parent only with use_hierarchy; version 2 always does")
    (group.folder / "cgroup.subtree_control").write_text("+memory")
    child = group.folder / "worker"
    child.mkdir()
    ear = listen(rungs)
    victim = _start(GROW, MemoryGroup(child, 0, 2))
    assert victim.wait() == -signal.SIGKILL
    oom = _oom_of(ear, victim.pid)
    assert (oom.limit_bytes, oom.cgroup_name) == (LIMIT_BYTES, group.folder.name)
    child.rmdir()


@pytest.mark.parametrize("rungs", [INFERRED, *CONTEXT_RUNGS])
def test_a_whole_cgroup_dies_together(listen: Any, group: MemoryGroup, rungs: str) -> None:
    """memory.oom.group: each process has a record of its own, and the chosen one is told apart where it can be."""
    if group.version != 2:
        pytest.skip("memory.oom.group is of cgroup v2")
    (group.folder / "memory.oom.group").write_text("1")
    ear = listen(rungs)
    siblings = [_waiting(group) for _ in range(3)]
    grower = _start(GROW, group)
    assert [process.wait() for process in (grower, *siblings)] == [-signal.SIGKILL] * 4
    records = [_oom_of(ear, process.pid) for process in (grower, *siblings)]
    assert [record.group for record in records] == [1, 1, 1, 1]
    assert {record.allocator_pid for record in records} == {grower.pid}
    if rungs != INFERRED:
        assert {record.chosen_pid for record in records} == {grower.pid}


@pytest.mark.parametrize("rungs", [INFERRED, *CONTEXT_RUNGS])
@pytest.mark.skipif(not IN_VM, reason="uses up the memory of the whole machine: only in a virtual machine")
def test_the_host_runs_short(listen: Any, rungs: str) -> None:
    ear = listen(rungs)
    preferred = "open('/proc/self/oom_score_adj', 'w').write('1000')\n"
    victim = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", preferred + "held = []\nwhile True: held.append(b'x' * 64_000_000)"]
    )
    assert victim.wait() == -signal.SIGKILL
    oom = _oom_of(ear, victim.pid)
    assert oom.constraint == (OomReason.HOST if rungs != INFERRED else OomReason.UNTOLD)
    assert (oom.limit_bytes, oom.cgroup_name) == (0, "")
    assert oom.anon_bytes > 256 * MIB
    if rungs != INFERRED:
        assert oom.total_bytes > 512 * MIB


def test_a_hundred_kills_at_once_are_all_told(ear: Any) -> None:
    """Each process grows in a cgroup of its own; all are let go by the same line."""
    count = 30 if IN_VM else 100
    try:
        groups = [make_group(f"reflex-many-{os.getpid()}-{number}", 16 * MIB) for number in range(count)]
    except CgroupError as error:
        pytest.skip(str(error))
    read_end, write_end = os.pipe()
    gate = ENTER + "sys.stdin.read(1)\nheld = []\nwhile True: held.append(os.urandom(1) * 1_000_000)"
    try:
        victims = [
            subprocess.Popen([sys.executable, "-I", "-S", "-c", gate, str(group.procs)], stdin=read_end)
            for group in groups
        ]
        os.close(write_end)
        assert {victim.wait() for victim in victims} == {-signal.SIGKILL}
        pids = {victim.pid for victim in victims}
        ear.until(lambda records: pids <= {r.pid for r in records if isinstance(r, ExitRecord)})
        told = [record.pid for record in ear.heard if isinstance(record, OomRecord)]
        assert sorted(pid for pid in told if pid in pids) == sorted(pids)
        assert ear.source.counts()["oom"].lost == 0
    finally:
        os.close(read_end)
        for group in groups:
            group.remove()


def _start(code: str, group: MemoryGroup, **pipes: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", code, str(group.procs)], **pipes)


def _waiting(group: MemoryGroup) -> subprocess.Popen[bytes]:
    process = _start(WAIT, group, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _oom_of(ear: Any, pid: int) -> OomRecord:
    ear.until(lambda records: any(isinstance(r, ExitRecord) and r.pid == pid for r in records))
    (oom,) = [r for r in ear.heard if isinstance(r, OomRecord) and r.pid == pid]
    return oom
