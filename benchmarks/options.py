"""What a benchmark can be told."""

from __future__ import annotations

from dataclasses import dataclass

WORKERS = 200
PAIRS = 15
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Options:
    """`quick` tries the measurement itself; `workers` is for `footprint`, `pairs` of rounds for `overhead`, `rounds` for `deploy`."""

    quick: bool = False
    workers: int = WORKERS
    pairs: int = PAIRS
    rounds: int = ROUNDS
