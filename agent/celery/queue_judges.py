"""What looks at a queue add up to: a backlog, a consumer that is silent, how long the next message has waited. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

PARTS = 4
LEAST_POINTS = 8
LEAST_GROWTH = 20
"""Tasks by which a queue must have grown over the window."""

CALM_LOOKS = 3
DRAINED_SHARE = 0.1
MAX_POINTS = 1_000

SILENT_LOOKS = 4
SILENT_S = 15.0
"""So many looks in a row, over so long at least, must show a consumer silent."""


@dataclass(slots=True)
class Backlog:
    """A queue grows faster than it is consumed if its length rises through all four quarters of the window.

    Each quarter speaks by its median, must rise by a tenth of the whole growth, and the growth must be worth a word: a
    burst rises once, and is no backlog while it is worked off. It is over when the queue is back at the length from
    which it grew, or at a tenth of its longest, three looks in a row. Times in s on any clock.
    """

    window_s: float = 120.0
    since_s: float | None = None
    first: int = 0
    longest: int = 0
    rate: float = 0.0
    seen_s: float = 0.0
    _points: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=MAX_POINTS))
    _calm: int = 0

    def step(self, at_s: float, length: int) -> Literal["grows", "over"] | None:
        """One look; what it makes of the queue, if that is new. `rate` is then its growth in tasks a second."""
        self._points.append((at_s, length))
        while at_s - self._points[0][0] > self.window_s:
            self._points.popleft()
        if self.since_s is not None:
            return self._until_over(length)
        quarters = self._quarters(at_s)
        if not _rises(quarters):
            return None
        self.since_s, self.first, self.longest, self._calm = self._points[0][0], int(quarters[0]), length, 0
        self.seen_s = at_s - self.since_s
        self.rate = (quarters[-1] - quarters[0]) / (self.window_s * (PARTS - 1) / PARTS)
        return "grows"

    def _until_over(self, length: int) -> Literal["over"] | None:
        self.longest = max(self.longest, length)
        is_calm = length <= max(self.first, self.longest * DRAINED_SHARE)
        self._calm = self._calm + 1 if is_calm else 0
        if self._calm < CALM_LOOKS:
            return None
        self.since_s = None
        self._points.clear()
        return "over"

    def _quarters(self, at_s: float) -> tuple[float, ...]:
        """The median length of each quarter of the window; nothing while the window is not filled."""
        if len(self._points) < LEAST_POINTS or at_s - self._points[0][0] < self.window_s * (PARTS - 1) / PARTS:
            return ()
        starts = [at_s - self.window_s + self.window_s * part / PARTS for part in range(PARTS + 1)]
        parts = [
            [length for point_s, length in self._points if starts[part] <= point_s < starts[part + 1]]
            for part in range(PARTS - 1)
        ]
        parts.append([length for point_s, length in self._points if point_s >= starts[PARTS - 1]])
        return tuple(_median(part) for part in parts) if all(parts) else ()


def _median(lengths: Sequence[int]) -> float:
    """The standard library's comes with 5 MB of other statistics."""
    ordered, middle = sorted(lengths), len(lengths) // 2
    return float(ordered[middle]) if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _rises(quarters: Sequence[float]) -> bool:
    if not quarters:
        return False
    growth = quarters[-1] - quarters[0]
    steps = [later - earlier for earlier, later in pairwise(quarters)]
    return growth >= LEAST_GROWTH and all(step >= growth / 10 for step in steps)


@dataclass(frozen=True, slots=True)
class ConsumerLook:
    """A queue and one node that should consume it. None is what could not be found out.

    `is_idle`: it runs and holds no task. `consumes`: it waits for messages of this queue.
    """

    length: int | None
    is_idle: bool | None
    consumes: bool | None

    @property
    def is_silent(self) -> bool:
        """Whether tasks wait although the node is free and asks for none."""
        return bool(self.length) and self.is_idle is True and self.consumes is False

    @property
    def is_back(self) -> bool:
        """Whether the node asks for messages, or got one."""
        return self.consumes is True or self.is_idle is False


@dataclass(slots=True)
class Silence:
    """A node that is alive and idle while its queue is not empty, does not shrink, and has no reader in it.

    Four such looks in a row, over 15 s at least, make it silent. A look that does not know begins anew.
    """

    since_s: float | None = None
    first: int = 0
    looks: int = 0
    told: bool = False

    def step(self, at_s: float, look: ConsumerLook) -> Literal["silent", "back"] | None:
        """One look; what it makes of the node, if that is new."""
        if self.told:
            if not look.is_back:
                return None
            self.told, self.looks, self.since_s = False, 0, None
            return "back"
        if not look.is_silent or look.length is None:
            self.looks, self.since_s = 0, None
            return None
        if self.since_s is None or look.length < self.first:
            self.since_s, self.first, self.looks = at_s, look.length, 0
        self.looks += 1
        if self.looks < SILENT_LOOKS or at_s - self.since_s < SILENT_S:
            return None
        self.told = True
        return "silent"


@dataclass(slots=True)
class Waiting:
    """How long the message that is next in line has waited, at least: since it was sent, or else since it was seen."""

    tag: str | None = None
    since_s: float = 0.0

    def step(self, now_s: float, tag: str | None, published_s: float | None) -> float | None:
        """Its wait in s; None where the broker names no message. `now_s` and `published_s` are Unix time."""
        if published_s is not None:
            return max(now_s - published_s, 0.0)
        if tag is None:
            self.tag = None
            return None
        if tag != self.tag:
            self.tag, self.since_s = tag, now_s
        return now_s - self.since_s
