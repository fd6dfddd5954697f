"""From readings of processes to what is told of them: rates, and which values moved enough to be worth sending. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from agent.kernel.readings import Moved, Reading, ReadingStep

MOST_AGE_S = float(ReadingStep.RENEWAL_S)
"""A value that does not move is told again before it is older than this: a longer gap means that there is no agent."""


@dataclass(frozen=True, slots=True)
class Step:
    """How far a value may move untold: by `least`, or by `share` of the value told last where that is more."""

    least: float
    share: float = 0.0


_MEMORY = Step(ReadingStep.STEP_BYTES, 1 / ReadingStep.STEP_PARTS)
_PERCENT = Step(ReadingStep.QUIET_CPU_NS / 1e7, 0.05)
_SWITCHES = Step(ReadingStep.QUIET_SWITCHES, 0.1)

STEPS: Mapping[str, Step] = {
    "worker.rss_anon_bytes": _MEMORY,
    "worker.rss_file_bytes": _MEMORY,
    "worker.rss_shmem_bytes": _MEMORY,
    "worker.swap_bytes": _MEMORY,
    "worker.threads": Step(0),
    "worker.cpu_percent": _PERCENT,
    "worker.run_delay_percent": _PERCENT,
    "worker.minor_faults": Step(ReadingStep.QUIET_MINOR_FAULTS, 0.1),
    "worker.major_faults": Step(0.5, 0.1),
    "worker.ctx_voluntary": _SWITCHES,
    "worker.ctx_involuntary": _SWITCHES,
    "worker.accepts_per_s": Step(0.5, 0.1),
}
"""The metrics of a reading, in the order of `values_of`, each with its step."""

FIRST_RATE = 5
METRICS = tuple(STEPS)


def values_of(before: Reading | None, now: Reading, passed_s: float) -> Sequence[float | None]:
    """The values of METRICS; rates are those between two readings `passed_s` apart. None is what is not known."""
    _, cpu, delay, anon, file, shmem, swap, minor, major, voluntary, involuntary, _, threads, accepts = now
    if before is None or passed_s <= 0:
        return anon, file, shmem, swap, threads, None, None, None, None, None, None, None
    _, old_cpu, old_delay, _, _, _, _, old_minor, old_major, old_voluntary, old_involuntary, _, _, old_accepts = before
    per_s, percent = 1 / passed_s, 100 / (passed_s * 1e9)
    return (
        anon,
        file,
        shmem,
        swap,
        threads,
        _rate(old_cpu, cpu, percent),
        _rate(old_delay, delay, percent),
        _rate(old_minor, minor, per_s),
        _rate(old_major, major, per_s),
        _rate(old_voluntary, voluntary, per_s),
        _rate(old_involuntary, involuntary, per_s),
        _rate(old_accepts, accepts, per_s),
    )


class Told:
    """What the receiver knows of one process: never a value that is off by more than the value's step.

    That holds for a process of which nothing is handed over, too: the kernel watches the same steps.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = tuple(steps)
        self._forget()

    def step(self, values: Sequence[float | None], *, renews: bool, settles: bool = False) -> list[tuple[int, float]]:
        """What has to be told now: places in `values`, each with the value. The flags are those of Moved."""
        if renews:
            self._forget()
        elif settles:
            self._forget_busy_rates()
        told = []
        for place, (value, lowest, highest) in enumerate(zip(values, self._lowest, self._highest, strict=True)):
            if value is None:
                self._lowest[place], self._highest[place] = inf, -inf
            elif not lowest <= value <= highest:
                told.append((place, self._remember(place, value)))
        return told

    def _forget(self) -> None:
        """From here on any value has to be told."""
        self._lowest = [inf] * len(self._steps)
        self._highest = [-inf] * len(self._steps)

    def _remember(self, place: int, value: float) -> float:
        """The value as it is told."""
        value = round(value, 2)
        step = self._steps[place]
        leeway = max(step.least, step.share * abs(value))
        self._lowest[place], self._highest[place] = value - leeway, value + leeway
        return value

    def _forget_busy_rates(self) -> None:
        """No rate that was told may be off by more than its step when the process goes on doing nothing."""
        for place in range(FIRST_RATE, len(self._lowest)):
            if self._lowest[place] > 0:
                self._lowest[place], self._highest[place] = inf, -inf


class Follower:
    """Makes of readings what the kernel's iterator hands over, but never leaves out a process that is quiet."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[Reading, float, float]] = {}

    def follow(self, readings: Iterable[Reading], now_s: float) -> list[Moved]:
        """The readings of all processes there are at a time of any clock that only rises."""
        known: dict[tuple[int, int], tuple[Reading, float, float]] = {}
        moved = []
        for reading in readings:
            ident = (reading.pid, reading.start_ns)
            before, seen_s, renewal_s = self._known.get(ident, (None, now_s, now_s))
            passed_s = now_s - seen_s
            if before is None:
                renews, renewal_s = True, now_s + reading.pid % ReadingStep.RENEWAL_S
            elif renews := now_s + 1.5 * passed_s > renewal_s:
                renewal_s = now_s + MOST_AGE_S
            known[ident] = (reading, now_s, renewal_s)
            moved.append(Moved(before, reading, passed_s, renews, settles=False))
        self._known = known
        return moved


def _rate(before: int | None, now: int | None, factor: float) -> float | None:
    """None where either is unknown, and where a sum fell: threads that ended took what they had waited with them."""
    return None if before is None or now is None or now < before else (now - before) * factor
