"""Accept queues of real listeners that nobody accepts from."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

BACKLOG = 8
CONNECTIONS = 5


def _boot_second() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 10**9


def _peak_after_connecting(ear: Any, listener: socket.socket, family: int) -> Any:
    inode = os.fstat(listener.fileno()).st_ino
    ear.source.watch_listener(inode)
    clients = [socket.socket(family) for _ in range(CONNECTIONS)]
    first_second = _boot_second()
    for client in clients:
        client.connect(listener.getsockname())
    peaks = [ear.source.peak(inode, second) for second in range(first_second, _boot_second() + 1)]
    for client in clients:
        client.close()
    return max((peak for peak in peaks if peak is not None), key=lambda peak: peak.depth)


@pytest.fixture
def hears_queues(ear: Any) -> Any:
    probe = ear.source.probe("queue")
    if probe.state == "off":
        pytest.skip(probe.reason)
    return ear


def test_a_tcp_listener(hears_queues: Any) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        peak = _peak_after_connecting(hears_queues, listener, socket.AF_INET)
    assert (peak.depth, peak.limit) == (CONNECTIONS, BACKLOG)


def test_a_unix_listener(hears_queues: Any, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "app.sock"))
        listener.listen(BACKLOG)
        peak = _peak_after_connecting(hears_queues, listener, socket.AF_UNIX)
    assert (peak.depth, peak.limit) == (CONNECTIONS, BACKLOG)


def test_a_listener_that_is_not_watched_costs_nothing(hears_queues: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inode = os.fstat(listener.fileno()).st_ino
        with socket.create_connection(listener.getsockname()):
            assert hears_queues.source.peak(inode, _boot_second()) is None
