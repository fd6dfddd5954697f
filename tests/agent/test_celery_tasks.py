"""Stuck and poisonous tasks from looks and deaths; nodes and tasks from answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.celery import sentences
from agent.celery.task_judges import (
    BLIND_TIMES,
    FLAT_S,
    FLAT_WITHOUT_STACKS_S,
    KNOWN_RUNS,
    POISON_WINDOW_S,
    STUCK_AFTER_S,
    Died,
    Poison,
    Progress,
    Runs,
    TaskLook,
)
from agent.celery.values import ActiveTask, NodeStats, TaskRules, node_of, read_look

EVERY_S = 5.0
STACK = ("recv (socket.py:700)", "pay (shop.py:12)")


def _judged(looks: list[TaskLook], *, has_stacks: bool = True, limit_s: float = 60.0) -> list[tuple[int, str]]:
    progress = Progress()
    found = [(at, progress.step(at * EVERY_S, look, limit_s, has_stacks=has_stacks)) for at, look in enumerate(looks)]
    return [(at, change) for at, change in found if change is not None]


class TestProgress:
    def test_old_and_flat_with_the_same_stack_twice_is_stuck(self) -> None:
        changes = _judged([TaskLook(at * EVERY_S, 1.0, STACK) for at in range(40)])
        assert [change for _, change in changes] == ["stuck"]
        assert changes[0][0] * EVERY_S >= 60 + FLAT_S

    @pytest.mark.parametrize(
        "look_at",
        [
            lambda at: TaskLook(at * EVERY_S, at * 0.5, STACK),
            lambda at: TaskLook(at * EVERY_S, at * 0.05, STACK),
            lambda at: TaskLook(at * EVERY_S, 1.0, (f"line {at}",)),
            lambda at: TaskLook(at * EVERY_S, None, STACK),
            lambda at: TaskLook(at * EVERY_S, 1.0, None),
            lambda at: TaskLook(20.0, 1.0, STACK),
        ],
        ids=["computes", "computes a little", "moves on", "CPU unknown", "no stack this time", "young"],
    )
    def test_what_is_not_stuck(self, look_at: Any) -> None:
        assert _judged([look_at(at) for at in range(100)]) == []

    def test_without_stacks_it_takes_three_times_the_age(self) -> None:
        changes = _judged([TaskLook(at * EVERY_S, 1.0) for at in range(100)], has_stacks=False)
        assert changes == [(60 * BLIND_TIMES / EVERY_S, "stuck")]

    def test_without_stacks_it_takes_a_minute_without_cpu(self) -> None:
        looks = [TaskLook(1_000.0 + at * EVERY_S, 1.0) for at in range(100)]
        assert _judged(looks, has_stacks=False) == [(FLAT_WITHOUT_STACKS_S / EVERY_S, "stuck")]

    def test_cpu_again_ends_it(self) -> None:
        looks = [TaskLook(at * EVERY_S, 1.0 if at < 30 else 3.0, STACK) for at in range(32)]
        assert [change for _, change in _judged(looks)] == ["stuck", "moves"]

    def test_waking_for_a_timer_is_no_progress(self) -> None:
        looks = [TaskLook(at * EVERY_S, 1.0 + at * EVERY_S * 0.001, STACK) for at in range(40)]
        assert [change for _, change in _judged(looks)] == ["stuck"]

    @given(
        st.lists(st.tuples(st.none() | st.floats(0, 5), st.none() | st.sampled_from([STACK, ("other",)])), max_size=60)
    )
    def test_nothing_is_stuck_without_two_equal_stacks(self, given_: list[tuple[float | None, Any]]) -> None:
        """Whatever the CPU does, `stuck` comes only with a stack that was there before."""
        progress, seen = Progress(), []
        for at, (cpu_s, stack) in enumerate(given_):
            change = progress.step(at * 20.0, TaskLook(500.0 + at, cpu_s, stack), 60.0, has_stacks=stack is not None)
            if change == "stuck" and stack is not None:
                assert stack in seen
            seen.append(stack)


class TestRuns:
    def test_little_known_tasks_get_the_whole_time(self) -> None:
        runs = Runs()
        assert runs.stuck_after_s("shop.pay") == STUCK_AFTER_S
        runs.counted({"shop.pay": KNOWN_RUNS - 1})
        assert runs.stuck_after_s("shop.pay") == STUCK_AFTER_S

    def test_known_short_tasks_are_suspect_sooner(self) -> None:
        runs = Runs()
        runs.counted({"shop.pay": KNOWN_RUNS})
        assert runs.stuck_after_s("shop.pay") == STUCK_AFTER_S / 5

    def test_a_task_that_takes_long_by_nature_gets_three_times_its_longest(self) -> None:
        runs = Runs()
        runs.counted({"shop.export": 50})
        runs.ended("shop.export", 900.0)
        runs.ended("shop.export", 20.0)
        assert runs.stuck_after_s("shop.export") == 2_700.0


class TestPoison:
    def test_three_deaths_within_the_window(self) -> None:
        poison, deaths = Poison(), [Died(at * 100.0, f"event {at}", "id") for at in range(4)]
        assert [poison.died("shop.pay", death) for death in deaths[:2]] == [None, None]
        assert poison.died("shop.pay", deaths[2]) == tuple(deaths[:3])
        assert poison.died("shop.pay", deaths[3]) is None

    def test_deaths_far_apart_or_of_others_are_none(self) -> None:
        poison = Poison()
        for at in range(10):
            assert poison.died("shop.pay", Died(at * POISON_WINDOW_S, "e", "id")) is None
            assert poison.died(f"task {at}", Died(at, "e", "id")) is None


ACTIVE = {
    "id": "9c1d",
    "name": "shop.pay",
    "args": ["card 4111"],
    "time_start": 1_700_000_000.5,
    "acknowledged": True,
    "worker_pid": 12,
    "delivery_info": {"redelivered": True},
}
STATS = {
    "pid": 10,
    "prefetch_count": 8,
    "total": {"shop.pay": 3},
    "pool": {"implementation": "celery.concurrency.prefork:TaskPool", "processes": [12, 13], "max-concurrency": 2},
    "broker": {"transport_options": {"visibility_timeout": 60}},
}


class TestAnswers:
    def test_a_task_without_its_arguments(self) -> None:
        look = read_look("celery@a", {"active": [ACTIVE], "reserved": []})
        assert look.active == (ActiveTask("9c1d", "shop.pay", 1_700_000_000.5, 12, True, redelivered=True),)
        assert "4111" not in repr(look)

    def test_stats(self) -> None:
        stats = read_look("celery@a", {"stats": STATS}).stats
        assert stats == NodeStats("celery@a", 10, (12, 13), True, 2, 8, 60.0, {"shop.pay": 3})

    def test_rules_of_tasks(self) -> None:
        lines = ["shop.pay [acks_late=True reject_on_worker_lost=True]", "shop.mail [acks_late=False]", "shop.x"]
        rules = read_look("celery@a", {"registered": lines}).rules
        assert rules == {
            "shop.pay": TaskRules(True, True),
            "shop.mail": TaskRules(False, False),
            "shop.x": TaskRules(False, False),
        }

    @given(
        st.dictionaries(
            st.sampled_from(["active", "reserved", "scheduled", "active_queues", "stats", "registered"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(["id", "name", "pid", "pool", "total", "broker"]), inner, max_size=3
                    )
                ),
            ),
        )
    )
    def test_whatever_a_node_says_is_understood_or_unknown(self, said: dict[str, object]) -> None:
        read_look("celery@a", said)


def _node(name: str, pid: int = 10, processes: tuple[int, ...] = (12, 13)) -> NodeStats:
    return NodeStats(name, pid, processes, True, None, None, None)


class TestWhichNode:
    HERE = frozenset({"web-1"})

    def test_the_pid_and_the_machine_tell(self) -> None:
        here, there = _node("celery@web-1"), _node("celery@web-2")
        assert node_of(10, (12, 13), self.HERE, None, [there, here]) == here

    def test_a_node_elsewhere_with_the_same_pids_is_not_ours(self) -> None:
        """Alone it would be taken for one with a name of its own choice; with ours beside it, it is not."""
        assert node_of(11, (12,), self.HERE, None, [_node("celery@web-2")]) is None
        assert node_of(10, (99,), self.HERE, None, [_node("celery@web-2")]) is None

    def test_two_containers_alike_are_not_told_apart(self) -> None:
        alike = [_node("celery@c1", 1, (7, 8)), _node("celery@c2", 1, (7, 8))]
        assert node_of(1, (7, 8), self.HERE, None, alike) is None
        assert node_of(1, (7, 8), self.HERE | {"c2"}, None, alike) == alike[1]

    def test_its_name_tells(self) -> None:
        both = [_node("orders@web-1"), _node("mail@web-1")]
        assert node_of(10, (12,), self.HERE, "mail@%h", both) is None
        assert node_of(10, (12,), self.HERE, "mail@web-1", both) == both[1]
        assert node_of(10, (12,), self.HERE, "mail", both) == both[1]

    def test_solo_needs_a_name_or_this_machine(self) -> None:
        solo = NodeStats("celery@web-9", 10, (10,), False, 1, None, None)
        assert node_of(10, (), self.HERE, None, [solo]) is None
        assert node_of(10, (), self.HERE, "celery@web-9", [solo]) == solo


class TestFates:
    TASK = ActiveTask("9c1d", "shop.pay", 0.0, 12, False)
    ACKED = ActiveTask("9c1d", "shop.pay", 0.0, 12, True)

    @pytest.mark.parametrize(
        ("rules", "fate"),
        [(TaskRules(True, True), "runs_again"), (TaskRules(True, False), "lost"), (None, "unknown")],
    )
    def test_after_a_child(self, rules: TaskRules | None, fate: str) -> None:
        assert sentences.fate_after_child(self.TASK, rules)[0] == fate
        assert sentences.fate_after_child(self.ACKED, rules)[0] == "lost"

    def test_after_a_node(self) -> None:
        assert sentences.fate_after_node(self.ACKED, on_redis=True, visibility_s=None)[0] == "lost"
        assert sentences.fate_after_node(self.TASK, on_redis=False, visibility_s=None)[0] == "runs_again"
        fate, text = sentences.fate_after_node(self.TASK, on_redis=True, visibility_s=60.0)
        assert fate == "waits"
        assert text.endswith("until the visibility timeout of 1 min 0 s is over, then it runs again.")

    def test_a_lost_task_stands_alone(self) -> None:
        fate = sentences.fate_after_child(self.ACKED, None)[1]
        how = "(pid 4121) died (kernel_oom)"
        assert sentences.lost("shop", self.ACKED, 63.2, how, fate, certain=True) == (
            "Task shop.pay (9c1d) of shop was cut off after 1 min 3 s: its process (pid 4121) died (kernel_oom). "
            "It had been acknowledged when it began, so that nobody runs it again: it is lost."
        )
