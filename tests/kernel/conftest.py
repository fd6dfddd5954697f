"""The real kernel: these tests attach the real programs and need root and BTF."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.kernel.kernel import Kernel
from agent.kernel.ladder import parse_wishes
from agent.kernel.opening import open_kernel
from agent.kernel.records import Record
from agent.procfs import ProcFs

OBJECT = Path(__file__).parents[2] / "agent" / "kernel" / "reflex.bpf.o"
EMULATED = bool(os.environ.get("REFLEX_EMULATED"))
WAIT_S = 120.0 if EMULATED else 30.0


class Ear:
    """Listens to an attached kernel source; `until` gathers records until they satisfy a test."""

    def __init__(self, source: Kernel) -> None:
        self.source = source
        self.heard: list[Record] = []

    def until(self, enough: Callable[[list[Record]], bool]) -> list[Record]:
        """The records so far once `enough` says so; fails when that takes too long."""
        deadline = time.monotonic() + WAIT_S
        while True:
            self.heard += self.source.read()
            if enough(self.heard):
                return self.heard
            left = deadline - time.monotonic()
            assert left > 0, f"not enough after {WAIT_S} s: {self.heard}"
            select.select([source.fd for source in self.source.sources], [], [], left)


@pytest.fixture
def procfs() -> ProcFs:
    """This machine's processes."""
    return ProcFs(Path("/proc"))


Listen = Callable[[str], Ear]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """`listen("oom=counters")`: the kernel heard by these rungs; skipped where one of them is not to be had here."""
    opened: list[Kernel] = []

    def start(rungs: str) -> Ear:
        if os.geteuid() != 0:
            pytest.skip("needs root: BPF programs can be loaded by root only")
        wishes = parse_wishes(rungs)
        kernel = open_kernel(OBJECT, wishes)
        opened.append(kernel)
        missing = [probe for probe in kernel.probes if wishes.get(probe.signal, probe.means) != probe.means]
        if missing:
            pytest.skip(f"not on this kernel: {missing[0].reason}")
        return Ear(kernel)

    yield start
    for kernel in opened:
        kernel.close()


@pytest.fixture
def hear() -> type[Ear]:
    """Makes an Ear of a kernel that is open already."""
    return Ear


@pytest.fixture
def ear(listen: Listen) -> Ear:
    """A kernel source that listens from now on, by the best rungs there are."""
    heard_by_best = listen("")
    if heard_by_best.source.bpf is None:
        pytest.skip(f"no BPF here: {heard_by_best.source.probe('exit').reason}")
    return heard_by_best
