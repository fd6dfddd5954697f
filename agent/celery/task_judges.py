"""What looks at running tasks, and deaths under them, add up to: stuck tasks and poisonous ones. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

STUCK_AFTER_S = 300.0
"""Age from which a task of which little is known may be stuck."""

KNOWN_RUNS = 20
KNOWN_SHARE = 0.2
LONGEST_TIMES = 3.0
"""A task that has run 20 times and more may be stuck from a fifth of that on, but never before 3 times its longest run."""

FLAT_S = 10.0
FLAT_WITHOUT_STACKS_S = 60.0
BLIND_TIMES = 3.0
"""Without stacks a task must be three times as old, and flat for a minute."""

FLAT_SHARE = 0.002
"""CPU of a process that waits, as a share of a core: what it takes to wake for a timer now and then."""

MAX_NAMES = 2_000
POISON_DEATHS = 3
POISON_WINDOW_S = 600.0

Stack = tuple[str, ...]


@dataclass(slots=True)
class Runs:
    """How long tasks run that end well, by name: the longest run that was seen, and how many there were."""

    _longest: OrderedDict[str, float] = field(default_factory=OrderedDict)
    _totals: Mapping[str, int] = field(default_factory=dict)

    def counted(self, totals: Mapping[str, int]) -> None:
        """How many tasks of each name the node has taken so far."""
        self._totals = totals

    def ended(self, name: str, age_s: float) -> None:
        """A task was seen running at this age, and is over now."""
        self._longest[name] = max(age_s, self._longest.get(name, 0.0))
        self._longest.move_to_end(name)
        if len(self._longest) > MAX_NAMES:
            self._longest.popitem(last=False)

    def stuck_after_s(self, name: str, unknown_after_s: float = STUCK_AFTER_S) -> float:
        """The age from which a task of this name may be stuck."""
        is_known = self._totals.get(name, 0) >= KNOWN_RUNS
        at_least_s = unknown_after_s * KNOWN_SHARE if is_known else unknown_after_s
        return max(at_least_s, LONGEST_TIMES * self._longest.get(name, 0.0))


@dataclass(frozen=True, slots=True)
class TaskLook:
    """A running task at one moment. `cpu_s` is what its process and that one's descendants have used; None is unknown.

    `stack` is None where it could not be had, and is only asked for once the CPU is flat.
    """

    age_s: float
    cpu_s: float | None
    stack: Stack | None = None


@dataclass(slots=True)
class Progress:
    """Whether one task makes progress. Stuck is: old, no CPU used for a while, and the same stack twice in a row.

    A task that waits for something slow looks the same; that is why its age must be far beyond what its kind takes.
    Any CPU, or another stack, begins anew. Times in s.
    """

    told: bool = False
    _flat_since_s: float | None = None
    _flat_cpu_s: float = 0.0
    _stack: Stack | None = None
    _stack_at_s: float = 0.0

    def is_flat(self, at_s: float, look: TaskLook) -> bool:
        """Whether nothing has been computed for long enough that its stack is worth a look. Notes the CPU."""
        if look.cpu_s is None:
            self._flat_since_s = None
            return False
        if self._flat_since_s is None or not self._still_flat(at_s, look.cpu_s):
            self._flat_since_s, self._flat_cpu_s, self._stack = at_s, look.cpu_s, None
        return at_s - self._flat_since_s >= FLAT_S

    def step(
        self, at_s: float, look: TaskLook, stuck_after_s: float, *, has_stacks: bool
    ) -> Literal["stuck", "moves"] | None:
        """One look; what it makes of the task, if that is new."""
        flat = self.is_flat(at_s, look)
        if self.told:
            moves = look.cpu_s is not None and self._flat_since_s == at_s
            self.told = not moves
            return "moves" if moves else None
        if not flat or self._flat_since_s is None:
            return None
        if not has_stacks:
            is_old = look.age_s >= BLIND_TIMES * stuck_after_s
            self.told = is_old and at_s - self._flat_since_s >= FLAT_WITHOUT_STACKS_S
        elif look.age_s >= stuck_after_s and look.stack is not None:
            self.told = self._same_stack(at_s, look.stack)
        return "stuck" if self.told else None

    def flat_for_s(self, at_s: float) -> float:
        """For how long no CPU has been used."""
        return 0.0 if self._flat_since_s is None else at_s - self._flat_since_s

    def _still_flat(self, at_s: float, cpu_s: float) -> bool:
        allowed_s = max(FLAT_SHARE * (at_s - (self._flat_since_s or at_s)), 0.02)
        return cpu_s - self._flat_cpu_s <= allowed_s

    def _same_stack(self, at_s: float, stack: Stack) -> bool:
        if stack != self._stack:
            self._stack, self._stack_at_s = stack, at_s
            return False
        return at_s - self._stack_at_s >= FLAT_S


@dataclass(frozen=True, slots=True)
class Died:
    """A death under a task: when (s), and the event that tells it."""

    at_s: float
    event: str
    task_id: str


@dataclass(slots=True)
class Poison:
    """A task under which processes die again and again: three times within ten minutes by the same name."""

    _deaths: OrderedDict[str, deque[Died]] = field(default_factory=OrderedDict)

    def died(self, name: str, death: Died) -> tuple[Died, ...] | None:
        """The deaths that make it poisonous, with this one; the next three must come before it is told again."""
        deaths = self._deaths.setdefault(name, deque(maxlen=POISON_DEATHS))
        self._deaths.move_to_end(name)
        if len(self._deaths) > MAX_NAMES:
            self._deaths.popitem(last=False)
        deaths.append(death)
        if len(deaths) < POISON_DEATHS or death.at_s - deaths[0].at_s > POISON_WINDOW_S:
            return None
        told = tuple(deaths)
        deaths.clear()
        return told
