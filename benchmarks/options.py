"""What a benchmark can be told."""

from __future__ import annotations

from dataclasses import dataclass

WORKERS = 200


@dataclass(frozen=True, slots=True)
class Options:
    """`quick` tries the measurement itself; `workers` is the number of processes that `footprint` has watched."""

    quick: bool = False
    workers: int = WORKERS
