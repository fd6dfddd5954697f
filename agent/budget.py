"""What the agent itself may cost, and what it gives up to cost no more: samples step by step, events never. Pure.

Every look is judged over a window that began after the last change. CPU over the budget in the window's mean, or memory
over it throughout: one level of samples is shed. Both clearly under it for as long as `patience_s`: one level comes back.
A level that comes back too early is shed again soon; the next try then waits twice as long, so that nothing flaps.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

WINDOW_S = 30.0
"""A judgement needs looks over this long."""

FIRST_PATIENCE_S, MOST_PATIENCE_S = 120.0, 1800.0
RELAPSE_S = 600.0
"""A level that came back and is shed within this long came back too early."""

ALARM_AFTER_S = 300.0
CPU_CALM, MEMORY_CALM = 0.8, 0.95
"""Shares of the budget under which the cost counts as calm."""

MIB = 1024 * 1024

Excess: TypeAlias = Literal["cpu", "memory"]


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU in per cent of one core since the reading before, and resident memory in bytes."""

    cpu_percent: float
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Limits:
    """The budget."""

    cpu_percent: float
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Level:
    """What is still sampled, in words and for the beats; `readings_s` is None where processes are not read at all."""

    samples: str
    readings_s: float | None
    queues: bool = True


LEVELS = (
    Level("everything", 1.0),
    Level("accept queues, and processes every 2 s", 2.0),
    Level("accept queues, and processes every 5 s", 5.0),
    Level("accept queues, and processes every 10 s", 10.0),
    Level("accept queues only", None),
    Level("nothing but its own cost", None, queues=False),
)
"""From all samples to none. The agent's own cost is sampled on every level: five numbers in ten seconds."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one look brought: the level before and after it, what is over the budget, and the window's figures.

    `alarm` is set once when the excess lasts although nothing is left to shed.
    """

    before: int
    level: int
    over: frozenset[Excess]
    cpu_percent: float
    rss_bytes: int
    over_s: float = 0.0
    calm_s: float = 0.0
    alarm: bool = False


class Usage(Protocol):
    """What a process has used so far."""

    @property
    def cpu_ns(self) -> int: ...

    @property
    def rss_bytes(self) -> int: ...


class Processes(Protocol):
    """Where usage is read."""

    def usage(self, pid: int) -> Usage | None: ...


class CostMeter:
    """Reads the cost of one process again and again, the way the cost of others is read."""

    def __init__(self, procfs: Processes, pid: int, now_ns: int) -> None:
        self._procfs = procfs
        self._pid = pid
        self._before_ns = now_ns
        usage = procfs.usage(pid)
        self._cpu_before_ns = usage.cpu_ns if usage is not None else 0

    def read(self, now_ns: int) -> Cost | None:
        """The cost since the reading before; None when it cannot be read or no time has passed."""
        usage = self._procfs.usage(self._pid)
        passed_ns = now_ns - self._before_ns
        if usage is None or passed_ns <= 0:
            return None
        cpu_percent = 100 * (usage.cpu_ns - self._cpu_before_ns) / passed_ns
        self._before_ns, self._cpu_before_ns = now_ns, usage.cpu_ns
        return Cost(round(cpu_percent, 3), usage.rss_bytes)


@dataclass(frozen=True, slots=True)
class _Look:
    """A cost and how long it was so."""

    lasted_s: float
    cost: Cost


class Budget:
    """The state: a level of LEVELS, 0 is everything. Times are of any clock that only rises."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.level = 0
        self.patience_s = FIRST_PATIENCE_S
        self._looked_s: float | None = None
        self._looks: deque[_Look] = deque()
        self._over_since_s: float | None = None
        self._calm_since_s: float | None = None
        self._restored_s: float | None = None
        self._alarmed = False

    def step(self, now_s: float, cost: Cost) -> Verdict | None:
        """Takes one look, which tells of the time since the look before; None while the window is not full.

        The first look only starts the clock: it tells of the agent's start, which costs more than all that follows.
        """
        passed_s = 0.0 if self._looked_s is None else now_s - self._looked_s
        self._looked_s = now_s
        if passed_s <= 0 or not self._fill(_Look(passed_s, cost)):
            return None
        cpu_percent, most_rss = self._mean_cpu(), max(look.cost.rss_bytes for look in self._looks)
        over = self._excess(cpu_percent)
        self._note(now_s, over, is_calm=self._is_calm(cpu_percent, most_rss))
        verdict = Verdict(
            before=self.level,
            level=self._next_level(now_s, over),
            over=over,
            cpu_percent=cpu_percent,
            rss_bytes=cost.rss_bytes,
            over_s=0.0 if self._over_since_s is None else now_s - self._over_since_s,
            calm_s=0.0 if self._calm_since_s is None else now_s - self._calm_since_s,
            alarm=self._is_alarm(now_s),
        )
        self._enter(verdict.level, now_s)
        return verdict

    def _fill(self, look: _Look) -> bool:
        """Takes a look into the window, and what is too old out of it; whether the window is full."""
        self._looks.append(look)
        span_s = sum(one.lasted_s for one in self._looks)
        while span_s - self._looks[0].lasted_s >= WINDOW_S:
            span_s -= self._looks.popleft().lasted_s
        return span_s >= WINDOW_S

    def _mean_cpu(self) -> float:
        span_s = sum(look.lasted_s for look in self._looks)
        return round(sum(look.cost.cpu_percent * look.lasted_s for look in self._looks) / span_s, 3)

    def _excess(self, cpu_percent: float) -> frozenset[Excess]:
        over: set[Excess] = set()
        if cpu_percent > self.limits.cpu_percent:
            over.add("cpu")
        if min(look.cost.rss_bytes for look in self._looks) > self.limits.rss_bytes:
            over.add("memory")
        return frozenset(over)

    def _is_calm(self, cpu_percent: float, most_rss: int) -> bool:
        calm_cpu, calm_rss = CPU_CALM * self.limits.cpu_percent, MEMORY_CALM * self.limits.rss_bytes
        return cpu_percent <= calm_cpu and most_rss <= calm_rss

    def _note(self, now_s: float, over: frozenset[Excess], *, is_calm: bool) -> None:
        """Remembers since when the cost is over the budget or calm, and that a level came back for good."""
        if not over:
            self._over_since_s, self._alarmed = None, False
        elif self._over_since_s is None:
            self._over_since_s = now_s
        if not is_calm:
            self._calm_since_s = None
        elif self._calm_since_s is None:
            self._calm_since_s = now_s
        if self._restored_s is not None and now_s - self._restored_s >= RELAPSE_S:
            self._restored_s, self.patience_s = None, FIRST_PATIENCE_S

    def _next_level(self, now_s: float, over: frozenset[Excess]) -> int:
        if over:
            return min(self.level + 1, len(LEVELS) - 1)
        if self._calm_since_s is not None and now_s - self._calm_since_s >= self.patience_s:
            return max(self.level - 1, 0)
        return self.level

    def _enter(self, level: int, now_s: float) -> None:
        """A change empties the window: what was measured before it says nothing of the new level."""
        if level == self.level:
            return
        if level < self.level:
            self._restored_s = now_s
        elif self._restored_s is not None:
            self.patience_s, self._restored_s = min(2 * self.patience_s, MOST_PATIENCE_S), None
        self.level = level
        self._looks.clear()
        self._calm_since_s = None

    def _is_alarm(self, now_s: float) -> bool:
        """Once for an excess that lasts with nothing left to shed."""
        if self._alarmed or self._over_since_s is None or self.level < len(LEVELS) - 1:
            return False
        self._alarmed = now_s - self._over_since_s >= ALARM_AFTER_S
        return self._alarmed
