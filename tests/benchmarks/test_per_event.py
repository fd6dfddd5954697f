from __future__ import annotations

from benchmarks.per_event import ENOUGH_RUNS, Slice, costs, iterated, summary
from benchmarks.programs import Runs


def cut(storm: str, ns: int, *, tracked: bool = False, floor_ns: int | None = 50, count: int = ENOUGH_RUNS) -> Slice:
    floor = None if floor_ns is None else Runs(count, floor_ns * count)
    return Slice(storm, tracked, Runs(count, ns * count), floor)


def test_a_disturbed_slice_does_not_decide() -> None:
    (cost,) = costs([cut("spawn", 120), cut("spawn", 9000), cut("spawn", 122)], tracked=False)
    assert (cost.raw_ns, cost.floor_ns, cost.net_ns, cost.events) == (122, 50, 72, 3 * ENOUGH_RUNS)


def test_a_program_that_hardly_ran_in_a_storm_was_not_measured_by_it() -> None:
    assert costs([cut("connect", 500, count=ENOUGH_RUNS - 1)], tracked=False) == []


def test_the_dearest_storm_is_told() -> None:
    slices = [cut("pingpong", 90), cut("connect", 130), cut("full queue", 400, tracked=True)]
    cells = summary({"on_data_ready": slices})["programs"]["on_data_ready"]
    assert (cells["untracked_ns"], cells["untracked_raw_ns"], cells["untracked_storm"]) == (80, 130, "connect")
    assert (cells["tracked_ns"], cells["tracked_storm"]) == (350, "full queue")


def test_a_program_that_never_ran_has_no_figure() -> None:
    told = summary({"on_oom_task": [cut("spawn", 0, count=0)]})
    assert told["programs"]["on_oom_task"] == {"untracked_ns": None, "tracked_ns": None}
    assert told["floor_ns"] is None


def test_where_the_floor_is_unknown_nothing_is_taken_off() -> None:
    cells = summary({"on_tcp_enqueue": [cut("connect", 200, floor_ns=None)]})["programs"]["on_tcp_enqueue"]
    assert (cells["untracked_ns"], cells["untracked_floor_ns"]) == (200, None)


def test_a_cost_below_the_floor_is_none() -> None:
    assert costs([cut("spawn", 40)], tracked=False)[0].net_ns == 0


def test_an_iterator_has_a_cost_for_each_visit() -> None:
    assert iterated(Runs(400, 240_000)) == {"visits": 400, "raw_ns": 600}
    assert iterated(Runs(0, 0)) == {"visits": 0, "raw_ns": None}
