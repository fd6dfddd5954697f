"""The kernel's counts against the agent's events, with real OOM kills: one process, and a cgroup that dies together."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.clock import Clock
from agent.ids import new_event_id
from agent.kernel.records import OomRecord
from agent.oom_check import OomCheck
from agent.oom_counts import CountReader
from agent.procfs import ProcFs
from agent.rollup import Rollup
from agent.service import Service
from agent.slots import Slots
from agent.watcher import Watcher
from agent.wire import Event
from demo.cgroup import CgroupError, MemoryGroup, make_group

LIMIT_BYTES = 64 * 1024 * 1024
GROW = """
import os, sys
open(sys.argv[1], "w").write(str(os.getpid()))
held = []
while True:
    held.append(os.urandom(1) * 1_000_000)
"""
WAIT = """
import os, sys, time
open(sys.argv[1], "w").write(str(os.getpid()))
print(flush=True)
time.sleep(100)
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes cgroups")


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    try:
        made = make_group(f"reflex-count-{os.getpid()}", LIMIT_BYTES)
    except CgroupError as error:
        pytest.skip(str(error))
    yield made
    made.remove()


Run = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def run(group: MemoryGroup) -> Iterator[Run]:
    """Starts a program in the group."""
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-S", "-c", code, str(group.procs)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


class Checked:
    """A check of this host, where one service lives in the group."""

    def __init__(self, group: MemoryGroup) -> None:
        self.told: list[Event] = []
        path = f"/{group.folder.name}"
        service = Service("shop", "gunicorn", 1, 1, None, path, Slots())
        reader = CountReader(ProcFs(), lambda: [service], lambda: time.time_ns() // 1000)
        self.check = OomCheck(reader, self.told.extend, "web-1", lambda: 0)

    def compare_twice(self) -> None:
        self.check._compare()
        self.check._compare()

    def of_the_service(self) -> list[Event]:
        return [event for event in self.told if event.service == "shop"]


def test_a_kill_that_nobody_told_is_a_mismatch(group: MemoryGroup, run: Run) -> None:
    checked = Checked(group)
    assert run(GROW).wait() == -9
    checked.compare_twice()
    (event,) = checked.of_the_service()
    assert (event.kind, event.severity) == ("probe.mismatch", "warning")
    assert (event.attrs["counted"], event.attrs["told"], event.attrs["missing"]) == (1, 0, 1)
    assert f"/{group.folder.name}, where shop runs" in event.text
    assert event.text.endswith("told of 0 there: 1 was not heard.")


def test_a_group_that_dies_together_is_counted_once_each(group: MemoryGroup, run: Run) -> None:
    """The kernel's own counter has one more: it counts the first victim twice."""
    together = group.folder / "memory.oom.group"
    if not together.exists():
        pytest.skip("memory.oom.group is of cgroup version 2")
    together.write_text("1")
    checked = Checked(group)
    siblings = [run(WAIT), run(WAIT)]
    for sibling in siblings:
        assert sibling.stdout is not None
        sibling.stdout.readline()
    assert run(GROW).wait() == -9
    assert [sibling.wait() for sibling in siblings] == [-9, -9]
    assert "oom_kill 4" in (group.folder / "memory.events").read_text()
    checked.compare_twice()
    (event,) = checked.of_the_service()
    assert (event.attrs["counted"], event.attrs["missing"]) == (3, 3)


@pytest.mark.parametrize("together", [False, True])
def test_what_the_tracepoint_hears_is_what_the_kernel_counts(
    ear: Any, group: MemoryGroup, run: Run, together: bool
) -> None:
    if together:
        if not (group.folder / "memory.oom.group").exists():
            pytest.skip("memory.oom.group is of cgroup version 2")
        (group.folder / "memory.oom.group").write_text("1")
    checked = Checked(group)
    watcher = Watcher(ProcFs(Path("/proc")), Rollup(new_event_id), Clock(), None)
    waiting = run(WAIT)
    assert waiting.stdout is not None
    waiting.stdout.readline()
    victims = {run(GROW).pid} | ({waiting.pid} if together else set())
    ear.until(lambda records: victims <= {r.pid for r in records if isinstance(r, OomRecord)})
    told = 0
    for _ in range(2):
        checked.check._compare()
        ear.heard += ear.source.read()  # kills of other programs on this host are counted, too
        for record in [one for one in ear.heard if isinstance(one, OomRecord)][told:]:
            checked.check.notice(watcher.on_record(record))
            told += 1
    checked.check._compare()
    assert told >= len(victims)
    assert [event.text for event in checked.told if event.severity == "warning"] == []
