"""What is told of readings: rates, and a receiver that is never far off and never long without news."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.readings import Reading
from agent.readings import METRICS, MOST_AGE_S, STEPS, Step, Told, values_of

BEFORE = Reading(
    start_ns=1,
    cpu_ns=1_000_000_000,
    run_delay_ns=500_000_000,
    anon_bytes=30_000_000,
    file_bytes=9_000_000,
    shmem_bytes=4096,
    swap_bytes=0,
    minor_faults=5_000,
    major_faults=10,
    voluntary_switches=100,
    involuntary_switches=7,
    pid=41,
    threads=1,
)
UNKNOWN = Reading(1, None, None, None, None, None, None, None, None, None, None, 41, None)

values = st.one_of(
    st.none(), st.integers(0, 2**40), st.floats(0, 6400, allow_nan=False), st.sampled_from([0, 1, 100.0, 100.4, 100.6])
)


def named(values: Sequence[float | None]) -> dict[str, float | None]:
    return dict(zip(METRICS, values, strict=True))


def test_sizes_are_told_as_they_are_and_sums_as_rates() -> None:
    now = BEFORE._replace(
        cpu_ns=2_500_000_000, run_delay_ns=600_000_000, minor_faults=5_400, voluntary_switches=104, threads=4
    )
    assert named(values_of(BEFORE, now, 2.0)) == {
        "worker.rss_anon_bytes": 30_000_000,
        "worker.rss_file_bytes": 9_000_000,
        "worker.rss_shmem_bytes": 4096,
        "worker.swap_bytes": 0,
        "worker.threads": 4,
        "worker.cpu_percent": pytest.approx(75.0),
        "worker.run_delay_percent": pytest.approx(5.0),
        "worker.minor_faults": 200.0,
        "worker.major_faults": 0.0,
        "worker.ctx_voluntary": 2.0,
        "worker.ctx_involuntary": 0.0,
    }


def test_the_first_reading_has_no_rates() -> None:
    found = named(values_of(None, BEFORE, 1.0))
    assert found["worker.rss_anon_bytes"] == 30_000_000
    assert found["worker.cpu_percent"] is None
    assert found["worker.minor_faults"] is None


def test_unknown_stays_unknown_and_is_never_nought() -> None:
    assert set(values_of(BEFORE, UNKNOWN, 1.0)) == {None}
    assert set(values_of(UNKNOWN, BEFORE, 1.0)[5:]) == {None}


def test_a_sum_that_falls_has_no_rate() -> None:
    """The kernel forgets how long threads waited that ended."""
    now = BEFORE._replace(run_delay_ns=400_000_000)
    assert named(values_of(BEFORE, now, 1.0))["worker.run_delay_percent"] is None


def test_what_did_not_move_is_not_told_again_at_once() -> None:
    told = Told([Step(10)])
    assert told.step([100], now_s=0, period_s=1) == [(0, 100)]
    assert told.step([110], now_s=1, period_s=1) == []
    assert told.step([110.5], now_s=2, period_s=1) == [(0, 110.5)]


def test_a_step_without_leeway_tells_every_change() -> None:
    told = Told([Step(0)])
    assert [told.step([threads], now_s=at, period_s=1) for at, threads in enumerate([4, 4, 5, 4])] == [
        [(0, 4)],
        [],
        [(0, 5)],
        [(0, 4)],
    ]


def test_a_value_that_comes_back_is_told_at_once() -> None:
    told = Told([Step(10)])
    told.step([100], now_s=0, period_s=1)
    assert told.step([None], now_s=1, period_s=1) == []
    assert told.step([100], now_s=2, period_s=1) == [(0, 100)]


def test_processes_renew_their_values_at_different_times() -> None:
    renewals = []
    for first_renewal_s in (3.0, 39.0):
        told = Told([Step(10)], first_renewal_s=first_renewal_s)
        renewals.append([at for at in range(122) if told.step([100], now_s=at, period_s=1)])
    assert renewals == [[0, 2, 61, 120], [0, 38, 97]]


def test_a_renewal_costs_a_sixtieth_of_telling_all_every_second() -> None:
    told = Told([Step(10)])
    assert sum(len(told.step([100], now_s=at, period_s=1)) for at in range(590)) == 10


@given(
    period_s=st.sampled_from([1.0, 2.0, 5.0, 10.0]),
    first_renewal_s=st.floats(0, 30),
    lateness=st.lists(st.floats(0, 0.5), min_size=1, max_size=60),
    data=st.data(),
)
def test_the_receiver_is_never_far_off_and_never_long_without_news(
    period_s: float, first_renewal_s: float, lateness: list[float], data: st.DataObject
) -> None:
    """At every reading what the receiver knows is within the step; until the next one, nothing grows older than that."""
    steps = [Step(10, 0.05), Step(0.5)]
    told = Told(steps, first_renewal_s=first_renewal_s)
    known: dict[int, tuple[float, float]] = {}
    now_s = 1000.0
    for late in lateness:
        now = [data.draw(values) for _ in steps]
        known.update({place: (value, now_s) for place, value in told.step(now, now_s=now_s, period_s=period_s)})
        next_s = now_s + period_s * (1 + late)
        for place, value in enumerate(now):
            if value is not None:
                there, since_s = known[place]
                rounding = 0.005
                assert abs(value - there) <= max(steps[place].least, steps[place].share * abs(there)) + rounding
                assert next_s - since_s <= MOST_AGE_S + 1e-6
        now_s = next_s


def test_every_step_is_small_beside_what_it_stands_for() -> None:
    assert all(step.share <= 0.1 for step in STEPS.values())
    assert [metric for metric, step in STEPS.items() if metric.endswith("_bytes") and step.least > 2**18] == []
