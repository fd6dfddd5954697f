"""Laws of the lanes, for any order of births and deaths."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.slots import Predecessor, Slots


@given(st.lists(st.sampled_from(["birth", "unasked death", "asked death"]), max_size=60))
def test_no_two_living_workers_share_a_lane(steps: list[str]) -> None:
    slots = Slots()
    living: dict[int, int] = {}
    generations: dict[int, int] = {}
    owed: list[str] = []
    for number, step in enumerate(steps):
        if step == "birth":
            slot, generation, predecessor = slots.take()
            assert slot not in living
            assert generation == generations.get(slot, 0) + 1
            assert (predecessor is not None) == bool(owed)
            if predecessor is not None:
                assert predecessor.exited_event == owed.pop(0)
            living[slot], generations[slot] = number, generation
        elif living:
            slot, pid = living.popitem()
            slots.leave(slot, Predecessor(pid, str(number), number), owed=step == "unasked death")
            if step == "unasked death":
                owed.append(str(number))


def test_a_master_that_is_gone_owes_nothing() -> None:
    slots = Slots()
    slot, _, _ = slots.take()
    slots.leave(slot, Predecessor(1, "death", 0), owed=True)
    slots.forgive()
    assert slots.take() == (0, 2, None)
