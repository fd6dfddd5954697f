"""Whose smaps_rollup is read next: all looks together keep to their budget, and nobody is forgotten."""

from __future__ import annotations

from itertools import pairwise
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from agent.pss import BUDGET_SHARE, LARGEST_PART, PAUSE_S, QUIET_S, SAVED_MOST_S, Ident, PssPlan

MIB = 1024 * 1024


def play(plan: PssPlan, rss_bytes: dict[Ident, int], costs_s: dict[Ident, float], now_s: float) -> list[Ident]:
    """One beat: looks until the plan has enough."""
    looked = []
    for ident in plan.due(rss_bytes, now_s):
        if not plan.has_budget(now_s):
            break
        plan.looked(ident, rss_bytes[ident], at_s=now_s, cost_s=costs_s[ident])
        looked.append(ident)
    return looked


def crowd(size: int, rss_bytes: int = 50 * MIB) -> dict[Ident, int]:
    return {(pid, 7): rss_bytes for pid in range(size)}


def test_everybody_has_a_first_look_as_the_budget_allows() -> None:
    rss = crowd(60)
    plan, cost = PssPlan(0), dict.fromkeys(rss, 0.0005)
    seen: list[Ident] = []
    beats = 0
    while len(seen) < 60:
        seen += play(plan, rss, cost, now_s=30.0 * beats)
        beats += 1
    assert sorted(seen) == sorted(rss)
    assert beats == ceil(60 * 0.0005 / SAVED_MOST_S)


def test_a_process_whose_memory_does_not_move_is_left_alone_for_long() -> None:
    rss = crowd(1)
    plan, cost = PssPlan(0), dict.fromkeys(rss, 0.001)
    looks = [at for at in range(0, 1000, 10) if play(plan, rss, cost, now_s=at)]
    assert looks == [0, QUIET_S, 2 * QUIET_S, 3 * QUIET_S]


def test_a_process_whose_memory_moves_is_looked_at_again_after_the_pause() -> None:
    plan, cost = PssPlan(0), {(1, 7): 0.0005}
    looks = [at for at in range(100) if play(plan, {(1, 7): 50 * MIB + at * MIB}, cost, now_s=at)]
    assert looks == [at for at in range(100) if at % PAUSE_S == 0]


def test_a_huge_process_takes_a_quarter_of_the_budget_and_no_more() -> None:
    huge, small = (1, 7), (2, 7)
    plan, cost = PssPlan(0), {huge: 0.1, small: 0.0001}
    looks: list[tuple[int, Ident]] = []
    for at in range(0, 4000, 30):
        moving = (100 + at % 60) * MIB
        rss = {huge: moving, small: moving}
        looks += [(at, ident) for ident in play(plan, rss, cost, now_s=at)]
    times = [at for at, ident in looks if ident == huge]
    assert [later - earlier for earlier, later in pairwise(times)] == [
        30 * ceil(0.1 / (LARGEST_PART * BUDGET_SHARE) / 30)
    ] * (len(times) - 1)
    assert len([at for at, ident in looks if ident == small]) > 100


def test_a_successor_with_the_same_pid_has_a_first_look_of_its_own() -> None:
    plan = PssPlan(0)
    play(plan, {(1, 7): MIB}, {(1, 7): 0.001}, now_s=0)
    plan.forget_others({(1, 8): MIB})
    assert play(plan, {(1, 8): MIB}, {(1, 8): 0.001}, now_s=10) == [(1, 8)]


@given(
    costs_s=st.lists(st.floats(0.00001, 0.2), min_size=1, max_size=30),
    steps_s=st.lists(st.floats(0.1, 30), min_size=1, max_size=60),
)
def test_all_looks_together_never_use_more_than_the_budget_and_the_last_look(
    costs_s: list[float], steps_s: list[float]
) -> None:
    rss = crowd(len(costs_s))
    cost = dict(zip(rss, costs_s, strict=True))
    plan, now_s, used_s = PssPlan(0), 0.0, 0.0
    for step_s in steps_s:
        now_s += step_s
        rss = {ident: size + MIB for ident, size in rss.items()}
        used_s += sum(cost[ident] for ident in play(plan, rss, cost, now_s))
        assert used_s <= SAVED_MOST_S + BUDGET_SHARE * now_s + max(costs_s)
