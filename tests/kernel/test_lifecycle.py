"""Births and deaths, counted exactly, on the kernel that runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from agent.kernel.records import ExecRecord, ExitRecord, ForkRecord, Record, Role, SignalRecord
from agent.procfs import ProcFs
from agent.rollup import NS_PER_TICK

TIMES = 23

FORK_THEM = f"""
import os
for number in range({TIMES}):
    if (pid := os.fork()) == 0:
        os._exit(number)
    os.waitpid(pid, 0)
"""

EXEC_THEM = f"""
import subprocess, sys
for _ in range({TIMES}):
    subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True)
"""

THREADS = """
import threading
threads = [threading.Thread(target=lambda: None) for _ in range(50)]
[t.start() for t in threads]; [t.join() for t in threads]
"""


def _run(code: str) -> int:
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", code])
    child.wait()
    return child.pid


def _start_ns(pid: int) -> int:
    ticks = ProcFs(Path("/proc")).start_ticks(pid)
    assert ticks is not None
    return ticks * NS_PER_TICK


def _of(records: list[Record], kind: type, pid: int) -> list[Any]:
    return [r for r in records if isinstance(r, kind) and r.pid == pid]


def test_every_fork_and_exit_is_heard_once(ear: Any) -> None:
    parent = _run(FORK_THEM)
    heard = ear.until(lambda records: bool(_of(records, ExitRecord, parent)))
    forks = [r for r in heard if isinstance(r, ForkRecord) and r.parent_pid == parent]
    children = {r.pid: r for r in forks}
    exits = [r for r in heard if isinstance(r, ExitRecord) and r.pid in children]
    assert len(forks) == len(children) == len(exits) == TIMES
    assert sorted(r.wait_status >> 8 for r in exits) == list(range(TIMES))
    assert all(r.start_ns == children[r.pid].start_ns and r.at_ns > children[r.pid].at_ns for r in exits)


def test_every_exec_of_python_is_heard_once(ear: Any) -> None:
    parent = _run(EXEC_THEM)
    heard = ear.until(lambda records: bool(_of(records, ExitRecord, parent)))
    execs = [r for r in heard if isinstance(r, ExecRecord) and r.parent_pid == parent]
    assert len(execs) == TIMES
    assert all(r.exe.startswith("python") for r in execs)
    exits = Counter(r.pid for r in heard if isinstance(r, ExitRecord))
    assert all(exits[r.pid] == 1 for r in execs)


def test_threads_are_no_processes(ear: Any) -> None:
    parent = _run(THREADS)
    heard = ear.until(lambda records: bool(_of(records, ExitRecord, parent)))
    assert [r for r in heard if isinstance(r, ForkRecord) and r.parent_pid == parent] == []
    assert len(_of(heard, ExitRecord, parent)) == 1


def test_programs_that_are_no_interpreter_are_not_heard(ear: Any) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    marker = _run("")
    heard = ear.until(lambda records: bool(_of(records, ExitRecord, marker)))
    assert [r for r in heard if r.pid == child.pid] == []


def test_the_sender_of_a_signal_is_named(ear: Any) -> None:
    target = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import time; print(flush=True); time.sleep(60)"], stdout=subprocess.PIPE
    )
    assert target.stdout is not None
    target.stdout.readline()
    killer = subprocess.Popen(["sh", "-c", f"kill -9 {target.pid}; true"])
    killer.wait()
    target.wait()
    heard = ear.until(lambda records: bool(_of(records, ExitRecord, target.pid)))
    (sent,) = _of(heard, SignalRecord, target.pid)
    assert (sent.signal, sent.code, sent.sender_pid) == (signal.SIGKILL, 0, killer.pid)
    assert (sent.sender_uid, sent.sender_parent_pid) == (os.getuid(), os.getpid())
    assert _of(heard, ExitRecord, target.pid)[0].wait_status == signal.SIGKILL


def test_children_of_a_master_are_workers_and_theirs_are_helpers(ear: Any) -> None:
    code = """
import os, sys
sys.stdin.readline()
if os.fork() == 0:
    if os.fork() == 0:
        os._exit(0)
    os.wait(); os._exit(7)
os.wait()
"""
    master = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE)
    assert master.stdin is not None
    ear.until(lambda records: bool(_of(records, ExecRecord, master.pid)))
    ear.source.track(master.pid, _start_ns(master.pid), Role.MASTER)
    master.communicate(b"go\n")
    heard = ear.until(lambda records: bool(_of(records, ExitRecord, master.pid)))
    (worker,) = [r for r in heard if isinstance(r, ForkRecord) and r.parent_pid == master.pid]
    assert worker.role == Role.WORKER
    assert _of(heard, ExitRecord, worker.pid)[0].role == Role.WORKER
    assert [r for r in heard if isinstance(r, ForkRecord) and r.parent_pid == worker.pid] == []


def test_threads_fork_and_exit_as_their_process(ear: Any) -> None:
    """A fork by a thread is the process's; 50 threads that end, also during the storm, are no deaths."""
    code = f"""
import os, threading
def fork_once():
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)
for _ in range({TIMES}):
    threads = [threading.Thread(target=fork_once)] + [threading.Thread(target=lambda: None) for _ in range(3)]
    [t.start() for t in threads]; [t.join() for t in threads]
"""
    parent = _run(code)
    heard = ear.until(lambda records: bool(_of(records, ExitRecord, parent)))
    forks = [r for r in heard if isinstance(r, ForkRecord) and r.parent_pid == parent]
    assert len(forks) == len({r.pid for r in forks}) == TIMES
    assert sum(isinstance(r, ExitRecord) and r.pid in {f.pid for f in forks} for r in heard) == TIMES


def test_an_entry_of_a_process_that_is_gone_says_nothing_of_its_successor(ear: Any) -> None:
    """The entry has the successor's pid and another start, as after a lost exit and a reused pid."""
    waiting = subprocess.Popen(["sleep", "60"])
    ear.source.track(waiting.pid, _start_ns(waiting.pid) - NS_PER_TICK, Role.WORKER)
    waiting.kill()
    waiting.wait()
    marker = _run("")
    heard = ear.until(lambda records: bool(_of(records, ExitRecord, marker)))
    assert [r for r in heard if r.pid == waiting.pid] == []


def test_a_new_epoch_keeps_the_living_and_lets_the_gone_go(ear: Any) -> None:
    """Epoch after epoch: what is followed stays followed, and what is gone is forgotten."""
    alive, gone = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    for process in (alive, gone):
        ear.source.track(process.pid, _start_ns(process.pid), Role.WORKER)
    for _ in range(5):
        ear.source.renew(lambda pid, _start: pid == gone.pid)
    for process in (gone, alive):
        process.kill()
        process.wait()
    heard = ear.until(lambda records: bool(_of(records, ExitRecord, alive.pid)))
    assert _of(heard, ExitRecord, gone.pid) == []
