"""The kernel's own counts of OOM kills, and how they compare with what was told. Pure.

The kernel counts every process that its OOM killer kills: for the host (vmstat) and for each memory cgroup. The counts
say how many, never who. They serve where the kernel's OOM records cannot be had, and check them where they can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counted:
    """All counts at one moment: processes killed on the host, and in the memory cgroups of services, by path.

    `nested` when the count of a cgroup has those of the cgroups below it in it (version 2). `group_kills` is how often
    on the host all processes of a cgroup had to die together: the kernel counts the first of them twice.
    """

    at_us: int
    kills: int
    group_kills: int
    cgroups: Mapping[str, int]
    nested: bool


@dataclass(frozen=True, slots=True)
class Rise:
    """By how much the counts rose between two moments: in each cgroup that rose, not below it, and elsewhere."""

    since_us: int
    cgroups: Mapping[str, int]
    elsewhere: int


def rise(before: Counted, after: Counted) -> Rise:
    """What was killed between two moments. A cgroup that was not counted before has no rise: its kills are elsewhere."""
    rises = {path: kills - before.cgroups[path] for path, kills in after.cgroups.items() if path in before.cgroups}
    rises = {path: new if new >= 0 else after.cgroups[path] for path, new in rises.items()}
    own = {path: new - _below(path, rises) for path, new in rises.items()} if after.nested else rises
    own = {path: new for path, new in own.items() if new > 0}
    return Rise(before.at_us, own, max(after.kills - before.kills - sum(own.values()), 0))


def _below(path: str, rises: Mapping[str, int]) -> int:
    """The rises of the nearest cgroups below."""
    inside = [other for other in rises if other.startswith(f"{path}/")]
    return sum(rises[one] for one in inside if not any(one.startswith(f"{other}/") for other in inside))


@dataclass(frozen=True, slots=True)
class Difference:
    """What two counts of one thing differ by since they last agreed: `missing` is above 0 where less was told than
    counted, below 0 where more was told.
    """

    counted: int
    told: int
    missing: int
    since_us: int


@dataclass(slots=True)
class Balance:
    """Kills counted against kills told, for the host or for one cgroup, since they last agreed.

    A kill is counted a moment before it is told. So what one comparison finds counted is missing only if the next one
    does not find it told.
    """

    counted: int
    told: int
    since_us: int
    is_open: bool = False
    """Whether the last comparison left something for the next."""

    _counted_before: int = 0
    _told_before: int = 0

    def compare(self, counted: int, told: int, now_us: int) -> Difference | None:
        """What was counted, or told, at the comparison before, and is not told, or counted, even now."""
        new_counted, new_told = counted - self.counted, told - self.told
        lack, surplus = self._counted_before - new_told, self._told_before - new_counted
        found = None
        if lack > 0:
            found = Difference(self._counted_before, new_told, lack, self.since_us)
            self.counted += lack
        elif surplus > 0:
            found = Difference(new_counted, self._told_before, -surplus, self.since_us)
            self.told += surplus
        self.is_open = counted - self.counted != told - self.told
        if not self.is_open:
            self.counted, self.told, self.since_us = counted, told, now_us
        self._counted_before, self._told_before = counted - self.counted, told - self.told
        return found
