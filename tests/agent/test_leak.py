"""Growth that never ends is told from noise, saw-teeth, warm-ups, caches, steps and days; simulated by a clock of its own."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.leak import BUCKETS, LONGEST_BUCKET_S, Leak, Series, seconds_left, will_fill

MIB = 1024 * 1024
LIMIT = 512 * MIB
READING_S = 5.0
RUNS = 30

Memory = Callable[[float], float]


def first_warning_s(memory: Memory, hours: float) -> float | None:
    """When a process with this memory would be told of, in a cgroup that it has for itself; None when it is not."""
    series, now_s = Series(), 0.0
    while now_s < hours * 3600:
        now = memory(now_s)
        if now > LIMIT:
            return None
        if series.add(now_s, int(max(now, MIB))):
            leak = series.leak()
            if leak is not None and will_fill([leak], LIMIT - int(now)):
                return now_s
        now_s += READING_S
    return None


def noise(chance: random.Random) -> Memory:
    return lambda t: 150 * MIB + chance.gauss(0, 3 * MIB)


def saw_tooth(chance: random.Random) -> Memory:
    period_s = chance.uniform(30, 900)
    return lambda t: (120 + 60 * (t % period_s) / period_s) * MIB + chance.gauss(0, MIB)


def warm_up(chance: random.Random) -> Memory:
    settles_s, amount = chance.uniform(20, 3000), chance.uniform(20, 200) * MIB
    return lambda t: 80 * MIB + amount * (1 - math.exp(-t / settles_s)) + chance.gauss(0, MIB)


def filling_cache(chance: random.Random) -> Memory:
    amount = chance.uniform(5, 40) * MIB
    return lambda t: 80 * MIB + amount * math.log1p(t / 10) + chance.gauss(0, MIB)


def steps(chance: random.Random) -> Memory:
    jumps = [(chance.uniform(0, 4 * 3600), chance.uniform(5, 60) * MIB) for _ in range(chance.randint(1, 5))]
    return lambda t: 90 * MIB + sum(size for at_s, size in jumps if t >= at_s) + chance.gauss(0, MIB)


def day_and_night(chance: random.Random) -> Memory:
    phase = chance.uniform(0, 2 * math.pi)
    return lambda t: (200 + 40 * math.sin(t / 86400 * 2 * math.pi + phase)) * MIB + chance.gauss(0, 2 * MIB)


def wandering(chance: random.Random) -> Memory:
    now = [150.0 * MIB]

    def memory(t: float) -> float:
        now[0] += chance.gauss(0, 0.15 * MIB) - 0.001 * (now[0] - 150 * MIB)
        return now[0]

    return memory


def high_water(chance: random.Random) -> Memory:
    highest = [90.0 * MIB]

    def memory(t: float) -> float:
        highest[0] = max(highest[0], min((90 + chance.paretovariate(2.5) * 5) * MIB, 400 * MIB))
        return highest[0]

    return memory


@pytest.mark.parametrize(
    "kind", [noise, saw_tooth, warm_up, filling_cache, steps, day_and_night, wandering, high_water]
)
def test_what_is_no_leak_is_never_told(kind: Callable[[random.Random], Memory]) -> None:
    hours = 48 if kind is day_and_night else 4
    told = [run for run in range(RUNS) if first_warning_s(kind(random.Random(run)), hours) is not None]
    assert told == []


@pytest.mark.parametrize("mib_per_minute", [60, 10, 1])
def test_a_leak_is_told_when_half_of_the_room_is_gone(mib_per_minute: float) -> None:
    for run in range(5):
        chance = random.Random(run)

        def memory(t: float, chance: random.Random = chance) -> float:
            return (100 + mib_per_minute * t / 60 + 40 * (1 - math.exp(-t / 60))) * MIB + chance.gauss(0, 2 * MIB)

        until_full_s = (512 - 140) / mib_per_minute * 60
        told_s = first_warning_s(memory, 26)
        assert told_s is not None
        assert told_s < 0.75 * until_full_s


def test_the_slope_and_its_bound() -> None:
    series, chance = Series(), random.Random(1)
    for second in range(200):
        series.add(second, int((100 + second) * MIB + chance.gauss(0, 0.2 * MIB)))
    leak = series.leak()
    assert leak is not None
    assert leak.slope == pytest.approx(MIB, rel=0.05)
    assert 0.8 * MIB < leak.slope_at_least <= leak.slope
    assert seconds_left([leak, leak], 100 * MIB) == pytest.approx(50, rel=0.05)


def test_without_growth_nothing_runs_out() -> None:
    flat = Leak(0.0, 0.0, 100.0, 0, MIB, 0.0)
    assert seconds_left([flat], MIB) is None
    assert not will_fill([flat], MIB)


def test_a_gap_is_time_without_change() -> None:
    series = Series()
    series.add(0, 100 * MIB)
    series.add(1, 300 * MIB)
    series.add(100_000, 300 * MIB)
    assert series.leak() is None
    assert len(series) <= BUCKETS


@settings(max_examples=60, deadline=None)
@given(
    readings=st.lists(st.tuples(st.floats(0.1, 20_000), st.integers(0, 1 << 40)), max_size=120),
)
def test_it_is_bounded_and_falling_memory_is_no_leak(readings: list[tuple[float, int]]) -> None:
    series, now_s = Series(), 0.0
    falling = sorted((size for _, size in readings), reverse=True)
    for (pause_s, _), size in zip(readings, falling, strict=True):
        now_s += pause_s
        series.add(now_s, size)
        assert len(series) <= BUCKETS
        assert series.bucket_s <= 2 * LONGEST_BUCKET_S
        assert series.leak() is None
