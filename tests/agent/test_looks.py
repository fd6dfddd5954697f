"""What is kept of looks into /proc, and for how long it is believed: real sockets of this process."""

from __future__ import annotations

import os
import socket

from agent.looks import FRESH_S, KEPT_S, Looks
from agent.procfs import ProcFs


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _inode(listener: socket.socket) -> int:
    return os.fstat(listener.fileno()).st_ino


def _found(looks: Looks) -> set[int]:
    return {one.inode for one in looks.listeners(os.getpid())}


def test_a_process_that_has_begun_to_listen_since_the_last_look() -> None:
    time = Time()
    looks = Looks(ProcFs(), time)
    assert looks.listening_inodes(os.getpid()) is not None
    time.now_s += FRESH_S * 2
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert _found(looks) >= {_inode(listener)}


def test_what_is_known_is_kept_for_a_moment() -> None:
    time = Time()
    looks = Looks(ProcFs(), time)
    with socket.create_server(("127.0.0.1", 0)) as first:
        assert _found(looks) >= {_inode(first)}
        time.now_s += KEPT_S / 2
        with socket.create_server(("127.0.0.1", 0)) as second:
            assert _inode(second) not in _found(looks)
            time.now_s += KEPT_S
            assert _found(looks) >= {_inode(first), _inode(second)}
