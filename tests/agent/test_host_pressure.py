"""When a host runs out of memory, and which worker holds the most."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.host_pressure import HOLD_S, OVER_S, Pressure, Reading, most_of
from agent.procfs import ProcFs
from agent.service import Service, Worker
from agent.slots import Slots
from agent.wire import WorkerRef

GIB = 1024**3


def reading(available: float, stalled: float | None = 20.0) -> Reading:
    return Reading(100 * GIB, int(available * GIB), stalled)


@pytest.mark.parametrize(
    ("available", "stalled", "expected"),
    [
        (50, 90.0, False),
        (8, 4.9, False),
        (8, 5.0, True),
        (8, None, True),
        (9, None, False),
        (3, 0.0, True),
    ],
)
def test_what_is_tight(available: float, stalled: float | None, expected: bool) -> None:
    """Tasks of a small cgroup wait for memory while the host has plenty, and a full page cache makes nobody wait."""
    assert reading(available, stalled).is_tight is expected


def test_a_short_one_is_none_and_a_long_one_is_told_once() -> None:
    pressure = Pressure()
    assert pressure.step(0, reading(5)) is None
    assert pressure.step(HOLD_S - 1, reading(5)) is None
    assert pressure.step(HOLD_S, reading(50)) is None
    assert pressure.step(HOLD_S + 1, reading(5)) is None
    assert pressure.step(2 * HOLD_S + 1, reading(5)) == "begun"
    assert pressure.step(2 * HOLD_S + 3, reading(1)) is None


def test_it_is_over_when_there_has_been_enough_for_a_while() -> None:
    pressure = Pressure()
    pressure.step(0, reading(5))
    assert pressure.step(HOLD_S, reading(5)) == "begun"
    assert pressure.step(10, reading(11)) is None, "less than enough"
    assert pressure.step(20, reading(12)) is None
    assert pressure.step(20 + OVER_S - 1, reading(11)) is None, "the time begins anew"
    assert pressure.step(50, reading(30)) is None
    assert pressure.step(50 + OVER_S, reading(30)) == "over"
    assert pressure.step(200, reading(5)) is None
    assert pressure.step(200 + HOLD_S, reading(5)) == "begun", "and may begin again"


def test_who_holds_the_most() -> None:
    assert most_of(()) == (None, 0)
    shop, mail = (Service(name, "gunicorn", 1, 1, None, "", Slots()) for name in ("shop", "mail"))
    for service, sizes in ((shop, (3, 1)), (mail, (2, 3))):
        for pid, held in enumerate(sizes, 10):
            worker = Worker(WorkerRef(pid, 1, pid, 1), service, 0, None)
            worker.health.memory_bytes = held
            service.workers[pid] = worker
    worker, held_bytes = most_of((shop, mail))
    assert worker is mail.workers[11]
    assert held_bytes == 5
    mail.stopped_event = "x"
    assert most_of((shop, mail))[0] is shop.workers[10]


def test_the_kernel_says_for_how_long_tasks_waited(tmp_path: Path) -> None:
    assert ProcFs(tmp_path).memory_stalled() is None
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure" / "memory").write_text(
        "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=3.00 avg60=0.00 avg300=0.00 total=1\n"
    )
    assert ProcFs(tmp_path).memory_stalled() == 12.5
