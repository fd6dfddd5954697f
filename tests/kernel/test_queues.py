"""How deep accept queues get, and how many come: real listeners that nobody accepts from, on every rung."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel.kernel import Kernel
from tests.kernel.queue_stage import (
    BACKLOG,
    COUNTED,
    KINDS,
    WISHES,
    boot_second,
    connect,
    deepest,
    forget_all,
    inode_of,
    kernel_on,
    listening,
    read,
    watch,
)

CONNECTIONS = 5
IN_A_NETWORK_OF_ITS_OWN = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:  # brings up the loopback device: IFF_UP | IFF_RUNNING by SIOCSIFFLAGS
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
kind, count, syn_cookies = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with open("/proc/sys/net/ipv4/tcp_syncookies", "w") as setting:
    setting.write(syn_cookies)
listener = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
listener.bind("\\0of its own" if kind == "unix" else ("127.0.0.1", 0))
listener.listen(8)
print(os.fstat(listener.fileno()).st_ino, flush=True)
sys.stdin.readline()
clients = [socket.socket(listener.family) for _ in range(count)]
for client in clients:
    client.connect(listener.getsockname())
print("connected", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(params=WISHES, scope="module")
def opened(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    with kernel_on(request.param) as kernel:
        yield kernel


@pytest.fixture
def kernel(opened: Kernel) -> Iterator[Kernel]:
    """The kernel on each rung of `queue` in turn."""
    yield opened
    forget_all(opened)


@pytest.mark.parametrize("kind", KINDS)
def test_the_peak_is_what_was_connected(kernel: Kernel, kind: str, tmp_path: Path) -> None:
    with listening(kind, tmp_path) as listener:
        watch(kernel, listener)
        clients = [connect(listener) for _ in range(CONNECTIONS)]
        reading = read(kernel, listener)
        for client in clients:
            client.close()
    assert deepest(reading) == (CONNECTIONS, BACKLOG)
    assert reading.depth_at_most == CONNECTIONS
    assert reading.limit == BACKLOG
    if kernel.probe("queue").means in COUNTED:
        assert reading.arrivals == CONNECTIONS


@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_that_stands_full_is_seen_though_nothing_arrives(kernel: Kernel, kind: str, tmp_path: Path) -> None:
    with listening(kind, tmp_path) as listener:
        watch(kernel, listener)
        clients = [connect(listener) for _ in range(BACKLOG + 1)]
        depths = [read(kernel, listener).depth for _ in range(3)]
        for _ in clients:
            listener.accept()[0].close()
        depths.append(read(kernel, listener).depth)
        for client in clients:
            client.close()
    assert depths == [BACKLOG + 1, BACKLOG + 1, BACKLOG + 1, 0]


def test_a_listener_that_is_not_watched_is_not_read(kernel: Kernel, tmp_path: Path) -> None:
    with listening("tcp4", tmp_path) as listener, connect(listener):
        assert kernel.queues(boot_second()) == {}


def test_a_forgotten_listener_begins_anew(kernel: Kernel, tmp_path: Path) -> None:
    with listening("unix", tmp_path) as listener:
        watch(kernel, listener)
        with connect(listener):
            assert deepest(read(kernel, listener)) == (1, BACKLOG)
        kernel.forget_listener(inode_of(listener))
        assert kernel.queues(boot_second()) == {}
        kernel.watch_listener(inode_of(listener))
        assert kernel.queues(boot_second())[inode_of(listener)].arrivals in (None, 0)


@pytest.mark.parametrize(("kind", "syn_cookies"), [("tcp4", "1"), ("tcp4", "2"), ("unix", "1")])
def test_a_listener_in_another_network_namespace(kernel: Kernel, kind: str, syn_cookies: str) -> None:
    """With SYN cookies for everybody (2), connections come into the queue by another way."""
    command = ["unshare", "--net", sys.executable, "-c", IN_A_NETWORK_OF_ITS_OWN, kind, str(CONNECTIONS), syn_cookies]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        inode = int(child.stdout.readline())
        kernel.watch_listener(inode, child.pid)
        kernel.queues(boot_second())
        child.stdin.write("connect\n")
        child.stdin.flush()
        assert child.stdout.readline() == "connected\n"
        reading = kernel.queues(boot_second())[inode]
        child.stdin.close()
    assert deepest(reading) == (CONNECTIONS, BACKLOG)
    if kernel.probe("queue").means in COUNTED:
        assert reading.arrivals == CONNECTIONS


def test_sockets_that_share_an_address_have_a_queue_each(kernel: Kernel) -> None:
    """SO_REUSEPORT: the kernel spreads connections over the sockets, and each has its own queue and limit."""
    with socket.socket() as first, socket.socket() as second:
        for listener in (first, second):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(first.getsockname() if listener is second else ("127.0.0.1", 0))
            listener.listen(64)
            watch(kernel, listener)
        clients = [connect(first) for _ in range(40)]
        readings = [read(kernel, listener) for listener in (first, second)]
        for client in clients:
            client.close()
    depths = [deepest(reading)[0] if reading.seconds else 0 for reading in readings]
    assert sum(depths) == len(clients)
    if kernel.probe("queue").means in COUNTED:
        assert [reading.arrivals for reading in readings] == depths


def test_a_handed_over_listener_is_the_same_queue(kernel: Kernel, tmp_path: Path) -> None:
    """Socket activation: the holder of a listener need not be its maker, and its inode stays the same."""
    with listening("unix", tmp_path) as listener:
        script = f"import os; print(os.fstat({listener.fileno()}).st_ino)"
        command = [sys.executable, "-c", script]
        told = subprocess.run(command, pass_fds=[listener.fileno()], capture_output=True, text=True, check=True)
        kernel.watch_listener(int(told.stdout), os.getpid())
        with connect(listener):
            assert deepest(read(kernel, listener)) == (1, BACKLOG)
