"""The lanes of a service: a replacement takes the lane of the worker that it replaces. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MOST_LANES = 10_000


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The worker whose death left a lane empty, and the event that told of it."""

    pid: int
    exited_event: str
    exited_us: int


@dataclass(slots=True)
class _Lane:
    generation: int = 0
    taken: bool = False
    owed: Predecessor | None = None


class Slots:
    """The lanes of one service, numbered from 0."""

    def __init__(self) -> None:
        self._lanes: list[_Lane] = []
        self._owed: list[int] = []

    def take(self) -> tuple[int, int, Predecessor | None]:
        """A lane for a new worker: its number, its generation from 1, and whom the worker replaces.

        Lanes whose worker died unasked come first, oldest death first: the master replaces those. Without such a
        lane the worker is an addition, and takes the lowest lane that is free.
        """
        if self._owed:
            slot = self._owed.pop(0)
        else:
            slot = next((i for i, lane in enumerate(self._lanes) if not lane.taken), len(self._lanes))
            if slot == len(self._lanes):
                self._lanes.append(_Lane())
        lane = self._lanes[slot]
        predecessor, lane.owed = lane.owed, None
        lane.taken = True
        lane.generation += 1
        return slot, lane.generation, predecessor

    def take_again(self, slot: int, generation: int) -> tuple[int, int, Predecessor | None]:
        """The lane that a worker is known to have stood in; another one where that is taken or makes no sense."""
        if not 0 <= slot < MOST_LANES or (slot < len(self._lanes) and self._lanes[slot].taken):
            return self.take()
        while len(self._lanes) <= slot:
            self._lanes.append(_Lane())
        self._owed = [one for one in self._owed if one != slot]
        self._lanes[slot] = _Lane(generation, taken=True)
        return slot, generation, None

    def leave(self, slot: int, predecessor: Predecessor, *, owed: bool) -> None:
        """The lane's worker died; `owed` says that the master is expected to replace it."""
        lane = self._lanes[slot]
        lane.taken = False
        if owed:
            lane.owed = predecessor
            self._owed.append(slot)

    def owed_since(self, us: int) -> int:
        """How many workers the master still owes that died since then (UTC, us)."""
        owed = (self._lanes[slot].owed for slot in self._owed)
        return sum(one is not None and one.exited_us >= us for one in owed)

    def forgive(self) -> None:
        """No replacement is expected any more: the master that owed them is gone."""
        for slot in self._owed:
            self._lanes[slot].owed = None
        self._owed.clear()
