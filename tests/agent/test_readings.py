"""What is told of readings: rates, and a receiver that is never far off and never long without news."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.readings import Reading, ReadingStep
from agent.readings import FIRST_RATE, METRICS, MOST_AGE_S, STEPS, Follower, Step, Told, values_of

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
    accepts=20,
)
UNKNOWN = Reading(1, None, None, None, None, None, None, None, None, None, None, 41, None, None)

values = st.one_of(
    st.none(), st.integers(0, 2**40), st.floats(0, 6400, allow_nan=False), st.sampled_from([0, 1, 100.0, 100.4, 100.6])
)


def named(values: Sequence[float | None]) -> dict[str, float | None]:
    return dict(zip(METRICS, values, strict=True))


def test_sizes_are_told_as_they_are_and_sums_as_rates() -> None:
    now = BEFORE._replace(
        cpu_ns=2_500_000_000,
        run_delay_ns=600_000_000,
        minor_faults=5_400,
        voluntary_switches=104,
        threads=4,
        accepts=50,
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
        "worker.accepts_per_s": 15.0,
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
    assert told.step([100], renews=True) == [(0, 100)]
    assert told.step([110], renews=False) == []
    assert told.step([110.5], renews=False) == [(0, 110.5)]
    assert told.step([110.5], renews=True) == [(0, 110.5)]


def test_a_step_without_leeway_tells_every_change() -> None:
    told = Told([Step(0)])
    assert [told.step([threads], renews=False) for threads in [4, 4, 5, 4]] == [[(0, 4)], [], [(0, 5)], [(0, 4)]]


def test_a_value_that_comes_back_is_told_at_once() -> None:
    told = Told([Step(10)])
    told.step([100], renews=True)
    assert told.step([None], renews=False) == []
    assert told.step([100], renews=False) == [(0, 100)]


def test_the_rates_of_a_busy_process_are_told_once_more_when_it_settles() -> None:
    told = Told(list(STEPS.values()))
    busy = values_of(BEFORE, BEFORE._replace(cpu_ns=BEFORE.cpu_ns + 8_000_000, voluntary_switches=104), 1.0)
    quiet = values_of(BEFORE, BEFORE._replace(cpu_ns=BEFORE.cpu_ns + 4_000_000, voluntary_switches=104), 1.0)
    told.step(busy, renews=True)
    assert told.step(quiet, renews=False) == []
    assert told.step(quiet, renews=False, settles=True) == [(FIRST_RATE, 0.4)]
    assert told.step(quiet, renews=False, settles=True) == []


def test_what_the_kernel_leaves_out_is_within_the_steps() -> None:
    """The kernel hands over no quiet process: what it may do untold is no more than each rate's step."""
    quiet = [
        ReadingStep.QUIET_CPU_NS / 1e7,
        ReadingStep.QUIET_RUN_DELAY_NS / 1e7,
        ReadingStep.QUIET_MINOR_FAULTS,
        ReadingStep.QUIET_MAJOR_FAULTS,
        ReadingStep.QUIET_SWITCHES,
        ReadingStep.QUIET_SWITCHES,
        ReadingStep.QUIET_ACCEPTS,
    ]
    assert all(most <= step.least for most, step in zip(quiet, list(STEPS.values())[FIRST_RATE:], strict=True))


def test_processes_renew_their_values_at_different_times() -> None:
    renewals = []
    for pid in (63, 159):
        follower = Follower()
        renewals.append([at for at in range(122) if follower.follow([BEFORE._replace(pid=pid)], at)[0].renews])
    assert renewals == [[0, 2, 61, 120], [0, 38, 97]]


def test_a_successor_with_the_same_pid_is_new() -> None:
    follower = Follower()
    follower.follow([BEFORE], 0.0)
    [again] = follower.follow([BEFORE], 1.0)
    [successor] = follower.follow([BEFORE._replace(start_ns=2)], 2.0)
    assert (again.before, again.passed_s, again.renews) == (BEFORE, 1.0, False)
    assert (successor.before, successor.renews) == (None, True)


@given(
    period_s=st.sampled_from([1.0, 2.0, 5.0, 10.0]),
    pid=st.integers(1, 200),
    lateness=st.lists(st.floats(0, 0.5), min_size=1, max_size=60),
    data=st.data(),
)
def test_the_receiver_is_never_far_off_and_never_long_without_news(
    period_s: float, pid: int, lateness: list[float], data: st.DataObject
) -> None:
    """At every reading what the receiver knows is within the step; until the next one, nothing grows older than that."""
    steps = [Step(10, 0.05), Step(0.5)]
    told, follower = Told(steps), Follower()
    known: dict[int, tuple[float, float]] = {}
    now_s = 1000.0
    for late in lateness:
        now = [data.draw(values) for _ in steps]
        [moved] = follower.follow([BEFORE._replace(pid=pid)], now_s)
        known.update({place: (value, now_s) for place, value in told.step(now, renews=moved.renews)})
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
