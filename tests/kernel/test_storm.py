"""Storms: nothing is lost while somebody reads; what is lost when nobody does is counted, to the last record."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

from agent.kernel.records import ExitRecord, ForkRecord, Role
from agent.procfs import ProcFs
from agent.rollup import NS_PER_TICK

PROCESSES = 2_000 if os.environ.get("REFLEX_EMULATED") else 20_000
STORM = f"read go; i=0; while [ $i -lt {PROCESSES} ]; do ( : ); i=$((i+1)); done"


@pytest.fixture
def storm(ear: Any, procfs: ProcFs) -> subprocess.Popen[bytes]:
    """A shell, followed as a master, that forks PROCESSES children one after another once it reads a line."""
    shell = subprocess.Popen(["sh", "-c", STORM], stdin=subprocess.PIPE)
    ticks = procfs.start_ticks(shell.pid)
    assert ticks is not None
    ear.source.track(shell.pid, ticks * NS_PER_TICK, Role.MASTER)
    return shell


def _let_go(storm: subprocess.Popen[bytes]) -> None:
    assert storm.stdin is not None
    storm.stdin.write(b"go\n")
    storm.stdin.flush()


def test_a_fork_storm_is_heard_to_the_last_process(ear: Any, storm: subprocess.Popen[bytes]) -> None:
    _let_go(storm)
    heard = ear.until(
        lambda records: bool(records) and isinstance(records[-1], ExitRecord) and records[-1].pid == storm.pid
    )
    storm.wait()
    children = {record.pid for record in heard if isinstance(record, ForkRecord) and record.parent_pid == storm.pid}
    forks = sum(isinstance(record, ForkRecord) and record.parent_pid == storm.pid for record in heard)
    exits = sum(isinstance(record, ExitRecord) and record.parent_pid == storm.pid for record in heard)
    lost = {kind: count.lost for kind, count in ear.source.counts().items() if count.lost}
    assert (forks, exits, lost) == (PROCESSES, PROCESSES, {})
    assert children


def test_what_nobody_reads_in_time_is_counted(ear: Any, storm: subprocess.Popen[bytes]) -> None:
    before = ear.source.counts()
    _let_go(storm)
    storm.wait()
    after = ear.source.counts()
    heard = ear.until(lambda records: len(records) >= sum(c.sent - before[k].sent for k, c in after.items()))
    for kind, record_type in (("fork", ForkRecord), ("exit", ExitRecord)):
        read = sum(isinstance(r, record_type) and r.parent_pid == storm.pid for r in heard)
        lost = after[kind].lost - before[kind].lost
        assert read + lost >= PROCESSES
        assert read <= after[kind].sent - before[kind].sent
    if PROCESSES > 10_000:
        assert after["exit"].lost > before["exit"].lost
