"""From readings of processes to what is told of them: rates, and which values moved enough to be worth sending. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from agent.kernel.readings import Reading

MOST_AGE_S = 60.0
"""A value that does not move is told again before it is older than this: a longer gap means that there is no agent."""

KIB = 1024


@dataclass(frozen=True, slots=True)
class Step:
    """How far a value may move untold: by `least`, or by `share` of the value told last where that is more."""

    least: float
    share: float = 0.0


_MEMORY = Step(256 * KIB, 0.01)
_PERCENT = Step(0.5, 0.05)

STEPS: Mapping[str, Step] = {
    "worker.rss_anon_bytes": _MEMORY,
    "worker.rss_file_bytes": _MEMORY,
    "worker.rss_shmem_bytes": _MEMORY,
    "worker.swap_bytes": _MEMORY,
    "worker.threads": Step(0),
    "worker.cpu_percent": _PERCENT,
    "worker.run_delay_percent": _PERCENT,
    "worker.minor_faults": Step(10, 0.1),
    "worker.major_faults": Step(0.5, 0.1),
    "worker.ctx_voluntary": Step(5, 0.1),
    "worker.ctx_involuntary": Step(5, 0.1),
}
"""The metrics of a reading, in the order of `values_of`, each with its step."""

METRICS = tuple(STEPS)


def values_of(before: Reading | None, now: Reading, passed_s: float) -> Sequence[float | None]:
    """The values of METRICS; rates are those between two readings `passed_s` apart. None is what is not known."""
    _, cpu, delay, anon, file, shmem, swap, minor, major, voluntary, involuntary, _, threads = now
    if before is None or passed_s <= 0:
        return anon, file, shmem, swap, threads, None, None, None, None, None, None
    _, old_cpu, old_delay, _, _, _, _, old_minor, old_major, old_voluntary, old_involuntary, _, _ = before
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
    )


class Told:
    """What the receiver knows of one process.

    It never knows a value that is off by more than the value's step, nor one that is older than MOST_AGE_S, if a new
    step follows within one and a half periods.
    """

    def __init__(self, steps: Sequence[Step], *, first_renewal_s: float = MOST_AGE_S) -> None:
        """All values are told anew at the latest `first_renewal_s` after the first time, then every MOST_AGE_S.

        Processes that are given different ones do not renew all their values in the same second.
        """
        self._steps = tuple(steps)
        self._forget()
        self._first_renewal_s = min(first_renewal_s, MOST_AGE_S)
        self._renewal_s: float | None = None

    def step(self, values: Sequence[float | None], *, now_s: float, period_s: float) -> list[tuple[int, float]]:
        """What has to be told now: places in `values`, each with the value. `period_s` is the time to the next step."""
        if self._is_due(now_s, period_s):
            self._forget()
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

    def _is_due(self, now_s: float, period_s: float) -> bool:
        """Whether a value told last at the renewal before could be too old by the next step, which may be late."""
        if self._renewal_s is None:
            self._renewal_s = now_s + self._first_renewal_s
            return True
        if now_s + 1.5 * period_s <= self._renewal_s:
            return False
        self._renewal_s = now_s + MOST_AGE_S
        return True


def _rate(before: int | None, now: int | None, factor: float) -> float | None:
    """None where either is unknown, and where a sum fell: threads that ended took what they had waited with them."""
    return None if before is None or now is None or now < before else (now - before) * factor
