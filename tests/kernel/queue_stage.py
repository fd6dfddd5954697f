"""Accept queues on one rung: a kernel that is forced onto it, and listeners of every kind to try it on."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.kernel.kernel import Kernel
from agent.kernel.ladder import parse_wishes
from agent.kernel.opening import open_kernel
from agent.kernel.queues import QueueReading

OBJECT = Path(__file__).parents[2] / "agent" / "kernel" / "reflex.bpf.o"
BACKLOG = 8
KINDS = ("tcp4", "tcp6", "unix")

_NOTHING_ELSE = "oom=off,oom_context=off,fork=off,exec=off,exit=off,signal=off,readings=off"
WISHES = {
    "fentry": "queue=fentry,queue_wait=fentry,queue_overflow=fentry",
    "kprobe": "queue=kprobe,queue_wait=kprobe,queue_overflow=kprobe",
    "tp_btf": "queue=tp_btf,queue_wait=tp_btf,queue_overflow=diag",
    "diag": "queue=diag,queue_wait=off,queue_overflow=diag",
}
"""The rungs of `queue`, each with those of the other two signals that go with it."""

HOOKED = ("fentry", "kprobe")
COUNTED = (*HOOKED, "tp_btf")


def forget_all(kernel: Kernel) -> None:
    """Leaves nothing behind for the next test; opening the programs anew takes seconds where a kernel is emulated."""
    for inode in kernel.queues(boot_second()):
        kernel.forget_listener(inode)


def boot_second() -> int:
    """The running second of the boot clock."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 10**9


@contextmanager
def kernel_on(rung: str, *signals: str) -> Iterator[Kernel]:
    """A kernel with the queue signals on this rung; skips, with the reason, where one of `signals` cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    kernel = open_kernel(OBJECT, parse_wishes(f"{WISHES[rung]},{_NOTHING_ELSE}"))
    try:
        for signal in signals or ("queue",):
            if kernel.probe(signal).state == "off":
                pytest.skip(kernel.probe(signal).reason)
        yield kernel
    finally:
        kernel.close()


@contextmanager
def listening(kind: str, folder: Path, backlog: int = BACKLOG) -> Iterator[socket.socket]:
    """A listener of this kind that nobody accepts from."""
    with socket.socket(family_of(kind)) as listener:
        address = {
            "tcp4": ("127.0.0.1", 0),
            "tcp6": ("::1", 0),
            "unix": str(folder / f"{len(os.listdir(folder))}.sock"),
        }[kind]
        try:
            listener.bind(address)
        except OSError as error:
            pytest.skip(f"no {kind} here: {error}")
        listener.listen(backlog)
        yield listener


def family_of(kind: str) -> socket.AddressFamily:
    """The address family of a kind of listener."""
    return {"tcp4": socket.AF_INET, "tcp6": socket.AF_INET6, "unix": socket.AF_UNIX}[kind]


def connect(listener: socket.socket) -> socket.socket:
    """A client whose connection is in the queue: on this host's own network it is there before connect returns."""
    client = socket.socket(listener.family)
    client.connect(listener.getsockname())
    return client


def inode_of(listener: socket.socket) -> int:
    """What the listener is watched by."""
    return os.fstat(listener.fileno()).st_ino


def watch(kernel: Kernel, listener: socket.socket) -> None:
    """Watches a listener of this process and takes the first look at it."""
    kernel.watch_listener(inode_of(listener))
    kernel.queues(boot_second())


def read(kernel: Kernel, listener: socket.socket) -> QueueReading:
    """What is known of the listener's queue now."""
    return kernel.queues(boot_second())[inode_of(listener)]


def deepest(reading: QueueReading) -> tuple[int, int]:
    """The deepest of the latest seconds, and its limit."""
    return max((seen.depth, seen.limit) for seen in reading.seconds)
