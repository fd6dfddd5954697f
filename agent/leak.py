"""Whether a process's memory grows without end: a trend test that would rather say nothing. Pure.

A series keeps the least memory of each bucket of time: what garbage collection and request peaks come back to. All
buckets are of one length, which doubles when there are too many, so that minutes and days fit in the same room.

The trend is that of the tail, the last two thirds of the series: what boots, warms up or fills a cache comes before it.
Its slope is Theil's (1950) and Sen's (1968), the median of the slopes between all pairs of buckets; its lower bound is Sen's
for Kendall's rank statistic at the one-sided level LEVEL_Z; Mann (1945) and Kendall (1975) give the test against no trend.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import sqrt

BUCKETS = 48
FIRST_BUCKET_S = 2.0
LONGEST_BUCKET_S = 1800.0
LEAST_TAIL = 12
LEVEL_Z = 3.7
"""Quantile of the normal distribution: one false trend in 10,000 looks at memory that wavers without one."""

LEAST_GROWTH_BYTES = 16 * 1024 * 1024
LEAST_GROWTH_SHARE = 0.15
STEADY_SHARE = 0.6
"""The last third of the tail must grow at least by this share of what the first third grew: growth that levels off is none."""

PARTS = 6
LEAST_RISE = 0.25
"""Each of the tail's PARTS must rise over the one before by this share of the mean rise: a few large steps are caches and
reloads, not a leak."""


@dataclass(frozen=True, slots=True)
class Leak:
    """A steady growth: slope and its lower bound in bytes per second, over `seconds`, by `grown_bytes`, to `bytes`."""

    slope: float
    slope_at_least: float
    seconds: float
    grown_bytes: int
    bytes: int
    z: float


LONG_S = 6 * 3600.0
HORIZON_S = 24 * 3600.0


def will_fill(leaks: Sequence[Leak], left_bytes: int) -> bool:
    """Whether what grows together will use up what is left, as far as what was seen allows to say.

    A trend is believed as far ahead as it was seen to last, so at least half of the room is gone by then. One that has
    lasted LONG_S is believed for HORIZON_S: a ramp of the morning or a cache that fills ends before.
    """
    time_left_s = seconds_left(leaks, left_bytes)
    if time_left_s is None:
        return False
    seen_s = min(leak.seconds for leak in leaks)
    return time_left_s <= seen_s or (seen_s >= LONG_S and time_left_s <= HORIZON_S)


def seconds_left(leaks: Sequence[Leak], left_bytes: int) -> float | None:
    """Time until what is left is used up: the room over the sum of the slopes; None without growth."""
    slope = sum(leak.slope for leak in leaks)
    return left_bytes / slope if slope > 0 else None


class Series:
    """The memory of one process over its life."""

    def __init__(self) -> None:
        self.bucket_s = FIRST_BUCKET_S
        self._buckets: deque[int] = deque()
        self._open_until_s: float | None = None
        self._least = self._last = 0

    def __len__(self) -> int:
        return len(self._buckets)

    def add(self, now_s: float, memory_bytes: int) -> bool:
        """Takes a reading; whether a bucket was closed by it. A gap without readings is time without change."""
        if self._open_until_s is None:
            self._open_until_s, self._least, self._last = now_s + self.bucket_s, memory_bytes, memory_bytes
            return False
        closed = False
        while now_s >= self._open_until_s:
            self._close()
            self._least, closed = self._last, True
        self._least, self._last = (memory_bytes if closed else min(self._least, memory_bytes)), memory_bytes
        return closed

    def leak(self) -> Leak | None:
        """The growth that the tail shows, if it is one beyond doubt."""
        tail = list(self._buckets)[len(self._buckets) // 3 :]
        n = len(tail)
        if n < LEAST_TAIL:
            return None
        grown = tail[-1] - tail[0]
        if grown < max(LEAST_GROWTH_BYTES, LEAST_GROWTH_SHARE * tail[0]) or not _is_steady(tail):
            return None
        z, spread = _kendall(tail)
        if z < LEVEL_Z:
            return None
        slopes = sorted((tail[b] - tail[a]) / (b - a) for a, b in combinations(range(n), 2))
        lower = slopes[max(int((len(slopes) - LEVEL_Z * spread) / 2), 0)] / self.bucket_s
        slope = slopes[len(slopes) // 2] / self.bucket_s
        return Leak(slope, lower, (n - 1) * self.bucket_s, grown, tail[-1], z) if lower > 0 else None

    def _close(self) -> None:
        assert self._open_until_s is not None
        self._buckets.append(self._least)
        if len(self._buckets) > BUCKETS:
            if self.bucket_s < LONGEST_BUCKET_S:
                self._halve()
            else:
                self._buckets.popleft()
        self._open_until_s += self.bucket_s

    def _halve(self) -> None:
        """Two buckets become one; an odd one at the beginning is given up."""
        values = list(self._buckets)[len(self._buckets) % 2 :]
        self._buckets = deque(min(pair) for pair in zip(values[::2], values[1::2], strict=True))
        self.bucket_s *= 2


def _is_steady(tail: list[int]) -> bool:
    """Whether the growth goes on to the end, in every part."""
    third = len(tail) // 3
    first, last = tail[third] - tail[0], tail[-1] - tail[-1 - third]
    bounds = [len(tail) * part // PARTS for part in range(PARTS + 1)]
    lows = [min(tail[a:b]) for a, b in pairwise(bounds)]
    least_rise = LEAST_RISE * (lows[-1] - lows[0]) / (PARTS - 1)
    return last > 0 and last >= STEADY_SHARE * first and all(b - a >= least_rise for a, b in pairwise(lows))


def _kendall(values: list[int]) -> tuple[float, float]:
    """Kendall's statistic as a normal deviate, and the standard deviation of the statistic (ties corrected)."""
    n = len(values)
    s = sum((b > a) - (b < a) for a, b in combinations(values, 2))
    ties: dict[int, int] = {}
    for value in values:
        ties[value] = ties.get(value, 0) + 1
    variance = n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties.values())
    spread = sqrt(variance / 18) if variance > 0 else 0.0
    return ((s - 1) / spread if s > 0 and spread else 0.0), spread
