"""How many connections each process accepted: by its readings and at its end, held against what the test made it accept."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.kernel.kernel import Kernel
from agent.kernel.ladder import parse_wishes
from agent.kernel.opening import open_kernel
from agent.kernel.records import ExitRecord, Role
from agent.procfs import ProcFs
from agent.rollup import NS_PER_TICK
from tests.kernel.queue_stage import HOOKED, KINDS, OBJECT, connect, listening, watch

ACCEPTS = (3, 5)
"""By the first and by the second process."""

_REST = "oom=off,oom_context=off,fork=off,exec=off,signal=off,queue_overflow=off"


@pytest.fixture(params=(*HOOKED, "tp_btf"), scope="module")
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    rung = request.param
    opened = open_kernel(OBJECT, parse_wishes(f"queue={rung},queue_wait={rung},{_REST}"))
    try:
        for signal in ("queue_wait", "readings", "exit"):
            if opened.probe(signal).state == "off":
                pytest.skip(opened.probe(signal).reason)
        if opened.probe("readings").means != "iterator":
            pytest.skip(opened.probe("readings").reason)
        yield opened
    finally:
        opened.close()


@contextmanager
def acceptor(kernel: Kernel, listener: socket.socket) -> Iterator[tuple[int, socket.socket]]:
    """A followed process that accepts one connection for each byte it is sent, and answers with one."""
    ours, its = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        while its.recv(1):
            listener.accept()[0].close()
            its.send(b"!")
        os._exit(0)
    its.close()
    start_ticks = ProcFs().start_ticks(pid)
    assert start_ticks is not None
    kernel.track(pid, start_ticks * NS_PER_TICK, Role.WORKER)
    try:
        yield pid, ours
    finally:
        ours.close()
        os.waitpid(pid, 0)


def accept(listener: socket.socket, process: socket.socket, times: int) -> None:
    for _ in range(times):
        client = connect(listener)
        process.send(b"?")
        assert process.recv(1) == b"!"
        client.close()


def exits(kernel: Kernel, number: int) -> dict[int, ExitRecord]:
    """The next records of ends, by pid."""
    found: dict[int, ExitRecord] = {}
    while len(found) < number:
        assert select.select([source.fd for source in kernel.sources], [], [], 5)[0]
        found |= {record.pid: record for record in kernel.read() if isinstance(record, ExitRecord)}
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_each_process_has_its_own_count(kernel: Kernel, kind: str, tmp_path: Path) -> None:
    is_counted = kernel.probe("queue_wait").means in HOOKED
    expected = ACCEPTS if is_counted else (None, None)
    with listening(kind, tmp_path) as listener:
        watch(kernel, listener)
        with acceptor(kernel, listener) as (first, to_first), acceptor(kernel, listener) as (second, to_second):
            for process, times in zip((to_first, to_second), ACCEPTS, strict=True):
                accept(listener, process, times)
            readings = {reading.pid: reading.accepts for reading in kernel.read_tasks()}
            assert (readings[first], readings[second]) == expected
        ended = exits(kernel, 2)
        assert (ended[first].accepts, ended[second].accepts) == expected


def test_listeners_that_nobody_watches_do_not_count(kernel: Kernel, tmp_path: Path) -> None:
    with listening("tcp4", tmp_path) as listener, acceptor(kernel, listener) as (pid, process):
        accept(listener, process, 2)
        readings = {reading.pid: reading.accepts for reading in kernel.read_tasks()}
    assert readings[pid] == (0 if kernel.probe("queue_wait").means in HOOKED else None)
    exits(kernel, 1)
