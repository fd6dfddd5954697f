"""The real kernel: these tests attach the real programs and need root and BTF."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.kernel.kernel import Kernel, open_kernel
from agent.kernel.records import Record

OBJECT = Path(__file__).parents[2] / "agent" / "kernel" / "reflex.bpf.o"
WAIT_S = 10.0


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
def ear() -> Iterator[Ear]:
    """A kernel source that listens from now on."""
    if os.geteuid() != 0:
        pytest.skip("needs root: BPF programs can be loaded by root only")
    source = open_kernel(OBJECT)
    if source.bpf is None:
        pytest.skip(f"no BPF here: {source.probe('exit').reason}")
    yield Ear(source)
    source.close()
