from __future__ import annotations

import pytest

from benchmarks.pairs import compare, median_interval, order


def test_who_goes_first_alternates() -> None:
    assert order(3) == [False, True, True, False, False, True]


def test_a_loss_is_positive_and_a_gain_negative() -> None:
    assert compare([100, 100, 100], [98, 98, 98]).loss_percent == 2
    assert compare([100, 100, 100], [103, 103, 103]).loss_percent == -3


def test_a_drift_of_the_host_is_no_loss() -> None:
    """Each pair is compared in itself: the host became twice as slow, and the agent cost nothing."""
    comparison = compare([100, 80, 50], [100, 80, 50])
    assert comparison.loss_percent == 0
    assert (comparison.off_per_s, comparison.on_per_s) == (80, 80)


def test_one_disturbed_pair_does_not_decide() -> None:
    comparison = compare([100, 100, 100, 100, 100], [99, 99, 30, 99, 99])
    assert comparison.loss_percent == 1
    assert comparison.quartiles_percent == (1, 1)


def test_noise_is_what_neighbours_without_a_change_differ_by() -> None:
    """Rounds in time: off0 on0 on1 off1 off2 on2. Unchanged neighbours are on0 and on1 (10 %), off1 and off2 (4 %)."""
    comparison = compare([100, 100, 96], [100, 90, 96])
    assert comparison.noise_percent == 7
    assert comparison.loss_beyond_noise_percent == 0


def test_a_loss_above_the_noise_stays_visible() -> None:
    comparison = compare([100, 100, 100], [90, 90, 90])
    assert comparison.noise_percent == 0
    assert comparison.loss_beyond_noise_percent == 10


@pytest.mark.parametrize(("off", "on"), [([1.0], [1.0]), ([1.0, 1.0], [1.0]), ([], [])])
def test_fewer_than_two_pairs_say_nothing(off: list[float], on: list[float]) -> None:
    with pytest.raises(ValueError, match="no two pairs"):
        compare(off, on)


@pytest.mark.parametrize(("count", "first", "last"), [(3, 0, 2), (7, 0, 6), (9, 1, 7), (15, 3, 11), (25, 7, 17)])
def test_the_interval_of_the_median_is_that_of_the_sign_test(count: int, first: int, last: int) -> None:
    """Ranks from the usual table for 95 %, counted from 0; for fewer than six values, all of them."""
    assert median_interval([float(n) for n in reversed(range(count))]) == (first, last)


def test_a_loss_that_every_pair_shows_is_certain() -> None:
    assert compare([100.0] * 7, [97.0] * 7).interval_percent == (3, 3)
