"""The agent's own budget: its laws for whatever it may cost, and the steps of everyday cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.budget import (
    ALARM_AFTER_S,
    FIRST_PATIENCE_S,
    LEVELS,
    MIB,
    MOST_PATIENCE_S,
    RELAPSE_S,
    WINDOW_S,
    Budget,
    Cost,
    CostMeter,
    Limits,
    Verdict,
)

LIMITS = Limits(cpu_percent=3.0, rss_bytes=128 * MIB)
EVERY_S = 10.0
LAST = len(LEVELS) - 1
CALM = Cost(0.3, 45 * MIB)
BUSY = Cost(9.0, 45 * MIB)
SWOLLEN = Cost(0.3, 150 * MIB)
MOST_CHANGES_AN_HOUR = 30

patient = settings(deadline=None, max_examples=60)
"""A busy machine is no failure."""

costs = st.builds(
    Cost,
    st.sampled_from([0.0, 0.3, 2.4, 2.41, 3.0, 3.01, 9.0, 100.0]) | st.floats(0, 200),
    st.sampled_from([45 * MIB, 122 * MIB, 128 * MIB, 129 * MIB, 900 * MIB]),
)


@dataclass(frozen=True, slots=True)
class Change:
    """A level that was entered, and when."""

    at_s: float
    before: int
    level: int


def run(budget: Budget, spent: Iterable[Cost], *, start_s: float = 0.0) -> Iterator[tuple[float, Verdict | None]]:
    """A look every ten seconds, the first of which only starts the clock."""
    for number, cost in enumerate(spent):
        at_s = start_s + number * EVERY_S
        yield at_s, budget.step(at_s, cost)


def changes(budget: Budget, spent: Iterable[Cost], *, start_s: float = 0.0) -> list[Change]:
    return [
        Change(at_s, verdict.before, verdict.level)
        for at_s, verdict in run(budget, spent, start_s=start_s)
        if verdict is not None and verdict.level != verdict.before
    ]


def lasting(cost: Cost, seconds: float) -> list[Cost]:
    return [cost] * round(seconds / EVERY_S)


def test_over_budget_it_sheds_a_level_each_window() -> None:
    budget = Budget(LIMITS)
    assert [change.at_s for change in changes(budget, lasting(BUSY, 400))] == [30, 60, 90, 120, 150]
    assert budget.level == LAST
    assert LEVELS[LAST].readings_s is None
    assert not LEVELS[LAST].queues


def test_the_start_is_not_held_against_it() -> None:
    assert changes(Budget(LIMITS), [Cost(100.0, 45 * MIB), *lasting(CALM, 300)]) == []


def test_a_burst_within_the_window_is_no_excess() -> None:
    assert changes(Budget(LIMITS), [CALM, CALM, CALM, Cost(8.0, 45 * MIB), *lasting(CALM, 100)]) == []


def test_memory_counts_when_it_is_over_throughout() -> None:
    budget = Budget(LIMITS)
    assert changes(budget, [CALM, SWOLLEN, CALM, SWOLLEN, SWOLLEN]) == []
    (change,) = changes(budget, [SWOLLEN], start_s=50)
    assert change.level == 1


def test_it_comes_back_level_by_level_after_patience() -> None:
    budget = Budget(LIMITS)
    changes(budget, lasting(BUSY, 100))
    assert budget.level == 3
    back = changes(budget, lasting(CALM, 1000), start_s=100)
    assert [change.level for change in back] == [2, 1, 0]
    gaps = [later.at_s - earlier.at_s for earlier, later in pairwise(back)]
    assert gaps == [WINDOW_S + FIRST_PATIENCE_S] * 2


def test_between_calm_and_over_it_stays_where_it_is() -> None:
    budget = Budget(LIMITS)
    changes(budget, lasting(BUSY, 40))
    between = Cost(2.8, 45 * MIB)
    assert changes(budget, lasting(between, 4000), start_s=40) == []
    assert budget.level == 1


def test_what_comes_back_too_early_waits_twice_as_long_the_next_time() -> None:
    """A load that fits the budget only while a level is shed."""
    budget, waits, shed_s = Budget(LIMITS), [], 0.0
    for number in range(1500):
        at_s = number * EVERY_S
        verdict = budget.step(at_s, CALM if budget.level else BUSY)
        if verdict is not None and verdict.level > verdict.before:
            shed_s = at_s
        elif verdict is not None and verdict.level < verdict.before:
            waits.append(at_s - shed_s - WINDOW_S)
    assert waits[:6] == [120, 240, 480, 960, 1800, 1800]


def test_patience_is_back_when_a_level_came_back_for_good() -> None:
    budget = Budget(LIMITS)
    budget.patience_s = MOST_PATIENCE_S
    changes(budget, lasting(BUSY, 70))
    back = changes(budget, lasting(CALM, 4000), start_s=70)
    assert [change.level for change in back] == [1, 0]
    assert back[1].at_s - back[0].at_s == RELAPSE_S
    assert budget.patience_s == FIRST_PATIENCE_S


def test_the_alarm_is_raised_once_when_nothing_is_left_to_shed() -> None:
    alarms = [at_s for at_s, verdict in run(Budget(LIMITS), lasting(SWOLLEN, 3000)) if verdict and verdict.alarm]
    assert alarms == [WINDOW_S + ALARM_AFTER_S]


def test_a_second_excess_has_an_alarm_of_its_own() -> None:
    spent = [*lasting(SWOLLEN, 600), *lasting(CALM, 60), *lasting(SWOLLEN, 600)]
    assert sum(verdict.alarm for _, verdict in run(Budget(LIMITS), spent) if verdict) == 2


def test_a_verdict_has_the_figures() -> None:
    (*_, (_, verdict)) = run(Budget(LIMITS), [CALM, Cost(6.0, 100 * MIB), Cost(3.0, 110 * MIB), Cost(3.0, 120 * MIB)])
    assert verdict == Verdict(0, 1, frozenset({"cpu"}), 4.0, 120 * MIB)


@patient
@given(spent=st.lists(costs.filter(lambda cost: cost.cpu_percent <= 3.0 and cost.rss_bytes <= 128 * MIB), max_size=400))
def test_it_never_sheds_under_budget(spent: list[Cost]) -> None:
    assert changes(Budget(LIMITS), spent) == []


@patient
@given(spent=st.lists(costs, max_size=300))
def test_it_goes_one_level_at_a_time_and_sheds_only_when_over(spent: list[Cost]) -> None:
    budget, level = Budget(LIMITS), 0
    for _, verdict in run(budget, spent):
        if verdict is not None:
            assert verdict.before == level
            assert abs(verdict.level - level) <= 1
            assert verdict.level <= level or verdict.over
            assert verdict.level >= level or not verdict.over
            level = verdict.level
        assert budget.level == level


@patient
@given(before=st.lists(costs, max_size=300))
def test_it_recovers_within_bounded_time(before: list[Cost]) -> None:
    budget = Budget(LIMITS)
    list(run(budget, before))
    most_s = WINDOW_S + MOST_PATIENCE_S + (LAST - 1) * (WINDOW_S + RELAPSE_S)
    changes(budget, lasting(CALM, most_s + 2 * EVERY_S), start_s=len(before) * EVERY_S)
    assert budget.level == 0


def most_in_an_hour(found: Sequence[Change]) -> int:
    return max((sum(one.at_s <= other.at_s < one.at_s + 3600 for other in found) for one in found), default=0)


@patient
@given(
    phases=st.lists(
        st.tuples(st.sampled_from([CALM, BUSY, SWOLLEN, Cost(2.8, 45 * MIB)]), st.integers(1, 120)), max_size=60
    )
)
def test_it_never_flaps(phases: list[tuple[Cost, int]]) -> None:
    found = changes(Budget(LIMITS), [cost for cost, looks in phases for _ in range(looks)])
    assert most_in_an_hour(found) <= MOST_CHANGES_AN_HOUR


@pytest.mark.parametrize("spared", range(LAST))
def test_a_load_that_turns_against_every_decision_makes_it_flap_no_more_often(spared: int) -> None:
    """Busy until level `spared` + 1 is reached, calm until the top is reached again, and so on for a day."""
    budget, busy, found = Budget(LIMITS), True, []
    for number in range(24 * 360):
        at_s = number * EVERY_S
        verdict = budget.step(at_s, BUSY if busy else CALM)
        if verdict is not None and verdict.level != verdict.before:
            found.append(Change(at_s, verdict.before, verdict.level))
        busy = budget.level <= spared if busy else budget.level == 0
    assert most_in_an_hour(found) <= MOST_CHANGES_AN_HOUR


@patient
@given(
    gaps=st.lists(st.floats(0, 400), min_size=1, max_size=100),
    cost=st.sampled_from([CALM, BUSY]),
)
def test_looks_at_any_distance_are_taken(gaps: list[float], cost: Cost) -> None:
    budget, at_s = Budget(LIMITS), 0.0
    for gap in gaps:
        at_s += gap
        budget.step(at_s, cost)
    assert budget.level == 0 or cost is BUSY


@dataclass(frozen=True, slots=True)
class Used:
    cpu_ns: int
    rss_bytes: int


@dataclass(slots=True)
class Counted:
    """A process whose usage is `now`."""

    now: Used | None

    def usage(self, pid: int) -> Used | None:
        assert pid == 7
        return self.now


@pytest.fixture
def metered() -> Callable[[Used | None], tuple[CostMeter, Counted]]:
    def start(used: Used | None) -> tuple[CostMeter, Counted]:
        process = Counted(used)
        return CostMeter(process, 7, 1_000_000_000), process

    return start


def test_the_meter_tells_cpu_since_the_look_before(
    metered: Callable[[Used | None], tuple[CostMeter, Counted]],
) -> None:
    meter, process = metered(Used(500_000_000, 40 * MIB))
    process.now = Used(510_000_000, 41 * MIB)
    assert meter.read(2_000_000_000) == Cost(1.0, 41 * MIB)
    process.now = Used(530_000_000, 42 * MIB)
    assert meter.read(4_000_000_000) == Cost(1.0, 42 * MIB)
    assert meter.read(4_000_000_000) is None
    process.now = None
    assert meter.read(5_000_000_000) is None
