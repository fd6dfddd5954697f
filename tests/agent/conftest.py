"""Builders of kernel records and services, with everyday values that a test overrides where it matters."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from agent.kernel.records import ExitRecord, OomRecord, SignalRecord
from agent.rollup import Rollup
from agent.service import Service
from agent.slots import Slots
from agent.wire import uuid7

MASTER_PID = 100
MIB = 1024 * 1024


def _exit_record(pid: int, wait_status: int, **other: Any) -> ExitRecord:
    values: dict[str, Any] = {
        "at_ns": 90_000_000_000,
        "start_ns": 30_000_000_000,
        "pid": pid,
        "cpu_ns": 1_500_000_000,
        "peak_rss_bytes": 40 * MIB,
        "accepts": None,
        "parent_pid": MASTER_PID,
        "wait_status": wait_status,
        "role": 2,
        "uid": 33,
        "comm": "gunicorn",
    }
    return ExitRecord(**{**values, **other})


def _signal_record(pid: int, signal: int, sender_pid: int, **other: Any) -> SignalRecord:
    values: dict[str, Any] = {
        "at_ns": 89_999_000_000,
        "start_ns": 30_000_000_000,
        "pid": pid,
        "sender_start_ns": 1,
        "sender_pid": sender_pid,
        "sender_uid": 1000,
        "sender_parent_pid": 7,
        "signal": signal,
        "code": 0,
        "result": 0,
        "role": 2,
        "sender_comm": "bash",
        "sender_parent_comm": "sshd",
        "sender_tty": "",
    }
    return SignalRecord(**{**values, **other})


def _oom_record(pid: int, allocator_pid: int, **other: Any) -> OomRecord:
    values: dict[str, Any] = {
        "at_ns": 89_998_000_000,
        "start_ns": 30_000_000_000,
        "pid": pid,
        "anon_bytes": 183 * MIB,
        "file_bytes": 4 * MIB,
        "shmem_bytes": 0,
        "swap_bytes": 0,
        "total_vm_bytes": 300 * MIB,
        "limit_bytes": 192 * MIB,
        "usage_bytes": 192 * MIB,
        "cgroup_id": 42,
        "allocator_start_ns": 30_000_000_000,
        "total_bytes": 0,
        "points": 0,
        "constraint": 0,
        "order": 0,
        "chosen_pid": 0,
        "group": 0,
        "allocator_pid": allocator_pid,
        "victim_uid": 33,
        "oom_score_adj": 0,
        "role": 2,
        "victim_comm": "gunicorn",
        "allocator_comm": "gunicorn",
        "cgroup_name": "shop",
    }
    return OomRecord(**{**values, **other})


@pytest.fixture
def exit_record() -> Callable[..., ExitRecord]:
    """`exit_record(pid, wait_status, **other)`; started at 30 s, ended at 90 s of the boot clock."""
    return _exit_record


@pytest.fixture
def signal_record() -> Callable[..., SignalRecord]:
    """`signal_record(pid, signal, sender_pid, **other)`."""
    return _signal_record


@pytest.fixture
def oom_record() -> Callable[..., OomRecord]:
    """`oom_record(pid, allocator_pid, **other)`."""
    return _oom_record


@pytest.fixture
def rollup() -> Rollup:
    """An empty rollup whose event ids are 0, 1, 2, … in their last digits."""
    numbers = count()
    return Rollup(lambda ts_us: uuid7(ts_us, next(numbers)))


@pytest.fixture
def shop() -> Service:
    """A service that is not known to any rollup yet; its master is pid 100."""
    return Service("shop", "gunicorn", MASTER_PID, 3000, 30.0, "/shop", Slots())
