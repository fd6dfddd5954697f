"""Clients that find the accept queue full: dropped, refused or blocked, counted for each listener."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel.kernel import Kernel
from agent.kernel.queues import QueueReading
from tests.kernel.queue_stage import BACKLOG, HOOKED, WISHES, connect, forget_all, kernel_on, listening, read, watch

TURNED_AWAY = 3
WAIT_S = 20.0


@pytest.fixture(params=WISHES, scope="module")
def opened(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    with kernel_on(request.param, "queue", "queue_overflow") as kernel:
        yield kernel


@pytest.fixture
def kernel(opened: Kernel) -> Iterator[Kernel]:
    """The kernel on each rung of `queue_overflow` in turn."""
    yield opened
    forget_all(opened)


@pytest.fixture
def hooked(kernel: Kernel) -> Kernel:
    """The kernel on the rungs that hear refusals of unix sockets."""
    if kernel.probe("queue_overflow").means not in HOOKED:
        pytest.skip("this rung does not hear unix connects that are refused")
    return kernel


def _fill(listener: socket.socket) -> list[socket.socket]:
    return [connect(listener) for _ in range(BACKLOG + 1)]


def _knock(listener: socket.socket) -> tuple[socket.socket, int]:
    client = socket.socket(listener.family)
    client.setblocking(False)
    return client, client.connect_ex(listener.getsockname())


def _until(kernel: Kernel, listener: socket.socket, blocked: int) -> QueueReading:
    deadline = time.monotonic() + WAIT_S
    while (reading := read(kernel, listener)).blocked != blocked:
        assert time.monotonic() < deadline, reading
    return reading


def _listen_overflows() -> int:
    """What the kernel counts for the whole network namespace."""
    lines = Path("/proc/net/netstat").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
    return int(values[names.index("ListenOverflows")])


@pytest.mark.parametrize("kind", ["tcp4", "tcp6"])
def test_tcp_handshakes_that_a_full_queue_drops(kernel: Kernel, kind: str, tmp_path: Path) -> None:
    with listening(kind, tmp_path) as listener:
        watch(kernel, listener)
        clients = _fill(listener)
        assert read(kernel, listener).turned_away == 0
        overflows_before = _listen_overflows()
        refused = [_knock(listener) for _ in range(TURNED_AWAY)]
        reading = read(kernel, listener)
        overflows = _listen_overflows() - overflows_before
        for client in [*clients, *(client for client, _ in refused)]:
            client.close()
    assert {code for _, code in refused} == {errno.EINPROGRESS}
    assert TURNED_AWAY <= (reading.turned_away or 0) <= overflows


def test_a_dual_stack_listener_counts_a_v4_packet_once(kernel: Kernel) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True) as listener:
        watch(kernel, listener)
        address = ("127.0.0.1", listener.getsockname()[1])
        clients = [socket.create_connection(address) for _ in range(BACKLOG + 1)]
        assert read(kernel, listener).turned_away == 0
        before = _listen_overflows()
        late = socket.socket()
        late.setblocking(False)
        late.connect_ex(address)
        reading = read(kernel, listener)
        overflows = _listen_overflows() - before
        for client in [*clients, late]:
            client.close()
    assert 1 <= (reading.turned_away or 0) <= overflows


def test_the_last_packet_of_a_handshake_can_find_no_room(hooked: Kernel) -> None:
    """The SYN found room, the ACK does not: TCP_DEFER_ACCEPT holds the handshake open until then."""
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
        watch(hooked, listener)
        pending = socket.create_connection(listener.getsockname())
        clients = [socket.create_connection(listener.getsockname()) for _ in range(BACKLOG + 1)]
        for client in clients:
            client.send(b"x")
        assert read(hooked, listener).turned_away == 0
        pending.send(b"x")
        reading = read(hooked, listener)
        for client in [*clients, pending]:
            client.close()
    assert reading.depth == BACKLOG + 1
    assert (reading.turned_away or 0) >= 1


def test_unix_connects_that_are_refused(hooked: Kernel, tmp_path: Path) -> None:
    with listening("unix", tmp_path) as listener, listening("unix", tmp_path) as other:
        watch(hooked, listener)
        watch(hooked, other)
        clients = [*_fill(listener), connect(other)]
        refused = [_knock(listener) for _ in range(TURNED_AWAY)]
        reading, untouched = read(hooked, listener), read(hooked, other)
        for client in [*clients, *(client for client, _ in refused)]:
            client.close()
    assert {code for _, code in refused} == {errno.EAGAIN}
    assert (reading.arrivals, reading.turned_away, reading.blocked) == (BACKLOG + 1, TURNED_AWAY, 0)
    assert (untouched.arrivals, untouched.turned_away, untouched.blocked) == (1, 0, 0)


def test_a_refusal_elsewhere_is_not_ours(hooked: Kernel, tmp_path: Path) -> None:
    """The thread that was just served by a watched listener is refused by one that nobody watches."""
    with listening("unix", tmp_path) as listener, listening("unix", tmp_path) as unwatched:
        watch(hooked, listener)
        clients = [*_fill(unwatched), connect(listener)]
        refused, code = _knock(unwatched)
        reading = read(hooked, listener)
        for client in [*clients, refused]:
            client.close()
    assert code == errno.EAGAIN
    assert (reading.arrivals, reading.turned_away) == (1, 0)


def test_unix_connects_that_wait_for_room(hooked: Kernel, tmp_path: Path) -> None:
    with listening("unix", tmp_path) as listener:
        watch(hooked, listener)
        clients = _fill(listener)
        late = threading.Thread(target=lambda: clients.append(connect(listener)))
        late.start()
        waiting = _until(hooked, listener, blocked=1)
        listener.accept()[0].close()
        late.join()
        reading = read(hooked, listener)
        for client in clients:
            client.close()
    assert waiting.turned_away == 0
    assert (reading.arrivals, reading.accepts, reading.turned_away, reading.blocked) == (BACKLOG + 2, 1, 0, 1)
