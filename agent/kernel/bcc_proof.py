"""Whether programs that were compiled on this host can be believed: a child of the agent's own lives, and is heard right.

Programs whose headers do not fit load and attach like any other and report garbage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from agent.executor import Child
from agent.kernel.records import ExecRecord, ExitRecord, ForkRecord, Record, Role
from agent.kernel.source import BpfSource
from agent.procfs import TICKS_PER_SECOND, ProcFs

PATIENCE_S = 30.0
LOOK_EVERY_S = 0.02
_NS_PER_TICK = 1_000_000_000 // TICKS_PER_SECOND
_LIFE = ("sh", "-c", "read go; ( exit 7 ); exec sh -c 'exit 23'")


def disbelief(source: BpfSource, signals: Collection[str], procfs: ProcFs) -> str:
    """What was heard wrongly of a child that forks, executes and exits; empty when all that was asked for is right."""
    started_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    child = Child(_LIFE)
    try:
        ticks = procfs.start_ticks(child.pid)
        if ticks is None:
            return "the child that was to prove the programs could not be followed"
        source.track(child.pid, ticks * _NS_PER_TICK, Role.MASTER)
        child.let_go()
        child.wait(PATIENCE_S)
        heard = _hear(source, lambda records: any(isinstance(r, ExitRecord) and r.pid == child.pid for r in records))
    finally:
        child.end()
        source.untrack(child.pid)
    ended_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    mine = [r for r in heard if started_ns <= r.at_ns <= ended_ns]
    right = {
        "fork": any(isinstance(r, ForkRecord) and (r.parent_pid, r.role) == (child.pid, Role.WORKER) for r in mine),
        "exec": any(isinstance(r, ExecRecord) and (r.pid, r.comm) == (child.pid, "sh") for r in mine),
        "exit": {(r.pid == child.pid, r.wait_status >> 8) for r in mine if isinstance(r, ExitRecord)}
        >= {(False, 7), (True, 23)},
    }
    wrong = [name for name in signals if not right.get(name, True)]
    return f"{', '.join(wrong)} of a child of the agent's own was not heard right" if wrong else ""


def _hear(source: BpfSource, enough: Callable[[list[Record]], bool]) -> list[Record]:
    heard: list[Record] = []
    until = time.monotonic() + PATIENCE_S / 10
    while not enough(heard) and time.monotonic() < until:
        heard += source.read()
        time.sleep(LOOK_EVERY_S)
    return heard
