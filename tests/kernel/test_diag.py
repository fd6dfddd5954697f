"""Looks at listeners by netlink: depth, limit and drops, in every network namespace, without leaving anything open."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel.diag import DiagError, QueueDiag, Sight
from tests.kernel.queue_stage import BACKLOG, KINDS, connect, inode_of, listening

LISTENS_ELSEWHERE = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0elsewhere")
listener.listen(8)
print(os.fstat(listener.fileno()).st_ino, flush=True)
sys.stdin.readline()
"""
NOBODY = 2**22 + 1


@pytest.fixture
def diag() -> Iterator[QueueDiag]:
    """Netlink diag of this host."""
    if os.geteuid() != 0:
        pytest.skip("needs root to enter network namespaces")
    try:
        diag = QueueDiag()
    except DiagError as error:
        pytest.skip(str(error))
    yield diag
    diag.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_listener(diag: QueueDiag, kind: str, tmp_path: Path) -> None:
    with listening(kind, tmp_path) as listener, listening(kind, tmp_path) as other, connect(other):
        clients = [connect(listener) for _ in range(3)]
        sights = diag.look({inode_of(listener): None})
        for client in clients:
            client.close()
    drops = None if kind == "unix" else 0
    assert sights == {inode: Sight(3, BACKLOG, drops) for inode in sights}
    assert len(sights) == 1


def test_many_listeners_in_one_answer_and_more(diag: QueueDiag) -> None:
    """The answer comes in several buffers."""
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=number) for number in range(1, 400)]
    sights = diag.look({inode_of(listener): os.getpid() for listener in listeners})
    assert [sights[inode_of(listener)].limit for listener in listeners] == list(range(1, 400))
    for listener in listeners:
        listener.close()


def test_drops_of_a_tcp_listener(diag: QueueDiag, tmp_path: Path) -> None:
    with listening("tcp4", tmp_path) as listener:
        clients = [connect(listener) for _ in range(BACKLOG + 1)]
        late = socket.socket()
        late.setblocking(False)
        late.connect_ex(listener.getsockname())
        (sight,) = diag.look({inode_of(listener): None}).values()
        for client in [*clients, late]:
            client.close()
    assert (sight.depth, sight.limit) == (BACKLOG + 1, BACKLOG)
    assert sight.drops is not None
    assert sight.drops >= 1


def test_a_namespace_is_let_go_of_with_its_last_listener(diag: QueueDiag) -> None:
    open_before = set(os.listdir("/proc/self/fd"))
    command = ["unshare", "--net", sys.executable, "-c", LISTENS_ELSEWHERE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        inode = int(child.stdout.readline())
        assert diag.look({inode: child.pid}) == {inode: Sight(0, 8, None)}
        assert diag.look({inode: child.pid}) == {inode: Sight(0, 8, None)}
        child.communicate()
    assert diag.look({inode: child.pid}) == {}
    diag.forget(inode)
    assert set(os.listdir("/proc/self/fd")) == open_before


def test_a_holder_that_is_gone_is_looked_for_at_home(diag: QueueDiag, tmp_path: Path) -> None:
    with listening("unix", tmp_path) as listener:
        assert len(diag.look({inode_of(listener): NOBODY})) == 1


def test_a_listener_of_the_host_in_a_process_with_a_network_of_its_own(diag: QueueDiag, tmp_path: Path) -> None:
    """A service manager can hand it over."""
    with listening("unix", tmp_path) as listener:
        command = ["unshare", "--net", "cat"]
        passed = [listener.fileno()]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=passed) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(b"ready\n")
            child.stdin.flush()
            child.stdout.readline()
            sights = diag.look({inode_of(listener): child.pid})
            child.communicate()
    assert list(sights.values()) == [Sight(0, BACKLOG, None)]
