"""A service whose accept queue fills and empties: samples every second, and what the timeline is told."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from agent.clock import Clock
from agent.kernel.kernel import Kernel
from agent.procfs import ProcFs
from agent.queue_beat import MASTERS_EVERY_TICKS, QueueBeat
from agent.queues import WINDOW_S
from agent.reporter import Reporter
from agent.service import Service
from agent.slots import Slots
from agent.spool import Spool
from agent.wire import Event, Sample, event_from_json, sample_from_json
from tests.kernel.queue_stage import BACKLOG, HOOKED, KINDS, WISHES, connect, forget_all, inode_of, kernel_on, listening


@dataclass(slots=True)
class Host:
    """A host whose one service is this process; `services` is what a beat asks for."""

    services: dict[int, Service]
    spool: Spool

    def told(self) -> tuple[list[Event], list[Sample]]:
        """Events and samples so far."""
        batch = self.spool.next_batch(10_000, 10**7)
        events = [event_from_json(orjson.loads(raw)) for _, raw in batch.events]
        return events, [sample_from_json(orjson.loads(raw)) for _, raw in batch.samples]

    def values(self, metric: str) -> list[float]:
        """All values of one metric so far."""
        return [sample.value for sample in self.told()[1] if sample.metric == metric]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    process = ProcFs().process(os.getpid())
    assert process is not None
    service = Service("shop", "gunicorn", process.pid, process.start_ticks, None, "", Slots())
    (tmp_path / "sockets").mkdir()
    spool = Spool.open(tmp_path / "spool", 10**8)
    yield Host({process.pid: service}, spool)
    spool.close()


@pytest.fixture(params=WISHES, scope="module")
def opened(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    with kernel_on(request.param) as kernel:
        yield kernel


@pytest.fixture
def kernel(opened: Kernel) -> Iterator[Kernel]:
    """The kernel on each rung of `queue` in turn."""
    yield opened
    forget_all(opened)


def _beat(host: Host, kernel: Kernel) -> QueueBeat:
    clock = Clock()
    return QueueBeat(ProcFs(), host, kernel, Reporter(host.spool, clock), clock)


def _tick_after_this_second(beat: QueueBeat) -> None:
    """What came in the running second is told when it is over."""
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    time.sleep(1 - now_ns % 10**9 / 1e9)
    beat.tick()


def _accept_all(listener: socket.socket, clients: list[socket.socket]) -> None:
    for client in clients:
        listener.accept()[0].close()
        client.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_that_fills_and_empties(host: Host, kernel: Kernel, kind: str, tmp_path: Path) -> None:
    beat = _beat(host, kernel)
    with listening(kind, tmp_path / "sockets") as listener:
        beat.tick()
        clients = [connect(listener) for _ in range(BACKLOG + 1)]
        for _ in range(2):
            _tick_after_this_second(beat)
        _accept_all(listener, clients)
        _tick_after_this_second(beat)
        for _ in range(WINDOW_S + 1):
            beat.tick()
    events, samples = host.told()
    assert [event.kind for event in events] == ["queue.saturated", "queue.recovered"]
    full, free = events
    assert "up to 9 connections waited in its 9 places" in full.text
    assert (full.service, full.severity, full.attrs["depth"], full.attrs["limit"]) == ("shop", "warning", 9, 8)
    assert full.evidence[0].source == kernel.probe("queue").rung
    assert (free.cause, free.severity) == (full.id, "info")
    assert max(host.values("queue.depth_peak")) == BACKLOG + 1
    assert set(host.values("queue.limit")) == {BACKLOG}
    assert {sample.service for sample in samples} == {"shop"}
    if kernel.probe("queue").means in HOOKED:
        assert sum(host.values("queue.accepts")) == BACKLOG + 1
        assert min(host.values("queue.wait_p50_ms")) > 0
        assert max(host.values("queue.wait_p99_ms")) <= max(host.values("queue.wait_max_ms"))
        assert "queue.wait_mean_ms_estimated" not in {sample.metric for sample in samples}
    elif kernel.probe("queue_wait").means == "tp_btf":
        assert host.values("queue.wait_mean_ms_estimated") != []
        assert host.values("queue.wait_mean_ms") == []


async def test_the_beat_itself(host: Host, kernel: Kernel, tmp_path: Path) -> None:
    with listening("unix", tmp_path / "sockets") as listener:
        beat = asyncio.create_task(_beat(host, kernel).queue_beat())
        clients: list[socket.socket] = []
        async with asyncio.timeout(20):
            while not host.told()[1]:
                # Room is made before the queue is full: connect would wait for ever.
                if len(clients) == BACKLOG:
                    _accept_all(listener, clients)
                    clients = []
                clients.append(connect(listener))
                await asyncio.sleep(0.1)
        _accept_all(listener, clients)
        beat.cancel()
        await asyncio.gather(beat, return_exceptions=True)
    assert max(host.values("queue.depth_peak")) >= 1


def test_an_idle_listener_says_nothing(host: Host, kernel: Kernel, tmp_path: Path) -> None:
    beat = _beat(host, kernel)
    with listening("tcp4", tmp_path / "sockets"):
        for _ in range(3):
            beat.tick()
    assert host.told() == ([], [])


def test_sockets_of_one_address_are_one_queue_and_each_its_own(host: Host, kernel: Kernel) -> None:
    beat = _beat(host, kernel)
    with socket.socket() as first, socket.socket() as second:
        for listener in (first, second):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(first.getsockname() if listener is second else ("127.0.0.1", 0))
            listener.listen(64)
        address = f"tcp 127.0.0.1:{first.getsockname()[1]}"
        inodes = [inode_of(listener) for listener in (first, second)]
        beat.tick()
        clients = [connect(first) for _ in range(40)]
        _tick_after_this_second(beat)
        _, samples = host.told()
        for client in clients:
            client.close()
    peaks = {sample.subject: sample.value for sample in samples if sample.metric == "queue.depth_peak"}
    whole = peaks.pop(address)
    assert peaks.keys() <= {f"{address} inode {inode}" for inode in inodes}
    assert sum(peaks.values()) == 40
    assert whole == max(peaks.values())


def test_a_listener_that_came_later_and_went(host: Host, kernel: Kernel, tmp_path: Path) -> None:
    beat = _beat(host, kernel)
    beat.tick()
    with listening("unix", tmp_path / "sockets") as listener:
        for _ in range(MASTERS_EVERY_TICKS):
            beat.tick()
        with connect(listener):
            _tick_after_this_second(beat)
        assert 1 in host.values("queue.depth_peak")
    for _ in range(MASTERS_EVERY_TICKS + 1):
        beat.tick()
    assert next(iter(host.services.values())).listeners == ()
    assert kernel.queues(0) == {}
