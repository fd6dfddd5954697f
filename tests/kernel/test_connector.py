"""Births and deaths by the process connector, on the kernel that runs: counted exactly, alone and beside BPF."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.kernel import process_events
from agent.kernel.connector import ConnectorSource
from agent.kernel.process_events import ConnectorError, ProcessEvents
from agent.kernel.process_messages import Ended, Forked, ProcessMessages
from agent.kernel.records import ExecRecord, ExitRecord, ForkRecord, Record, Role
from agent.procfs import ProcFs

ALL = "fork=netlink,exec=netlink,exit=netlink"
TIMES = 23
WAIT_S = 60.0

FORK_THEM = f"""
import os, sys
sys.stdin.readline()
for number in range({TIMES}):
    if (pid := os.fork()) == 0:
        os._exit(number)
    os.waitpid(pid, 0)
sys.stdin.readline()
"""

FORK_AND_HOLD = f"""
import os, sys
os.read(0, 1)
for number in range({TIMES}):
    if os.fork() == 0:
        os.read(0, 1)
        os._exit(number)
for number in range({TIMES}):
    os.wait()
"""

THREADS = """
import sys, threading
sys.stdin.readline()
threads = [threading.Thread(target=lambda: None) for _ in range(50)]
[t.start() for t in threads]; [t.join() for t in threads]
"""


@pytest.fixture
def python() -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts Python programs that wait on their standard input."""
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-S", "-c", code]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def source() -> Iterator[Callable[[], ConnectorSource]]:
    """Opens connector sources of all kinds; skipped where the connector is not to be had."""
    opened: list[ConnectorSource] = []

    def start() -> ConnectorSource:
        try:
            opened.append(ConnectorSource(("fork", "exec", "exit"), ProcFs()))
        except ConnectorError as error:
            pytest.skip(str(error))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def _tell(process: subprocess.Popen[bytes]) -> None:
    _write(process, b"go\n")


def _write(process: subprocess.Popen[bytes], text: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.flush()


def _ended_child(status: int) -> int:
    """A child of this process that has come and gone."""
    pid = os.fork()
    if pid == 0:
        os._exit(status)
    os.waitpid(pid, 0)
    return pid


def _until_gone(source: ConnectorSource, pid: int) -> list[Record]:
    """The records up to the end of a process, which the kernel tells a moment after its parent knows."""
    records: list[Record] = []
    while not _of(records, ExitRecord, pid):
        assert select.select([source.fd], [], [], WAIT_S)[0], records
        records += source.read()
    return records


def _of(records: list[Record], kind: type, pid: int) -> list[Any]:
    return [record for record in records if isinstance(record, kind) and record.pid == pid]


def test_every_fork_and_exit_is_heard_once(listen: Any, python: Any) -> None:
    ear = listen(ALL)
    parent = python(FORK_THEM)
    ear.until(lambda records: bool(_of(records, ExecRecord, parent.pid)))
    _tell(parent)
    ear.until(lambda records: sum(isinstance(r, ExitRecord) and r.parent_pid == parent.pid for r in records) == TIMES)
    _tell(parent)
    heard = ear.until(lambda records: bool(_of(records, ExitRecord, parent.pid)))
    forks = {r.pid: r for r in heard if isinstance(r, ForkRecord) and r.parent_pid == parent.pid}
    exits = [r for r in heard if isinstance(r, ExitRecord) and r.pid in forks]
    assert len(forks) == len(exits) == TIMES
    assert sorted(r.wait_status >> 8 for r in exits) == list(range(TIMES))
    assert all(r.start_ns == forks[r.pid].start_ns and r.at_ns > forks[r.pid].at_ns for r in exits)


def test_every_exec_of_python_is_heard_once(listen: Any, python: Any) -> None:
    ear = listen(ALL)
    started = [python("import sys; sys.stdin.readline()") for _ in range(TIMES)]
    pids = {process.pid for process in started}
    ear.until(lambda records: pids <= {r.pid for r in records if isinstance(r, ExecRecord)})
    for process in started:
        _tell(process)
    heard = ear.until(lambda records: pids <= {r.pid for r in records if isinstance(r, ExitRecord)})
    execs = [r for r in heard if isinstance(r, ExecRecord) and r.pid in pids]
    assert Counter(r.pid for r in execs) == dict.fromkeys(pids, 1)
    assert {(r.parent_pid, r.uid, r.role) for r in execs} == {(os.getpid(), os.getuid(), Role.CANDIDATE)}
    assert all(r.exe.startswith("python") for r in execs)
    assert {ProcFs().start_ticks(pid) for pid in pids if ProcFs().start_ticks(pid)} <= {
        r.start_ns // 10**7 for r in execs
    }


def test_what_a_zombie_still_shows_is_told_and_the_rest_is_unknown(listen: Any, python: Any) -> None:
    ear = listen(ALL)
    process = python("import sys, os; sys.stdin.readline(); sum(range(10**7)); os._exit(7)")
    ear.until(lambda records: bool(_of(records, ExecRecord, process.pid)))
    _tell(process)
    (gone,) = _of(ear.until(lambda records: bool(_of(records, ExitRecord, process.pid))), ExitRecord, process.pid)
    assert (gone.wait_status, gone.parent_pid, gone.uid) == (7 << 8, os.getpid(), os.getuid())
    assert gone.cpu_ns > 50_000_000
    assert gone.peak_rss_bytes is None


def test_a_process_that_is_gone_at_once_is_told_with_what_is_known(source: Any) -> None:
    """Read only after its parent has reaped it, so that /proc has nothing left."""
    heard = source()
    heard.track(os.getpid(), 0, Role.MASTER)
    pid = _ended_child(3)
    records = _until_gone(heard, pid)
    (born,) = _of(records, ForkRecord, pid)
    (gone,) = _of(records, ExitRecord, pid)
    assert (born.role, born.start_ns) == (Role.WORKER, born.at_ns)
    assert (gone.wait_status, gone.start_ns) == (3 << 8, born.start_ns)
    assert (gone.cpu_ns, gone.peak_rss_bytes, gone.uid) == (None, None, None)


def test_a_program_that_is_gone_at_once_is_no_service(source: Any) -> None:
    """A candidate's child that becomes `false` is not followed to its end, though /proc could not name it in time."""
    heard = source()
    heard.track(os.getpid(), 0, Role.CANDIDATE)
    gone = subprocess.Popen(["false"])
    gone.wait()
    records = _until_gone(heard, _ended_child(0))
    assert [type(record) for record in records if record.pid == gone.pid] == [ForkRecord]


def test_threads_are_no_processes_and_wake_nobody(listen: Any, python: Any) -> None:
    ear = listen(ALL)
    process = python(THREADS)
    ear.until(lambda records: bool(_of(records, ExecRecord, process.pid)))
    events = ProcessEvents()
    _tell(process)
    heard = ear.until(lambda records: bool(_of(records, ExitRecord, process.pid)))
    assert [r for r in heard if isinstance(r, ForkRecord) and r.parent_pid == process.pid] == []
    assert len(_of(heard, ExitRecord, process.pid)) == 1
    told = [event for event in events.read() if getattr(event, "parent_pid", 0) == process.pid]
    events.close()
    assert told == []


def test_the_filter_is_in_the_kernel(source: Any) -> None:
    """A thread of this very process comes and goes: not even the raw socket sees it."""
    source()
    events = ProcessEvents()
    for _ in range(20):
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
    messages = ProcessMessages()
    raw = list(events._receive())
    events.close()
    assert all(isinstance(messages.event(data, 0), process_events.ProcessEvent) for data in raw)


def test_children_of_a_master_are_workers_and_theirs_are_helpers(listen: Any, python: Any) -> None:
    ear = listen(ALL)
    code = """
import os, sys
sys.stdin.readline()
if os.fork() == 0:
    if os.fork() == 0:
        os._exit(0)
    os.wait(); os._exit(7)
os.wait()
"""
    master = python(code)
    (up,) = _of(ear.until(lambda records: bool(_of(records, ExecRecord, master.pid))), ExecRecord, master.pid)
    ear.source.track(master.pid, up.start_ns, Role.MASTER)
    _tell(master)
    heard = ear.until(lambda records: bool(_of(records, ExitRecord, master.pid)))
    (worker,) = [r for r in heard if isinstance(r, ForkRecord) and r.parent_pid == master.pid]
    assert worker.role == Role.WORKER
    assert _of(heard, ExitRecord, worker.pid)[0].role == Role.WORKER
    assert [r for r in heard if isinstance(r, ForkRecord) and r.parent_pid == worker.pid] == []


def test_programs_that_are_no_interpreter_are_not_heard(listen: Any, python: Any) -> None:
    ear = listen(ALL)
    other = subprocess.Popen(["sleep", "0.2"])
    other.wait()
    marker = python("import sys; sys.stdin.readline()")
    heard = ear.until(lambda records: bool(_of(records, ExecRecord, marker.pid)))
    assert [r for r in heard if r.pid == other.pid] == []


@pytest.mark.parametrize("rungs", ["exit=netlink", "exec=netlink", "fork=netlink", "fork=netlink,exit=netlink"])
def test_beside_bpf_each_record_comes_once(listen: Any, python: Any, rungs: str) -> None:
    """What BPF programs hear and what the connector hears add up: none twice, none missing."""
    ear = listen(rungs)
    if ear.source.bpf is None:
        pytest.skip("no BPF here")
    parent = python(FORK_AND_HOLD)
    ear.until(lambda records: bool(_of(records, ExecRecord, parent.pid)))
    _write(parent, b"!")
    ear.until(lambda records: sum(isinstance(r, ForkRecord) and r.parent_pid == parent.pid for r in records) == TIMES)
    _write(parent, b"!" * TIMES)
    heard = ear.until(lambda records: bool(_of(records, ExitRecord, parent.pid)))
    children = Counter(r.pid for r in heard if isinstance(r, ForkRecord) and r.parent_pid == parent.pid)
    exits = Counter(r.pid for r in heard if isinstance(r, ExitRecord) and r.pid in children)
    assert len(children) == TIMES
    assert set(children.values()) == set(exits.values()) == {1}
    assert len(_of(heard, ExecRecord, parent.pid)) == 1
    probes = {signal: ear.source.probe(signal).means for signal in ("fork", "exec", "exit")}
    assert probes == {signal: "netlink" if signal in rungs else "tp_btf" for signal in probes}


def test_a_full_buffer_is_counted_and_heard_beyond(source: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(process_events, "BUFFER_BYTES", 16384)
    heard = source()
    heard.track(os.getpid(), 0, Role.MASTER)
    forked = [_ended_child(0) for _ in range(10 * TIMES)]
    records = heard.read()
    lost = heard.counts()["lifecycle"].lost
    ours = [r for r in records if r.pid in forked]
    assert 0 < len(ours) < 20 * TIMES
    assert lost >= 20 * TIMES - len(ours) - 1  # the last death may be on its way
    heard.track(os.getpid(), 0, Role.MASTER)
    pid = _ended_child(0)
    assert [type(r) for r in _until_gone(heard, pid) if r.pid == pid] == [ForkRecord, ExitRecord]


def test_a_table_that_is_full_says_so(source: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("agent.kernel.connector.MAX_TRACKED", 1)
    heard = source()
    heard.track(os.getpid(), 0, Role.MASTER)
    heard.track(os.getppid(), 0, Role.MASTER)
    assert heard.counts()["tracked"].lost == 1


def test_bytes_that_are_no_message_are_no_event() -> None:
    messages = ProcessMessages()
    assert messages.event(b"", 0) is None
    assert messages.event(bytes(200), 0) is None
    assert messages.answer(b"short", 0) is None


def test_a_message_as_the_kernel_sends_it() -> None:
    """Captured on Linux 6.18: a fork and an exit."""
    fork = bytes.fromhex(
        "4c000000030000000000000000000000010000000100000007000000000000002800000001000000010000008877665544332211"
        "0a0000000a0000000b0000000b0000000000000000000000"
    )
    messages = ProcessMessages()
    assert messages.event(fork, 0) == Forked(0x1122334455667788, 10, 11)
    thread = fork.replace(bytes.fromhex("0b0000000b000000"), bytes.fromhex("0c0000000b000000"))
    assert messages.event(thread, 0) is None
    ended = (
        fork[:36]
        + (0x80000000).to_bytes(4, "little")
        + fork[40:52]
        + b"".join(number.to_bytes(4, "little") for number in (11, 11, 9, 17, 10, 10))
    )
    assert messages.event(ended, 5) == Ended(0x112233445566778D, 11, 9, 10)
