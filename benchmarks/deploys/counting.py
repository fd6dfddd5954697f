"""What clients saw of a deploy, counted: pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.report import percentile

DOWN_AFTER_S = 0.2
"""A service that gives no good answer for longer is down; a hundred requests a second are some 20 that had none."""

SETTLED_S = 1.0
"""All answers of this long are good and of one version: then it serves."""

LEAST_SHARE = 0.5
"""Of the requests that are sent, this share at least has answers where a service serves."""

GOALS: Mapping[str, float] = {"failed_requests": 0, "worst_ms": 60.0, "broken_down_s": 0}
MEDIANS = ("failed_requests", "worst_ms", "p99_ms", "wall_s", "broken_down_s")


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: when it began and what it took; `version` is what the service said it is, None where it failed."""

    began_s: float
    took_s: float
    version: str | None
    trouble: str = ""

    @property
    def ended_s(self) -> float:
        """When the answer was there."""
        return self.began_s + self.took_s


@dataclass(frozen=True, slots=True)
class Span:
    """A time during which clients are looked at."""

    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Turn:
    """One way of deploying in one round.

    `calm` is before the deploys; `good` from the command for a good release until after all that it did, `broken` the same
    for a release that cannot be imported, until the service served again. Codes are those that the commands ended with.
    """

    calm: Span
    good: Span
    good_code: int
    broken: Span
    broken_code: int
    recovered_by: str
    version: str


def serves(answers: Sequence[Answer], version: str, now_s: float, *, a_second: float) -> bool:
    """Whether all answers until now, for as long as it takes to believe it, are of this version."""
    lately = [one for one in answers if now_s - SETTLED_S < one.ended_s <= now_s]
    return len(lately) >= a_second * SETTLED_S * LEAST_SHARE and all(one.version == version for one in lately)


def last_version(answers: Sequence[Answer]) -> str | None:
    """What the latest good answer said; None without one."""
    good = [one for one in answers if one.version is not None]
    return max(good, key=lambda one: one.ended_s).version if good else None


def first_alone_s(answers: Sequence[Answer], version: str, span: Span) -> float | None:
    """After how long this version, and nothing else, answered; None if something else did until the end."""
    ended = sorted((one for one in answers if span.began_s <= one.ended_s <= span.ended_s), key=lambda one: one.ended_s)
    others = [number for number, one in enumerate(ended) if one.version != version]
    first = others[-1] + 1 if others else 0
    return ended[first].ended_s - span.began_s if first < len(ended) else None


def down_s(answers: Sequence[Answer], span: Span) -> float:
    """Seconds of the span in which no good answer came, counting only times longer than `DOWN_AFTER_S`."""
    good = sorted(
        one.ended_s for one in answers if one.version is not None and span.began_s < one.ended_s < span.ended_s
    )
    gaps = (after - before for before, after in pairwise([span.began_s, *good, span.ended_s]))
    return sum(gap for gap in gaps if gap > DOWN_AFTER_S)


def cells(turn: Turn, answers: Sequence[Answer]) -> dict[str, object]:
    """The figures of one turn."""
    calm, good, broken = (_begun_in(answers, span) for span in (turn.calm, turn.good, turn.broken))
    served = last_version(good)
    wall_s = first_alone_s(answers, turn.version, turn.good)
    return {
        "requests": len(good),
        "failed_requests": _failed(good),
        "worst_ms": _ms(max(one.took_s for one in good)),
        "p99_ms": _ms(percentile([one.took_s for one in good], 99)),
        "wall_s": None if wall_s is None else round(wall_s, 2),
        "exit_code": turn.good_code,
        "served_after": "nothing" if served is None else "new" if served == turn.version else "old",
        "broken_down_s": round(down_s(answers, turn.broken), 2),
        "broken_requests": len(broken),
        "broken_failed_requests": _failed(broken),
        "broken_worst_ms": _ms(max(one.took_s for one in broken)),
        "broken_exit_code": turn.broken_code,
        "broken_recovered_by": turn.recovered_by,
        "calm_worst_ms": _ms(max(one.took_s for one in calm)),
    }


def summary(rounds: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """One way over all rounds: the worst of each figure, medians, and every round."""
    found: dict[str, object] = {"rounds": len(rounds)}
    for name in rounds[0]:
        values = [one[name] for one in rounds]
        numbers = [value for value in values if isinstance(value, int | float)]
        if name.endswith("requests") and not name.endswith("failed_requests"):
            found[name] = sum(numbers)
        elif len(numbers) == len(values):
            found[name] = max(numbers)
        else:
            found[name] = None if name == "wall_s" else _told(values)
    found["median"] = {name: _median([one[name] for one in rounds]) for name in MEDIANS}
    found["each"] = {f"round {number}": dict(one) for number, one in enumerate(rounds, 1)}
    return found


def goals_met(reflex: Mapping[str, object]) -> dict[str, bool]:
    """Each goal, and whether the worst round of Reflex met it."""
    met = {}
    for name, most in GOALS.items():
        value = reflex[name]
        met[name] = isinstance(value, int | float) and value <= most
    return met


def order_of(ways: Sequence[str], number: int) -> list[str]:
    """Who goes first, second and so on in a round: each way gets each place in turn."""
    first = number % len(ways)
    return [*ways[first:], *ways[:first]]


def _begun_in(answers: Sequence[Answer], span: Span) -> list[Answer]:
    begun = [one for one in answers if span.began_s <= one.began_s < span.ended_s]
    return sorted(begun, key=lambda one: one.began_s)


def _failed(answers: Sequence[Answer]) -> int:
    return sum(one.version is None for one in answers)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _median(values: Sequence[object]) -> float | None:
    numbers = [value for value in values if isinstance(value, int | float)]
    return round(statistics.median(numbers), 2) if len(numbers) == len(values) else None


def _told(values: Sequence[object]) -> str:
    """A word of each round: itself where all say the same, else how often each was said."""
    times = Counter(str(value) for value in values)
    return next(iter(times)) if len(times) == 1 else ", ".join(f"{word} ({count})" for word, count in times.items())
