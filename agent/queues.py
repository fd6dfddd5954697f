"""What readings of accept queues say: about each second, about waits, and when a queue is full or has room again. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from agent.kernel.queues import QueueReading

WINDOW_S = 5
FULL_SECONDS = 2
"""A queue is saturated when it was full in this many of the last WINDOW_S seconds."""

MAX_CALM_S = 80
FLAP_US = 600_000_000
"""A queue that fills again within this time must be calm for twice as long as the last time, up to MAX_CALM_S."""

ESTIMATE_S = 10
"""A mean wait is estimated over this many seconds: fewer have too few arrivals."""

Change = Literal["saturated", "recovered"]


@dataclass(frozen=True, slots=True)
class QueueSecond:
    """One queue between two readings, about a second apart; the fields are those of QueueReading, as differences.

    `depth` is the deepest that was seen, `depth_at_most` a bound of it where it is not known.
    """

    depth: int | None = None
    depth_at_most: int | None = None
    limit: int | None = None
    arrivals: int | None = None
    found_waiting: int | None = None
    accepts: int | None = None
    waited_ns: int | None = None
    longest_wait_ns: int = 0
    waits: tuple[int, ...] | None = None
    turned_away: int | None = None
    blocked: int | None = None

    @property
    def had_traffic(self) -> bool:
        """Whether there is anything to tell."""
        return any((self.depth, self.arrivals, self.accepts, self.turned_away, self.blocked))

    @property
    def is_full(self) -> bool:
        """Somebody found no room, or nobody would: a queue of limit 5 holds 6."""
        if self.turned_away or self.blocked:
            return True
        return self.depth is not None and self.limit is not None and self.depth > self.limit

    @property
    def is_calm(self) -> bool:
        """For certain less than half full, and nobody found it otherwise."""
        if self.depth_at_most is None or self.limit is None or self.turned_away or self.blocked:
            return False
        return 2 * self.depth_at_most < max(self.limit, 1)


def between(before: QueueReading, now: QueueReading, *, after: int, until: int) -> QueueSecond:
    """What happened between two readings. Of the extremes those of the seconds `after` < second <= `until` count.

    Where drops are counted whatever their reason, those of a queue that was not full have turned nobody away. Between
    two looks a queue can be deeper than both: then half full is enough to believe them.
    """
    seconds = [seen for seen in now.seconds if after < seen.second <= until]
    depths = [seen.depth for seen in seconds] + ([now.depth] if now.depth is not None else [])
    bounds = [*depths, *([now.depth_at_most] if now.depth_at_most is not None else [])]
    limit = max(seconds, key=lambda seen: seen.second).limit if seconds else now.limit
    may_be_full = limit is None or max(bounds, default=limit) >= (limit if now.arrivals is not None else limit / 2)
    return QueueSecond(
        depth=max(depths, default=None),
        depth_at_most=max(bounds) if now.depth_at_most is not None else None,
        limit=limit,
        arrivals=_risen(before.arrivals, now.arrivals),
        found_waiting=_risen(before.found_waiting, now.found_waiting),
        accepts=_risen(before.accepts, now.accepts),
        waited_ns=_risen(before.waited_ns, now.waited_ns),
        longest_wait_ns=max((seen.longest_wait_ns for seen in seconds), default=0),
        waits=None if now.waits is None else _less(now.waits, before.waits),
        turned_away=_risen(before.turned_away, now.turned_away) if may_be_full or not now.any_reason else 0,
        blocked=_risen(before.blocked, now.blocked),
    )


def together(queues: Sequence[QueueSecond]) -> QueueSecond:
    """The queues of one address (reuse_port) as one: the fullest decides the depth, all else adds up."""
    if len(queues) == 1:
        return queues[0]
    fullest = max(queues, key=lambda queue: (queue.depth or 0) / max(queue.limit or 0, 1))
    bounds = [queue.depth_at_most for queue in queues]
    return QueueSecond(
        depth=fullest.depth,
        depth_at_most=None if None in bounds else max((bound for bound in bounds if bound is not None), default=None),
        limit=fullest.limit,
        arrivals=_total([queue.arrivals for queue in queues]),
        found_waiting=_total([queue.found_waiting for queue in queues]),
        accepts=_total([queue.accepts for queue in queues]),
        waited_ns=_total([queue.waited_ns for queue in queues]),
        longest_wait_ns=max((queue.longest_wait_ns for queue in queues), default=0),
        waits=_added([queue.waits for queue in queues if queue.waits is not None]),
        turned_away=_total([queue.turned_away for queue in queues]),
        blocked=_total([queue.blocked for queue in queues]),
    )


def percentile_ms(second: QueueSecond, share: float) -> float | None:
    """The wait that `share` of the accepts did not exceed, in ms, as the upper bound of its histogram bucket.

    The bound is up to twice the true value, and never more than the longest wait. None without accepts.
    """
    total = sum(second.waits or ())
    if not total:
        return None
    seen = 0
    for bucket, count in enumerate(second.waits or ()):
        seen += count
        if seen >= share * total:
            longest_ms = second.longest_wait_ns / 1e6
            return min(_bound_ms(bucket), longest_ms) if longest_ms > _bound_ms(bucket - 1) else _bound_ms(bucket)
    return None


def mean_wait_ms(second: QueueSecond) -> float | None:
    """The mean of all waits that ended in the second; None without accepts."""
    return second.waited_ns / second.accepts / 1e6 if second.waited_ns is not None and second.accepts else None


@dataclass(slots=True)
class WaitEstimate:
    """The mean wait by Little's law, W = L / λ, from what arrivals found (PASTA: they see the time average).

    Arrivals that come in bursts see each other, so that the estimate is rather too high than too low.
    """

    _seconds: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=ESTIMATE_S))

    def step(self, second: QueueSecond) -> float | None:
        """The estimate in ms after this second; None while nothing arrived or found is not counted."""
        if second.arrivals is None or second.found_waiting is None:
            return None
        self._seconds.append((second.arrivals, second.found_waiting))
        arrivals = sum(arrived for arrived, _ in self._seconds)
        found = sum(found for _, found in self._seconds)
        if not arrivals:
            return None
        return found / arrivals / (arrivals / len(self._seconds)) * 1000


@dataclass(slots=True)
class Saturation:
    """Whether one queue is saturated: full in FULL_SECONDS of the last WINDOW_S seconds, until it has been calm.

    While it lasts, `turned_away`, `blocked`, `deepest` and `longest_wait_ns` gather; `calm_needed_s` doubles when the
    queue flaps, so that a flapping queue tells less and less often, and that it is still saturated.
    """

    since_us: int | None = None
    recovered_us: int = -FLAP_US
    calm_needed_s: int = WINDOW_S
    turned_away: int = 0
    blocked: int = 0
    deepest: int = 0
    longest_wait_ns: int = 0
    _full: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW_S))
    _gathered: deque[QueueSecond] = field(default_factory=lambda: deque(maxlen=WINDOW_S))
    _calm_s: int = 0

    def step(self, second: QueueSecond, now_us: int) -> Change | None:
        """What changed in this second, if anything."""
        self._calm_s = self._calm_s + 1 if second.is_calm else 0
        if self.since_us is not None:
            self._gather(second)
            if self._calm_s < self.calm_needed_s:
                return None
            self.since_us, self.recovered_us = None, now_us
            self._full.clear()
            self._gathered.clear()
            return "recovered"
        self._full.append(second.is_full)
        self._gathered.append(second)
        if sum(self._full) < FULL_SECONDS:
            return None
        self._begin(now_us)
        return "saturated"

    def _begin(self, now_us: int) -> None:
        flaps = now_us - self.recovered_us < FLAP_US
        self.calm_needed_s = min(2 * self.calm_needed_s, MAX_CALM_S) if flaps else WINDOW_S
        self.since_us = now_us
        self.turned_away = self.blocked = self.deepest = self.longest_wait_ns = 0
        for second in self._gathered:
            self._gather(second)

    def _gather(self, second: QueueSecond) -> None:
        self.turned_away += second.turned_away or 0
        self.blocked += second.blocked or 0
        self.deepest = max(self.deepest, second.depth or 0)
        self.longest_wait_ns = max(self.longest_wait_ns, second.longest_wait_ns)


def _bound_ms(bucket: int) -> float:
    """The upper bound of a bucket of the histogram."""
    return 2.0**bucket / 1000


def _risen(before: int | None, now: int | None) -> int | None:
    return None if now is None else max(now - (before or 0), 0)


def _less(now: tuple[int, ...], before: tuple[int, ...] | None) -> tuple[int, ...]:
    return now if before is None else tuple(new - old for new, old in zip(now, before, strict=True))


def _total(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _added(histograms: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
    return tuple(map(sum, zip(*histograms, strict=True))) if histograms else None
