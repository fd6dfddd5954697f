"""Readings against /proc: the iterator's numbers are the kernel's own, for one thread and many, and only of the followed."""

from __future__ import annotations

import mmap
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.kernel.kernel import Kernel
from agent.kernel.ladder import parse_wishes
from agent.kernel.libbpf import BpfObject, KernelTypes
from agent.kernel.opening import open_kernel
from agent.kernel.readings import Moved, Reading
from agent.kernel.records import Role
from agent.procfs import PAGE_BYTES, ProcFs
from agent.readings_psutil import PsutilReader
from agent.rollup import NS_PER_TICK

OBJECT = Path(__file__).parents[2] / "agent" / "kernel" / "reflex.bpf.o"
MIB = 1024 * 1024
PATIENCE_S = 60.0
CPUS = os.cpu_count() or 1

UNFOLDED_PAGES = 2 * max(32, 2 * CPUS) * CPUS
"""Pages by which two readers of one memory counter may differ: what each CPU keeps to itself, in both."""

TICKS_S = 0.05
"""CPU time of a process that sleeps, between what the scheduler booked and /proc's hundredths, rounded twice."""


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """The kernel with the iterator and nothing else; skips where there is none."""
    with opened("readings=iterator") as kernel:
        if kernel.probe("readings").state == "off":
            pytest.skip(kernel.probe("readings").reason)
        yield kernel


@contextmanager
def opened(readings: str) -> Iterator[Kernel]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    rest = "oom=off,oom_context=off,fork=off,exec=off,exit=off,signal=off,queue=off,queue_wait=off,queue_overflow=off"
    kernel = open_kernel(OBJECT, parse_wishes(f"{readings},{rest}"))
    try:
        yield kernel
    finally:
        kernel.close()


@contextmanager
def child(work: Callable[[], None] = lambda: None) -> Iterator[int]:
    """A process that has done its work and sleeps now; its pid."""
    done, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        work()
        os.write(tell, b".")
        signal.pause()
        os._exit(0)
    os.close(tell)
    try:
        assert os.read(done, 1) == b"."
        yield pid
    finally:
        os.close(done)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def follow(kernel: Kernel, pid: int, role: Role = Role.WORKER) -> None:
    kernel.track(pid, start_ticks(pid) * NS_PER_TICK, role)


def start_ticks(pid: int) -> int:
    ticks = ProcFs().start_ticks(pid)
    assert ticks is not None
    return ticks


def reading_of(kernel: Kernel, pid: int) -> Reading:
    return {reading.pid: reading for reading in kernel.read_tasks()}[pid]


def status(pid: int, thread: int | None = None) -> dict[str, int]:
    """Numbers of /proc/PID/status; sizes in bytes."""
    folder = Path(f"/proc/{pid}") if thread is None else Path(f"/proc/{pid}/task/{thread}")
    words = [line.replace(":", "").split() for line in (folder / "status").read_text().splitlines()]
    return {w[0]: int(w[1]) * (1024 if w[-1] == "kB" else 1) for w in words if len(w) > 1 and w[1].isdecimal()}


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: 7 minor faults, 9 major faults, 11 and 12 CPU ticks, 17 threads."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def threads_of(pid: int) -> list[int]:
    return [int(name) for name in os.listdir(f"/proc/{pid}/task")]


def use_memory() -> None:
    """Anonymous, shared and file memory, in sizes that tell them apart."""
    keep.append(mmap.mmap(-1, 24 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    keep[-1].write(b"a" * 24 * MIB)
    keep.append(mmap.mmap(-1, 12 * MIB, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS))
    keep[-1].write(b"s" * 12 * MIB)


keep: list[mmap.mmap] = []


def use_cpu(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def run_threads(*, living: int, ended: int) -> None:
    """Threads that each use CPU and switch; some end, the others stay."""

    def work(stays: bool) -> None:
        use_cpu(0.03)
        for _ in range(5):
            time.sleep(0.001)
        if stays:
            ready.release()
            threading.Event().wait()

    for group, stays in ((ended, False), (living, True)):
        ready = threading.Semaphore(0)
        threads = [threading.Thread(target=work, args=(stays,), daemon=True) for _ in range(group)]
        for thread in threads:
            thread.start()
        for thread in threads:
            if stays:
                ready.acquire()
            else:
                thread.join()


def test_memory_is_what_proc_says_by_kind(kernel: Kernel) -> None:
    with child(use_memory) as pid:
        follow(kernel, pid)
        found, said = reading_of(kernel, pid), status(pid)
    bound = UNFOLDED_PAGES * PAGE_BYTES
    assert found.anon_bytes == pytest.approx(said["RssAnon"], abs=bound)
    assert found.file_bytes == pytest.approx(said["RssFile"], abs=bound)
    assert found.shmem_bytes == pytest.approx(said["RssShmem"], abs=bound)
    assert found.swap_bytes == pytest.approx(said["VmSwap"], abs=bound)
    assert found.anon_bytes is not None and found.anon_bytes > 23 * MIB
    assert found.shmem_bytes is not None and 11 * MIB < found.shmem_bytes < 13 * MIB


def test_cpu_faults_and_switches_of_one_thread_are_what_proc_says(kernel: Kernel) -> None:
    with child(lambda: use_cpu(0.3)) as pid:
        follow(kernel, pid)
        until_asleep(pid)
        found, said, switches = reading_of(kernel, pid), stat(pid), status(pid)
    assert found.cpu_ns is not None
    assert found.cpu_ns / 1e9 == pytest.approx((int(said[11]) + int(said[12])) / 100, abs=TICKS_S)
    assert found.cpu_ns > 0.3e9
    assert (found.minor_faults, found.major_faults) == (int(said[7]), int(said[9]))
    assert found.voluntary_switches == switches["voluntary_ctxt_switches"]
    assert found.involuntary_switches == switches["nonvoluntary_ctxt_switches"]
    assert (found.threads, found.pid, found.start_ns // NS_PER_TICK) == (1, pid, int(said[19]))


def test_the_wait_for_a_cpu_is_what_the_scheduler_counted(kernel: Kernel) -> None:
    with child(lambda: use_cpu(0.1)) as pid:
        follow(kernel, pid)
        until_asleep(pid)
        found = reading_of(kernel, pid)
        ran_ns, waited_ns, times = map(int, Path(f"/proc/{pid}/schedstat").read_text().split())
    if not times:
        assert found.run_delay_ns is None
        pytest.skip("this kernel does not count how long tasks wait for a CPU")
    assert (found.cpu_ns, found.run_delay_ns) == (ran_ns, waited_ns)


@pytest.mark.parametrize("living", [4, 64])
def test_threads_are_summed_those_that_ended_included(kernel: Kernel, living: int) -> None:
    with child(lambda: run_threads(living=living, ended=20)) as pid:
        follow(kernel, pid)
        until_asleep(pid)
        found, said = reading_of(kernel, pid), stat(pid)
        alone = [status(pid, thread) for thread in threads_of(pid)]
        waited_ns = sum(
            int((Path(f"/proc/{pid}/task/{t}") / "schedstat").read_text().split()[1]) for t in threads_of(pid)
        )
    assert found.threads == living + 1 == len(alone)
    assert found.cpu_ns is not None
    assert found.cpu_ns / 1e9 == pytest.approx((int(said[11]) + int(said[12])) / 100, abs=TICKS_S)
    assert found.cpu_ns > 0.03e9 * (living + 20)
    assert (found.minor_faults, found.major_faults) == (int(said[7]), int(said[9]))
    assert found.run_delay_ns in (None, waited_ns)
    voluntary = sum(one["voluntary_ctxt_switches"] for one in alone)
    assert found.voluntary_switches is not None
    assert found.voluntary_switches >= voluntary + 20 * 5, "those of the 20 that ended are missing"


def test_more_threads_than_are_visited_make_sums_unknown(kernel: Kernel) -> None:
    with child(lambda: run_idle_threads(1100)) as pid:
        follow(kernel, pid)
        found = reading_of(kernel, pid)
    assert found.threads == 1101
    assert (found.cpu_ns, found.run_delay_ns, found.minor_faults, found.voluntary_switches) == (None,) * 4
    assert found.anon_bytes is not None and found.anon_bytes > 0


def run_idle_threads(number: int) -> None:
    threading.stack_size(64 * 1024)
    for _ in range(number):
        threading.Thread(target=threading.Event().wait, daemon=True).start()


def test_only_masters_and_workers_that_are_followed_are_read(kernel: Kernel) -> None:
    with child() as master, child() as worker, child() as helper, child() as candidate, child():
        follow(kernel, master, Role.MASTER)
        follow(kernel, worker, Role.WORKER)
        follow(kernel, helper, Role.HELPER)
        follow(kernel, candidate, Role.CANDIDATE)
        assert {reading.pid for reading in kernel.read_tasks()} == {master, worker}
        kernel.untrack(worker)
        assert {reading.pid for reading in kernel.read_tasks()} == {master}


def test_a_successor_with_the_pid_of_a_followed_process_is_not_read(kernel: Kernel) -> None:
    with child() as pid:
        kernel.track(pid, (start_ticks(pid) - 1) * NS_PER_TICK, Role.WORKER)
        assert kernel.read_tasks() == []


def test_hundreds_of_processes_come_in_one_read(kernel: Kernel) -> None:
    """More rows than the kernel hands out in one piece."""
    with many(400) as pids:
        for pid in pids:
            follow(kernel, pid)
        readings = kernel.read_tasks()
    assert sorted(reading.pid for reading in readings) == sorted(pids)
    assert all(reading.file_bytes is not None and reading.threads == 1 for reading in readings)


@contextmanager
def many(number: int) -> Iterator[list[int]]:
    pids: list[int] = []
    try:
        for _ in range(number):
            pid = os.fork()
            if pid == 0:
                signal.pause()
                os._exit(0)
            pids.append(pid)
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_a_quiet_process_is_handed_over_once_and_once_more_with_its_rates(kernel: Kernel) -> None:
    with child() as pid:
        follow(kernel, pid)
        until_asleep(pid)
        [first] = kernel.read_moved_tasks()
        time.sleep(0.02)
        [second] = kernel.read_moved_tasks()
        time.sleep(0.02)
        assert [moved for moved in kernel.read_moved_tasks() if not moved.renews] == []
        assert [reading.pid for reading in kernel.read_tasks()] == [pid], "who asks for all gets all"
    assert (first.before, first.now.pid, first.passed_s, first.renews, first.settles) == (None, pid, 0, True, False)
    assert (second.before, second.settles) == (first.now, True)
    assert 0.02 <= second.passed_s < 5


def test_a_process_is_handed_over_while_it_is_busy_and_when_it_settles(kernel: Kernel) -> None:
    with child(lambda: keep.append(mmap.mmap(-1, 8 * MIB))) as quiet, commanded() as (pid, command):
        for one in (quiet, pid):
            follow(kernel, one)
        look_until_nothing_moves(kernel)
        command("burn")
        busy = busy_look(kernel, pid)
        command("rest")
        [settled] = [moved for moved in look_until_nothing_moves(kernel) if moved.now.pid == pid and moved.settles]
    assert not busy.settles
    assert cpu_share(settled) <= 0.005


def test_a_process_is_handed_over_when_its_memory_or_threads_have_moved(kernel: Kernel) -> None:
    with commanded() as (pid, command):
        follow(kernel, pid)
        look_until_nothing_moves(kernel)
        for work in ("grow", "thread"):
            before = reading_of(kernel, pid)
            command(work)
            command("rest")
            seen = [moved.now for moved in look_until_nothing_moves(kernel) if moved.now.pid == pid]
            assert seen, work
            if work == "grow":
                assert seen[-1].anon_bytes is not None and before.anon_bytes is not None
                assert seen[-1].anon_bytes - before.anon_bytes > 7 * MIB
            else:
                assert (before.threads, seen[-1].threads) == (1, 2)


def test_values_are_renewed_in_the_second_that_the_pid_says_at_the_latest(kernel: Kernel) -> None:
    """The first renewal comes within a minute, not for all processes at once; the next look may not be too late."""
    with many(60) as pids:
        for pid in pids:
            follow(kernel, pid)
        due = {pid for pid in pids if 1 <= pid % 60 <= 2}
        began = time.monotonic()
        assert len(kernel.read_moved_tasks()) == 60
        renewed: set[int] = set()
        while not due <= renewed:
            time.sleep(0.1)
            for moved in [moved for moved in kernel.read_moved_tasks() if moved.renews]:
                assert moved.now.pid % 60 <= time.monotonic() - began + 1.5 * moved.passed_s
                renewed.add(moved.now.pid)
            assert time.monotonic() - began < PATIENCE_S


def busy_look(kernel: Kernel, pid: int) -> Moved:
    """The process once it is handed over for the CPU that it uses."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        time.sleep(0.05)
        for moved in kernel.read_moved_tasks():
            if moved.now.pid == pid and cpu_share(moved) > 0.005:
                return moved
    raise AssertionError("a process that burns CPU is not handed over")


def cpu_share(moved: Moved) -> float:
    assert moved.before is not None and moved.before.cpu_ns is not None and moved.now.cpu_ns is not None
    return (moved.now.cpu_ns - moved.before.cpu_ns) / (moved.passed_s * 1e9)


def look_until_nothing_moves(kernel: Kernel) -> list[Moved]:
    """Everything that was handed over until two looks handed over nothing but renewals."""
    deadline = time.monotonic() + PATIENCE_S
    seen: list[Moved] = []
    still = 0
    while still < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
        moved = [one for one in kernel.read_moved_tasks() if not (one.renews and one.before is not None)]
        still = 0 if moved else still + 1
        seen += moved
    return seen


@contextmanager
def commanded() -> Iterator[tuple[int, Callable[[str], None]]]:
    """A process that burns CPU, grows by 8 MiB, starts a thread or rests, and what tells it to."""
    orders, tell = socket.socketpair()

    def work() -> None:
        orders.setblocking(True)
        while word := orders.recv(16):
            if word == b"burn":
                orders.send(b".")
                while not select.select([orders], [], [], 0)[0]:
                    use_cpu(0.01)
                continue
            elif word == b"grow":
                keep.append(mmap.mmap(-1, 8 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
                for place in range(0, 8 * MIB, PAGE_BYTES):
                    keep[-1][place] = 1
            elif word == b"thread":
                threading.Thread(target=threading.Event().wait, daemon=True).start()
            orders.send(b".")
        os._exit(0)

    def command(word: str) -> None:
        tell.send(word.encode())
        assert tell.recv(1) == b"."

    pid = os.fork()
    if pid == 0:
        tell.close()
        work()
    orders.close()
    try:
        yield pid, command
    finally:
        tell.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_psutil_reads_the_same_values_where_it_can() -> None:
    procfs = ProcFs()
    with child(use_memory) as pid:
        until_asleep(pid)
        [found] = PsutilReader(procfs).read([(pid, start_ticks(pid))])
        said, ticks = status(pid), stat(pid)
    assert found.anon_bytes == pytest.approx(said["RssAnon"], abs=UNFOLDED_PAGES * PAGE_BYTES)
    assert found.cpu_ns == (int(ticks[11]) + int(ticks[12])) * NS_PER_TICK
    assert found.voluntary_switches == said["voluntary_ctxt_switches"]
    assert (found.pid, found.threads) == (pid, 1)
    unknown = (found.run_delay_ns, found.file_bytes, found.shmem_bytes, found.swap_bytes, found.minor_faults)
    assert unknown == (None,) * 5


def test_psutil_reads_no_successor_and_nobody_who_is_gone() -> None:
    with child() as pid:
        ident = (pid, start_ticks(pid))
        assert PsutilReader(ProcFs()).read([(pid, ident[1] - 1)]) == []
    reader = PsutilReader(ProcFs())
    assert reader.read([ident]) == []


def test_the_probe_says_which_rung_reads() -> None:
    with opened("readings=psutil") as kernel:
        probe = kernel.probe("readings")
        assert (probe.state, probe.means) == ("degraded", "psutil")
        assert kernel.read_tasks() == []


@pytest.mark.parametrize(
    ("function", "why"), [("task_storage_map_alloc", "has no function"), ("bpf_iter_task", "no BPF iterator")]
)
def test_a_kernel_that_lacks_something_for_the_iterator_keeps_all_other_rungs(
    function: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No map is made that such a kernel does not know: one would keep the whole object from loading."""
    has_function = KernelTypes.has_function
    monkeypatch.setattr(KernelTypes, "has_function", lambda self, name: name != function and has_function(self, name))
    left_out = []
    leave_out_map = BpfObject.leave_out_map
    monkeypatch.setattr(
        BpfObject, "leave_out_map", lambda self, name: (left_out.append(name), leave_out_map(self, name))
    )
    if os.geteuid() != 0:
        pytest.skip("needs root")
    kernel = open_kernel(OBJECT)
    try:
        assert why in kernel.probe("readings").reason
        assert (kernel.probe("readings").means, kernel.probe("fork").means) == ("psutil", "tp_btf")
        assert "told_tasks" in left_out
    finally:
        kernel.close()


def test_shares_divide_what_is_shared() -> None:
    """Of 24 MiB that two processes share each has half by PSS, and none alone."""
    shared = mmap.mmap(-1, 24 * MIB, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    with child(lambda: shared.write(b"s" * 24 * MIB) and None) as first:
        before = ProcFs().shares(first)
        with child(lambda: shared.read(24 * MIB) and None):
            after = ProcFs().shares(first)
    shared.close()
    assert before is not None and after is not None
    assert before.pss_bytes - after.pss_bytes > 11 * MIB
    assert before.uss_bytes - after.uss_bytes > 23 * MIB
    assert ProcFs().shares(first) is None


def until_asleep(pid: int) -> None:
    """Waits until every thread of the process sleeps, so that nothing moves between two looks."""
    deadline = time.monotonic() + PATIENCE_S
    while any(
        Path(f"/proc/{pid}/task/{t}/stat").read_text().rpartition(")")[2].split()[0] != "S" for t in threads_of(pid)
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)
