"""Backlogs, silent consumers and waits from looks at queues."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.brokers.common import Client, QueueLook
from agent.celery.node import plain, waits_for
from agent.celery.queue_judges import LEAST_GROWTH, SILENT_LOOKS, Backlog, ConsumerLook, Silence, Waiting

EVERY_S = 5.0
SILENT = ConsumerLook(length=9, is_idle=True, consumes=False)


def _changes(backlog: Backlog, lengths: list[int]) -> list[tuple[int, str]]:
    """The changes with the look at which each came."""
    found = [(at, backlog.step(at * EVERY_S, length)) for at, length in enumerate(lengths)]
    return [(at, change) for at, change in found if change is not None]


class TestBacklog:
    def test_steady_growth_is_a_backlog_once_the_window_is_full(self) -> None:
        backlog = Backlog(window_s=120)
        changes = _changes(backlog, [10 * at for at in range(40)])
        assert [change for _, change in changes] == ["grows"]
        assert 90 <= changes[0][0] * EVERY_S <= 120
        assert backlog.rate == pytest.approx(2, rel=0.2)

    def test_it_is_over_when_the_queue_stays_where_it_began(self) -> None:
        lengths = [10 * at for at in range(25)] + [250, 120, 3, 2, 2, 0]
        assert [change for _, change in _changes(Backlog(), lengths)] == ["grows", "over"]

    @pytest.mark.parametrize(
        "lengths",
        [
            [0] * 60,
            [5_000] * 60,
            [0] * 10 + [1_000] * 50,
            [0] * 10 + [max(1_000 - 20 * at, 0) for at in range(60)],
            [at % 7 for at in range(60)],
            [at // 4 for at in range(60)],
            [1_000 - 10 * at for at in range(60)],
        ],
        ids=["empty", "long but steady", "burst", "burst worked off", "noise", "hardly growing", "shrinking"],
    )
    def test_what_is_no_backlog(self, lengths: list[int]) -> None:
        assert _changes(Backlog(), lengths) == []

    def test_a_queue_looked_at_seldom_says_nothing(self) -> None:
        backlog = Backlog(window_s=120)
        assert [backlog.step(at * 40.0, at * 1_000) for at in range(20)] == [None] * 20

    @given(st.lists(st.integers(0, LEAST_GROWTH - 1), max_size=100))
    def test_few_tasks_are_never_a_backlog(self, lengths: list[int]) -> None:
        assert _changes(Backlog(), lengths) == []

    @given(st.lists(st.integers(0, 10_000), max_size=150))
    def test_each_backlog_is_over_before_the_next(self, lengths: list[int]) -> None:
        kinds = [change for _, change in _changes(Backlog(), lengths)]
        assert kinds == ["grows", "over"] * (len(kinds) // 2) + ["grows"] * (len(kinds) % 2)

    @given(st.lists(st.integers(0, 10_000), max_size=100), st.integers(0, 99))
    def test_a_queue_that_ends_no_longer_than_it_began_is_none(self, lengths: list[int], least: int) -> None:
        falling = sorted((least + length for length in lengths), reverse=True)
        assert _changes(Backlog(), falling) == []


class TestSilence:
    def test_some_looks_in_a_row_make_a_node_silent(self) -> None:
        silence = Silence()
        assert [silence.step(at * EVERY_S, SILENT) for at in range(6)] == [None, None, None, "silent", None, None]

    def test_looks_in_short_order_are_not_enough(self) -> None:
        silence = Silence()
        assert [silence.step(at * 1.0, SILENT) for at in range(15)] == [None] * 15
        assert silence.step(15.0, SILENT) == "silent"

    @pytest.mark.parametrize(
        "other",
        [
            ConsumerLook(9, None, False),
            ConsumerLook(9, True, None),
            ConsumerLook(None, True, False),
            ConsumerLook(9, False, False),
            ConsumerLook(9, True, True),
            ConsumerLook(0, True, False),
        ],
        ids=["no answer", "readers unknown", "no length", "busy", "consumes", "empty"],
    )
    def test_what_is_not_known_or_not_so_begins_anew(self, other: ConsumerLook) -> None:
        silence = Silence()
        for round_ in range(5):
            for at in range(SILENT_LOOKS - 1):
                assert silence.step((round_ * SILENT_LOOKS + at) * EVERY_S, SILENT) is None
            assert silence.step((round_ * SILENT_LOOKS + SILENT_LOOKS - 1) * EVERY_S, other) is None

    def test_a_queue_that_shrinks_has_a_reader(self) -> None:
        silence = Silence()
        looks = [ConsumerLook(50 - at, True, False) for at in range(20)]
        assert [silence.step(at * EVERY_S, look) for at, look in enumerate(looks)] == [None] * 20

    @pytest.mark.parametrize("back", [ConsumerLook(9, True, True), ConsumerLook(9, False, False)])
    def test_it_is_back_when_it_asks_or_works(self, back: ConsumerLook) -> None:
        silence = Silence(told=True, since_s=0.0)
        assert silence.step(5.0, ConsumerLook(None, None, None)) is None
        assert silence.step(10.0, back) == "back"
        assert silence.step(15.0, back) is None

    @given(
        st.lists(
            st.builds(ConsumerLook, st.none() | st.integers(0, 3), st.none() | st.booleans(), st.none() | st.booleans())
        )
    )
    def test_unknown_never_makes_silent(self, looks: list[ConsumerLook]) -> None:
        silence, run = Silence(), 0
        for at, look in enumerate(looks):
            run = run + 1 if look.is_silent else 0
            if silence.step(at * EVERY_S, look) == "silent":
                assert run >= SILENT_LOOKS


class TestWhoWaits:
    QUEUE = QueueLook("mail", 3)
    OWN = ("127.0.0.1:5000", "[::1]:5001")

    def _waits(self, consumes: tuple[str, ...] | None, clients: tuple[Client, ...] | None) -> bool | None:
        return waits_for(self.QUEUE, consumes, clients, self.OWN, on_redis=True)

    def test_a_node_that_leaves_a_queue_out_does_not_wait(self) -> None:
        assert self._waits(("celery",), None) is False
        assert self._waits((), (Client("127.0.0.1:5000", 0, True),)) is False

    def test_no_answer_is_unknown(self) -> None:
        assert self._waits(None, ()) is None
        assert self._waits(("mail",), None) is None

    def test_its_own_connections_tell(self) -> None:
        other = Client("10.0.0.9:77", 0, True)
        assert self._waits(("mail",), (other, Client("127.0.0.1:5000", 0, True))) is True
        assert self._waits(("mail",), (other, Client("127.0.0.1:5000", 0, False))) is False
        assert self._waits(("mail",), (Client("[::1]:5001", 0, True),)) is True

    def test_connections_that_cannot_be_told_apart_are_unknown_unless_nobody_waits(self) -> None:
        """Over unix sockets, or through a translation of addresses."""
        assert self._waits(("mail",), (Client("/run/redis.sock:0", 0, True),)) is None
        assert self._waits(("mail",), (Client("/run/redis.sock:0", 0, False),)) is False

    def test_rabbitmq_counts_consumers(self) -> None:
        for consumers, answer in ((0, False), (2, True), (None, None)):
            queue = QueueLook("mail", 3, consumers=consumers)
            assert waits_for(queue, ("mail",), None, (), on_redis=False) is answer

    def test_addresses_have_one_spelling(self) -> None:
        assert plain("[0:0:0:0:0:0:0:1]:80") == plain("[::1]:80")
        assert plain("/run/redis.sock:0") == "/run/redis.sock:0"


class TestWaiting:
    def test_a_message_that_says_when_it_was_sent(self) -> None:
        assert Waiting().step(100.0, "a", 40.0) == 60.0
        assert Waiting().step(100.0, "a", 101.0) == 0.0

    def test_else_it_has_waited_since_it_was_seen(self) -> None:
        waiting = Waiting()
        assert [waiting.step(now, "a", None) for now in (10.0, 15.0, 20.0)] == [0.0, 5.0, 10.0]
        assert waiting.step(25.0, "b", None) == 0.0
        assert waiting.step(30.0, None, None) is None
        assert waiting.step(35.0, "b", None) == 0.0
