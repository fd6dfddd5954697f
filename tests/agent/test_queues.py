"""Seconds, waits and saturation from readings of accept queues."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import queue_sentences as sentences
from agent.kernel.listener_table import SecondSeen
from agent.kernel.queues import QueueReading
from agent.queues import (
    FLAP_US,
    MAX_CALM_S,
    WINDOW_S,
    Change,
    QueueSecond,
    Saturation,
    WaitEstimate,
    between,
    mean_wait_ms,
    percentile_ms,
    together,
)

S = 1_000_000
FULL = QueueSecond(depth=9, depth_at_most=9, limit=8)
CALM = QueueSecond(depth=1, depth_at_most=1, limit=8)
HALF = QueueSecond(depth=4, depth_at_most=4, limit=8)
UNKNOWN = QueueSecond()


def _histogram(**counts: int) -> tuple[int, ...]:
    """`_histogram(b3=2)`: two waits in bucket 3."""
    return tuple(counts.get(f"b{bucket}", 0) for bucket in range(32))


def _changes(state: Saturation, seconds: list[QueueSecond], start_s: int = 0) -> list[tuple[int, Change]]:
    """The changes with the second in which each came."""
    found = [(start_s + i, state.step(second, (start_s + i) * S)) for i, second in enumerate(seconds)]
    return [(at, change) for at, change in found if change is not None]


class TestBetween:
    def test_counters_are_told_as_differences(self) -> None:
        before = QueueReading(arrivals=10, accepts=8, waited_ns=500, waits=(5, 3), turned_away=1, blocked=0)
        now = QueueReading(arrivals=15, accepts=15, waited_ns=900, waits=(6, 9), turned_away=1, blocked=2)
        second = between(before, now, after=3, until=4)
        assert (second.arrivals, second.accepts, second.waited_ns, second.waits) == (5, 7, 400, (1, 6))
        assert (second.turned_away, second.blocked) == (0, 2)

    @pytest.mark.parametrize(
        ("depth", "arrivals", "any_reason", "turned_away"),
        [(8, 20, True, 5), (7, 20, True, 0), (7, 20, False, 5), (4, None, True, 5), (3, None, True, 0)],
    )
    def test_drops_for_other_reasons_turn_nobody_away(
        self, depth: int, arrivals: int | None, any_reason: bool, turned_away: int
    ) -> None:
        """A listener with TCP_DEFER_ACCEPT drops the last packet of each handshake."""
        seen = QueueReading(depth=0, depth_at_most=0, limit=8, seconds=(SecondSeen(4, depth, 8),))
        now = replace(seen, arrivals=arrivals, turned_away=5, any_reason=any_reason)
        assert between(QueueReading(), now, after=3, until=4).turned_away == turned_away

    def test_what_the_means_cannot_tell_stays_unknown(self) -> None:
        second = between(QueueReading(), QueueReading(), after=3, until=4)
        assert second == QueueSecond()
        assert not second.had_traffic

    def test_the_first_reading_counts_from_zero(self) -> None:
        assert between(QueueReading(), QueueReading(arrivals=3), after=0, until=4).arrivals == 3

    def test_only_seconds_that_are_over_and_untold_count(self) -> None:
        seconds = (SecondSeen(4, 7, 8, 70), SecondSeen(5, 9, 8, 90))
        now = QueueReading(seconds=seconds, depth_at_most=2)
        assert between(QueueReading(), now, after=3, until=4).depth == 7
        assert between(QueueReading(), now, after=3, until=4).longest_wait_ns == 70
        assert between(QueueReading(), now, after=4, until=4).depth is None

    def test_a_queue_that_stands_counts_though_nothing_was_seen(self) -> None:
        second = between(QueueReading(), QueueReading(depth=9, depth_at_most=9, limit=8), after=3, until=4)
        assert second.is_full
        assert second.had_traffic

    def test_a_bound_is_no_depth(self) -> None:
        second = between(QueueReading(), QueueReading(depth_at_most=9, limit=8), after=3, until=4)
        assert (second.depth, second.depth_at_most) == (None, 9)
        assert not second.is_full
        assert not second.is_calm


class TestFullAndCalm:
    @pytest.mark.parametrize(
        ("depth", "limit", "full", "calm"),
        [(0, 0, False, True), (1, 0, True, False), (0, 1, False, True), (1, 1, False, False), (2, 1, True, False)]
        + [(3, 8, False, True), (4, 8, False, False), (8, 8, False, False), (9, 8, True, False)],
    )
    def test_a_queue_holds_one_more_than_its_limit(self, depth: int, limit: int, full: bool, calm: bool) -> None:
        second = QueueSecond(depth=depth, depth_at_most=depth, limit=limit)
        assert (second.is_full, second.is_calm) == (full, calm)

    @pytest.mark.parametrize("found", [QueueSecond(turned_away=1), QueueSecond(blocked=1)])
    def test_a_client_without_room_is_enough(self, found: QueueSecond) -> None:
        assert found.is_full
        assert not found.is_calm


class TestTogether:
    def test_the_fullest_queue_speaks_for_the_address(self) -> None:
        whole = together(
            [
                QueueSecond(depth=5, depth_at_most=5, limit=4, arrivals=5, accepts=2, waits=(1, 1)),
                QueueSecond(depth=6, depth_at_most=6, limit=64, arrivals=6, accepts=6, waits=(0, 6)),
            ]
        )
        assert (whole.depth, whole.limit, whole.is_full) == (5, 4, True)
        assert (whole.arrivals, whole.accepts, whole.waits) == (11, 8, (1, 7))

    def test_one_queue_that_is_not_known_keeps_the_address_from_being_calm(self) -> None:
        assert not together([CALM, QueueSecond(limit=8)]).is_calm
        assert together([CALM, CALM]).is_calm


class TestWaits:
    def test_percentiles_are_upper_bounds_of_buckets(self) -> None:
        second = QueueSecond(accepts=100, waits=_histogram(b5=60, b10=39, b15=1), longest_wait_ns=40_000_000)
        assert percentile_ms(second, 0.5) == 0.032
        assert percentile_ms(second, 0.99) == 1.024
        assert percentile_ms(second, 1.0) == 32.768

    def test_no_percentile_is_above_the_longest_wait(self) -> None:
        second = QueueSecond(accepts=1, waits=_histogram(b15=1), longest_wait_ns=20_000_000)
        assert percentile_ms(second, 0.5) == 20.0

    def test_a_longest_wait_that_was_missed_changes_nothing(self) -> None:
        assert percentile_ms(QueueSecond(accepts=1, waits=_histogram(b15=1)), 0.5) == 32.768

    def test_without_accepts_there_is_no_wait(self) -> None:
        assert percentile_ms(QueueSecond(accepts=0, waits=_histogram()), 0.5) is None
        assert percentile_ms(QueueSecond(), 0.5) is None
        assert mean_wait_ms(QueueSecond(accepts=0, waited_ns=0)) is None

    def test_the_mean_is_exact(self) -> None:
        assert mean_wait_ms(QueueSecond(accepts=4, waited_ns=10_000_000)) == 2.5

    @given(st.lists(st.integers(0, 2**40), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
    def test_a_percentile_covers_its_share_within_a_factor_of_two(self, waits_ns: list[int], share: float) -> None:
        buckets = [0] * 32
        for wait_ns in waits_ns:
            buckets[min((wait_ns // 1000).bit_length(), 31)] += 1
        second = QueueSecond(accepts=len(waits_ns), waits=tuple(buckets), longest_wait_ns=max(waits_ns))
        bound_ms = percentile_ms(second, share)
        assert bound_ms is not None
        true_ms = sorted(waits_ns)[max(0, -(-int(share * 1000) * len(waits_ns) // 1000) - 1)] / 1e6
        assert true_ms <= bound_ms + 1e-9
        assert bound_ms <= max(2 * true_ms, 0.001) + 1e-9


class TestEstimate:
    def test_littles_law(self) -> None:
        """20 arrivals a second that find 4 each: W = 4 / 20 s."""
        estimate = WaitEstimate()
        assert estimate.step(QueueSecond(arrivals=20, found_waiting=80)) == 200.0
        assert estimate.step(QueueSecond(arrivals=20, found_waiting=80)) == 200.0

    def test_idle_seconds_lower_the_rate(self) -> None:
        estimate = WaitEstimate()
        estimate.step(QueueSecond(arrivals=0, found_waiting=0))
        assert estimate.step(QueueSecond(arrivals=20, found_waiting=80)) == 400.0

    def test_it_forgets(self) -> None:
        estimate = WaitEstimate()
        estimate.step(QueueSecond(arrivals=1, found_waiting=50))
        answers = [estimate.step(QueueSecond(arrivals=10, found_waiting=0)) for _ in range(10)]
        assert answers[8] != 0.0
        assert answers[9] == 0.0

    def test_unknown_and_empty_give_nothing(self) -> None:
        assert WaitEstimate().step(QueueSecond(arrivals=5)) is None
        assert WaitEstimate().step(QueueSecond(arrivals=0, found_waiting=0)) is None


class TestSaturation:
    def test_one_full_second_is_a_burst(self) -> None:
        assert _changes(Saturation(), [FULL, CALM, CALM, CALM, CALM, FULL, CALM]) == []

    def test_two_of_five_seconds(self) -> None:
        assert _changes(Saturation(), [FULL, CALM, CALM, CALM, FULL]) == [(4, "saturated")]

    def test_it_recovers_after_five_calm_seconds_in_a_row(self) -> None:
        seconds = [FULL, FULL, CALM, CALM, CALM, CALM, HALF, CALM, CALM, CALM, CALM, CALM]
        assert _changes(Saturation(), seconds) == [(1, "saturated"), (11, "recovered")]

    def test_what_is_not_known_decides_nothing(self) -> None:
        assert _changes(Saturation(), [UNKNOWN] * 20) == []
        assert _changes(Saturation(), [FULL, FULL, *[UNKNOWN] * 20]) == [(1, "saturated")]

    def test_a_flapping_queue_tells_less_and_less_often(self) -> None:
        state = Saturation()
        changes = _changes(state, ([FULL] * 2 + [CALM] * WINDOW_S) * 500)
        assert len(changes) < 10
        assert state.calm_needed_s <= MAX_CALM_S
        assert state.since_us is not None

    def test_after_ten_quiet_minutes_it_is_trusted_again(self) -> None:
        state = Saturation()
        _changes(state, ([FULL] * 2 + [CALM] * MAX_CALM_S) * 6)
        assert state.calm_needed_s == MAX_CALM_S
        later_s = 1000 + FLAP_US // S
        assert _changes(state, [FULL, FULL, *[CALM] * WINDOW_S], later_s) == [
            (later_s + 1, "saturated"),
            (later_s + 1 + WINDOW_S, "recovered"),
        ]

    def test_the_numbers_of_the_whole_spell_are_kept(self) -> None:
        state = Saturation()
        full = QueueSecond(depth=9, depth_at_most=9, limit=8, turned_away=3, blocked=1, longest_wait_ns=5)
        _changes(state, [full, full, full])
        assert (state.deepest, state.turned_away, state.blocked, state.longest_wait_ns) == (9, 9, 3, 5)
        _changes(state, [CALM] * WINDOW_S, 3)
        assert state.since_us is None
        assert state.turned_away == 9


class TestSentences:
    def test_a_tcp_queue(self) -> None:
        state = Saturation(since_us=0, turned_away=12, deepest=9)
        assert sentences.saturated("shop-web", "tcp 127.0.0.1:8000", state, 8) == (
            "The accept queue of shop-web on tcp 127.0.0.1:8000 is full: in the last 5 s up to 9 connections waited "
            "in its 9 places and 12 handshake packets were dropped. Its workers do not accept as fast as clients connect."
        )
        assert sentences.severity(state) == "critical"

    def test_a_unix_queue(self) -> None:
        state = Saturation(since_us=0, turned_away=1, blocked=2, deepest=6)
        assert sentences.saturated("shop", "unix /run/shop.sock", state, 5) == (
            "The accept queue of shop on unix /run/shop.sock is full: in the last 5 s up to 6 connections waited "
            "in its 6 places, 1 connect was refused (EAGAIN) and 2 connects had to wait for room. "
            "Its workers do not accept as fast as clients connect."
        )

    def test_its_end(self) -> None:
        state = Saturation(calm_needed_s=10, deepest=9, turned_away=40, longest_wait_ns=2_500_000_000)
        assert sentences.recovered("shop-web", "tcp 127.0.0.1:8000", state, 42 * S) == (
            "The accept queue of shop-web on tcp 127.0.0.1:8000 has room again: it has been less than half full for "
            "10 s. It was saturated for 42.0 s; in that time up to 9 connections waited (one of them for 2.50 s) "
            "and 40 handshake packets were dropped."
        )

    def test_nothing_but_a_deep_queue(self) -> None:
        state = Saturation(deepest=9)
        assert sentences.severity(state) == "warning"
        assert [item.fact for item in sentences.evidence(state, 8, {"queue": "q", "queue_overflow": "o"})] == [
            "deepest accept queue 9 of limit 8"
        ]
