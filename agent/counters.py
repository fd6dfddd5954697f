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
    """Kills counted against kills told, for the host or for one cgroup.

    A kill is counted a moment before it is told, so a difference counts only once a second comparison finds it again.
    """

    counted: int
    told: int
    since_us: int
    suspected: int = 0

    def compare(self, counted: int, told: int, now_us: int) -> Difference | None:
        """The difference that this comparison and the one before have in common, if any; it is then settled."""
        found = Difference(counted - self.counted, told - self.told, self._missing(counted, told), self.since_us)
        common = _common(found.missing, self.suspected)
        self.suspected = found.missing - common
        if not self.suspected:
            self.counted, self.told, self.since_us = counted, told, now_us
        elif common:
            self.counted += common
        return Difference(found.counted, found.told, common, found.since_us) if common else None

    def _missing(self, counted: int, told: int) -> int:
        return (counted - self.counted) - (told - self.told)


def _common(one: int, other: int) -> int:
    """What two numbers of one sign share; 0 for numbers of different signs."""
    if one > 0 < other:
        return min(one, other)
    return max(one, other) if one < 0 > other else 0
