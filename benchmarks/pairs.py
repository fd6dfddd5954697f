"""Off against on, in pairs: who goes first, what the ratios say, and what they would say if nothing had changed. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

MISSED_EACH_SIDE = 0.025


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `on` loses against `off`. Rates in operations a second, the rest in per cent; a gain is a negative loss.

    `loss_percent` is the median over the pairs, `quartiles_percent` are the first and third quartile.
    `interval_percent` holds the true median in at least 95 of 100 measurements, or as often as so few pairs can say.
    `noise_percent` is the median difference of two rounds that follow each other without a change between them:
    what one pair is off by for no reason.
    """

    pairs: int
    off_per_s: float
    on_per_s: float
    loss_percent: float
    quartiles_percent: tuple[float, float]
    interval_percent: tuple[float, float]
    noise_percent: float
    loss_beyond_noise_percent: float


def order(pairs: int) -> list[bool]:
    """Whether the agent is on in each round: off on, on off, off on, … so that no side profits from a drift."""
    rounds: list[bool] = []
    for number in range(pairs):
        rounds += [False, True] if number % 2 == 0 else [True, False]
    return rounds


def compare(off: Sequence[float], on: Sequence[float]) -> Comparison:
    """Compares the rates of rounds that were run in the sequence of `order`: `off[n]` and `on[n]` are pair n.

    Raises ValueError for fewer than two pairs: they would say nothing about the noise.
    """
    if len(off) != len(on) or len(off) < 2:
        raise ValueError(f"{len(off)} rounds off and {len(on)} on are no two pairs")
    losses = [100 * (1 - after / before) for before, after in zip(off, on, strict=True)]
    loss = statistics.median(losses)
    noise = statistics.median(abs(100 * (1 - later / earlier)) for earlier, later in _unchanged(off, on))
    low, high = median_interval(losses)
    first, _, third = statistics.quantiles(losses, n=4, method="inclusive")
    return Comparison(
        pairs=len(off),
        off_per_s=round(statistics.median(off), 1),
        on_per_s=round(statistics.median(on), 1),
        loss_percent=round(loss, 2),
        quartiles_percent=(round(first, 2), round(third, 2)),
        interval_percent=(round(low, 2), round(high, 2)),
        noise_percent=round(noise, 2),
        loss_beyond_noise_percent=round(max(loss - noise, 0.0), 2),
    )


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """An interval for the median of what the values are drawn from, whatever its shape: the sign test turned around.

    The n-th smallest value lies above the median with the chance that fewer than n of all coins fall on one side.
    """
    ordered, cut = sorted(values), 0
    while sum(math.comb(len(values), heads) for heads in range(cut + 2)) / 2 ** len(values) <= MISSED_EACH_SIDE:
        cut += 1
    return ordered[cut], ordered[-1 - cut]


def _unchanged(off: Sequence[float], on: Sequence[float]) -> list[tuple[float, float]]:
    """Neighbouring rounds of different pairs: pairs 0 and 1 meet in two rounds on, 1 and 2 in two rounds off, …"""
    return [(side[n], side[n + 1]) for n in range(len(off) - 1) for side in ((on, off)[n % 2],)]
