"""From real processes to samples in a real spool: what the beat tells of whom, on each rung."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

import agent.pss
from agent.clock import Clock
from agent.kernel.kernel import Kernel
from agent.kernel.ladder import parse_wishes
from agent.kernel.opening import open_kernel
from agent.kernel.records import Role
from agent.procfs import ProcFs
from agent.readings import METRICS
from agent.readings_beat import ReadingsBeat
from agent.reporter import Reporter
from agent.rollup import NS_PER_TICK
from agent.service import Service, Worker
from agent.slots import Slots
from agent.spool import Spool
from agent.wire import WorkerRef, samples_from_json

OBJECT = Path(__file__).parents[2] / "agent" / "kernel" / "reflex.bpf.o"
MIB = 1024 * 1024
BY_READING = set(METRICS)
BY_PSUTIL = {"worker.rss_anon_bytes", "worker.threads", "worker.cpu_percent"}
SWITCHES = {"worker.ctx_voluntary", "worker.ctx_involuntary"}
NOT_EVERYWHERE = {"worker.run_delay_percent", "worker.accepts_per_s"}
REST = "oom=off,oom_context=off,fork=off,exec=off,exit=off,signal=off,queue=off,queue_wait=off,queue_overflow=off"

Told = dict[str, dict[str, list[float]]]
"""Values by subject and metric, in the order of telling."""


class Crew:
    """A service of real processes, and the beat that reads them."""

    def __init__(self, kernel: Kernel, spool: Spool) -> None:
        self.kernel = kernel
        self.spool = spool
        self.services: dict[int, Service] = {}
        clock = Clock()
        self.beat = ReadingsBeat(ProcFs(), self, kernel, Reporter(spool, clock), clock)

    def adopt(self, master: int, *workers: int) -> None:
        """Makes the processes a service, as the watcher does."""
        service = Service("shop-web", "gunicorn", master, start_ticks(master), None, "", Slots())
        self.services[master] = service
        self.kernel.track(master, service.start_ticks * NS_PER_TICK, Role.MASTER)
        for slot, pid in enumerate(workers):
            worker = Worker(WorkerRef(slot, 1, pid, start_ticks(pid)), service, 0, None)
            service.workers[pid] = worker
            self.kernel.track(pid, worker.ref.start_ticks * NS_PER_TICK, Role.WORKER)

    def told(self) -> Told:
        """Everything that was told since the last call."""
        found: Told = defaultdict(lambda: defaultdict(list))
        while (batch := self.spool.next_batch(10_000, 64 * MIB)) and batch.samples:
            for _, payload in batch.samples:
                for sample in samples_from_json(orjson.loads(payload)):
                    assert (sample.service, sample.subject is None) == ("shop-web", False)
                    found[str(sample.subject)][sample.metric].append(sample.value)
            self.spool.ack(events=None, samples=batch.samples[-1][0])
        return found


@contextmanager
def crew_on(readings: str, folder: Path) -> Iterator[Crew]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    kernel = open_kernel(OBJECT, parse_wishes(f"readings={readings},{REST}"))
    spool = Spool.open(folder, 64 * MIB)
    try:
        if readings != "off" and kernel.probe("readings").state == "off":
            pytest.skip(kernel.probe("readings").reason)
        yield Crew(kernel, spool)
    finally:
        spool.close()
        kernel.close()


@contextmanager
def processes(number: int, work: Callable[[], None] = signal.pause) -> Iterator[list[int]]:
    pids: list[int] = []
    try:
        for _ in range(number):
            pid = os.fork()
            if pid == 0:
                work()
                os._exit(0)
            pids.append(pid)
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def start_ticks(pid: int) -> int:
    ticks = ProcFs().start_ticks(pid)
    assert ticks is not None
    return ticks


def burn() -> None:
    while True:
        pass


@pytest.mark.parametrize(("rung", "metrics"), [("iterator", BY_READING), ("psutil", BY_PSUTIL | SWITCHES)])
def test_each_process_is_told_by_its_slot_and_pid(rung: str, metrics: set[str], tmp_path: Path) -> None:
    with crew_on(rung, tmp_path) as crew, processes(3) as (master, first, second):
        crew.adopt(master, first, second)
        crew.beat.tick()
        sizes = crew.told()
        crew.beat.tick()
        rates = crew.told()
    subjects = {f"master (pid {master})", f"worker 0 (pid {first})", f"worker 1 (pid {second})"}
    assert set(sizes) == set(rates) == subjects
    for subject in subjects:
        whole = set(sizes[subject]) | set(rates[subject])
        assert whole - NOT_EVERYWHERE == metrics - NOT_EVERYWHERE
        assert not set(sizes[subject]) & {"worker.cpu_percent", *SWITCHES}, "a rate needs two readings"


@pytest.mark.parametrize("rung", ["iterator", "psutil"])
def test_a_busy_worker_shows_its_cpu(rung: str, tmp_path: Path) -> None:
    with crew_on(rung, tmp_path) as crew, processes(1) as (master,), processes(1, burn) as (worker,):
        crew.adopt(master, worker)
        crew.beat.tick()
        before_s, began = os.times().elapsed, cpu_s(worker)
        time.sleep(0.5)
        crew.beat.tick()
        used_percent = 100 * (cpu_s(worker) - began) / (os.times().elapsed - before_s)
        told = crew.told()
    [percent] = told[f"worker 0 (pid {worker})"]["worker.cpu_percent"]
    assert percent == pytest.approx(used_percent, abs=15)
    assert percent > 1


def test_quiet_processes_are_told_once_and_then_only_renewed(tmp_path: Path) -> None:
    with crew_on("iterator", tmp_path) as crew, processes(21) as (master, *workers):
        crew.adopt(master, *workers)
        for _ in range(3):
            crew.beat.tick()
            time.sleep(0.05)
        crew.told()
        crew.beat.tick()
        told = crew.told()
    assert len(told) <= 3, "in each second a few renew their values"


def test_a_process_that_becomes_known_late_is_told_of_then(tmp_path: Path) -> None:
    with crew_on("iterator", tmp_path) as crew, processes(1) as (master,):
        crew.kernel.track(master, start_ticks(master) * NS_PER_TICK, Role.MASTER)
        for _ in range(3):
            crew.beat.tick()
        assert crew.told() == {}
        crew.adopt(master)
        crew.beat.tick()
        told = crew.told()
    assert "worker.rss_anon_bytes" in told[f"master (pid {master})"]


async def test_shares_are_told_of_on_a_beat_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a slow machine one look uses the whole budget up.
    monkeypatch.setattr(agent.pss, "SAVED_MOST_S", 10.0)
    with crew_on("iterator", tmp_path) as crew, processes(2) as (master, worker):
        crew.adopt(master, worker)
        crew.beat.tick()
        await crew.beat.look_at_shares()
        told = crew.told()
        shares = ProcFs().shares(worker)
    assert shares is not None
    [pss], [uss] = (told[f"worker 0 (pid {worker})"][metric] for metric in ("worker.pss_bytes", "worker.uss_bytes"))
    assert pss == pytest.approx(shares.pss_bytes, abs=4 * MIB)
    assert uss == pytest.approx(shares.uss_bytes, abs=4 * MIB)
    assert uss <= pss


def test_without_a_rung_nothing_is_told(tmp_path: Path) -> None:
    with crew_on("off", tmp_path) as crew, processes(1) as (master,):
        crew.adopt(master)
        crew.beat.tick()
        assert crew.told() == {}


async def test_a_period_that_is_made_shorter_counts_at_once(tmp_path: Path) -> None:
    with crew_on("iterator", tmp_path) as crew, processes(1) as (master,):
        crew.adopt(master)
        crew.beat.period_s = 3600.0
        beat = asyncio.create_task(crew.beat.readings_beat())
        await asyncio.sleep(0)
        crew.beat.period_s = 0.01
        async with asyncio.timeout(60):
            while not crew.spool.waiting:
                await asyncio.sleep(0.01)
        beat.cancel()


def cpu_s(pid: int) -> float:
    usage = ProcFs().usage(pid)
    assert usage is not None
    return usage.cpu_ns / 1e9
