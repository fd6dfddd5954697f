"""Off against on, in pairs: who goes first, what the ratios say, and what they would say if nothing had changed. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `on` loses against `off`. Rates in operations a second, the rest in per cent; a gain is a negative loss.

    `loss_percent` is the median over the pairs, `quartiles_percent` are the first and third quartile.
    `noise_percent` is the median difference of two rounds that follow each other without a change between them:
    what one pair is off by for no reason.
    """

    pairs: int
    off_per_s: float
    on_per_s: float
    loss_percent: float
    quartiles_percent: tuple[float, float]
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
    first, _, third = statistics.quantiles(losses, n=4, method="inclusive")
    return Comparison(
        pairs=len(off),
        off_per_s=round(statistics.median(off), 1),
        on_per_s=round(statistics.median(on), 1),
        loss_percent=round(loss, 2),
        quartiles_percent=(round(first, 2), round(third, 2)),
        noise_percent=round(noise, 2),
        loss_beyond_noise_percent=round(max(loss - noise, 0.0), 2),
    )


def _unchanged(off: Sequence[float], on: Sequence[float]) -> list[tuple[float, float]]:
    """Neighbouring rounds of different pairs: pairs 0 and 1 meet in two rounds on, 1 and 2 in two rounds off, …"""
    return [(side[n], side[n + 1]) for n in range(len(off) - 1) for side in ((on, off)[n % 2],)]
