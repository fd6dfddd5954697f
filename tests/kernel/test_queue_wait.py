"""How long connections wait to be accepted, held against what the test itself measured around each of them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.kernel.kernel import Kernel
from agent.queues import WaitEstimate, between
from tests.kernel.queue_stage import (
    HOOKED,
    KINDS,
    boot_second,
    connect,
    forget_all,
    inode_of,
    kernel_on,
    listening,
    read,
    watch,
)

HOLD_S = 0.05


@dataclass(frozen=True, slots=True)
class Waited:
    """One connection: its wait was no less and no more than these."""

    least_ns: int
    most_ns: int


@pytest.fixture(params=HOOKED, scope="module")
def opened(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    with kernel_on(request.param, "queue_wait") as kernel:
        yield kernel


@pytest.fixture
def kernel(opened: Kernel) -> Iterator[Kernel]:
    """The kernel on each rung that hears accepts."""
    yield opened
    forget_all(opened)


def _bucket(waited_ns: int) -> int:
    return (waited_ns // 1000).bit_length()


def _let_wait(listener: socket.socket, connections: int) -> list[Waited]:
    """Connects, holds, accepts in the order of arrival; what each connection waited."""
    starts, clients, waits = [], [], []
    for _ in range(connections):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        clients.append(connect(listener))
        starts.append((before, time.clock_gettime_ns(time.CLOCK_BOOTTIME)))
    time.sleep(HOLD_S)
    for earliest, latest in starts:
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        listener.accept()[0].close()
        waits.append(Waited(before - latest, time.clock_gettime_ns(time.CLOCK_BOOTTIME) - earliest))
    for client in clients:
        client.close()
    return waits


@pytest.mark.parametrize("kind", KINDS)
def test_waits_are_what_the_test_made(kernel: Kernel, kind: str, tmp_path: Path) -> None:
    with listening(kind, tmp_path) as listener:
        watch(kernel, listener)
        waits = _let_wait(listener, 6)
        reading = read(kernel, listener)
    assert reading.accepts == 6
    assert reading.waits is not None
    assert reading.waited_ns is not None
    assert sum(reading.waits) == 6
    assert min(wait.least_ns for wait in waits) >= HOLD_S * 1e9
    # Cumulated from below and from above, the histogram lies between what must and what can have been.
    for bucket in range(len(reading.waits)):
        certainly = sum(_bucket(wait.most_ns) <= bucket for wait in waits)
        possibly = sum(_bucket(wait.least_ns) <= bucket for wait in waits)
        assert certainly <= sum(reading.waits[: bucket + 1]) <= possibly
    assert sum(wait.least_ns for wait in waits) <= reading.waited_ns <= sum(wait.most_ns for wait in waits)
    longest_ns = max(seen.longest_wait_ns for seen in reading.seconds)
    assert max(wait.least_ns for wait in waits) <= longest_ns <= max(wait.most_ns for wait in waits)


@pytest.mark.parametrize("kind", KINDS)
def test_an_accept_that_waits_for_the_client(kernel: Kernel, kind: str, tmp_path: Path) -> None:
    """The usual case of a blocking server: the connection hardly waits at all."""
    with listening(kind, tmp_path) as listener:
        watch(kernel, listener)
        server = threading.Thread(target=lambda: listener.accept()[0].close())
        server.start()
        time.sleep(HOLD_S)
        before = time.monotonic_ns()
        connect(listener).close()
        server.join()
        took_ns = time.monotonic_ns() - before
        reading = read(kernel, listener)
    assert (reading.accepts, reading.depth) == (1, 0)
    assert reading.waited_ns is not None
    assert reading.waited_ns <= took_ns


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_leaves_before_accept_has_waited_too(kernel: Kernel, kind: str, tmp_path: Path) -> None:
    with listening(kind, tmp_path) as listener:
        watch(kernel, listener)
        client = connect(listener)
        if listener.family != socket.AF_UNIX:  # leave by a reset, which closes the waiting socket
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        time.sleep(HOLD_S)
        listener.accept()[0].close()
        reading = read(kernel, listener)
    assert (reading.arrivals, reading.accepts) == (1, 1)
    assert reading.waited_ns is not None
    assert reading.waited_ns >= HOLD_S * 1e9


@pytest.mark.parametrize("kind", KINDS)
def test_connections_that_are_never_accepted_leave_no_wait_behind(kernel: Kernel, kind: str, tmp_path: Path) -> None:
    """Their sockets' addresses are soon those of others, here of a listener that nobody watches."""
    with listening(kind, tmp_path) as unwatched:
        with listening(kind, tmp_path, backlog=64) as gone:
            watch(kernel, gone)
            inode = inode_of(gone)
            clients = [connect(gone) for _ in range(64)]
        for client in clients:
            client.close()
        for _ in range(256):
            with connect(unwatched):
                unwatched.accept()[0].close()
        reading = kernel.queues(boot_second())[inode]
    assert (reading.arrivals, reading.accepts) == (64, 0)


def test_the_mean_wait_by_littles_law(tmp_path: Path) -> None:
    """A queue that holds four or five all the time: what arrivals find gives the wait that accepts had."""
    with kernel_on("tp_btf", "queue_wait") as kernel, listening("tcp4", tmp_path) as listener:
        watch(kernel, listener)
        queued = [(connect(listener), time.monotonic()) for _ in range(4)]
        waits = []
        began = time.monotonic()
        before = read(kernel, listener)
        for _ in range(40):
            queued.append((connect(listener), time.monotonic()))
            time.sleep(0.01)
            client, since = queued.pop(0)
            listener.accept()[0].close()
            waits.append(time.monotonic() - since)
            client.close()
        took_s = time.monotonic() - began
        now = read(kernel, listener)
        for client, _ in queued:
            client.close()
    second = between(before, now, after=0, until=boot_second())
    assert second.arrivals == 40
    assert second.found_waiting == 40 * 4
    estimate_ms = WaitEstimate().step(second)
    assert estimate_ms is not None
    assert estimate_ms * took_s == pytest.approx(1000 * sum(waits[4:]) / len(waits[4:]), rel=0.35)
