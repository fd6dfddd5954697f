"""How results are told: a table for people, JSON for machines."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = max(-(-len(ordered) * percent // 100), 1)
    return ordered[rank - 1]


def spread(values_ms: Sequence[float]) -> dict[str, float]:
    """Count, median, p99 and extremes of times in milliseconds."""
    return {
        "count": len(values_ms),
        "min_ms": round(min(values_ms), 2),
        "p50_ms": round(statistics.median(values_ms), 2),
        "p99_ms": round(percentile(values_ms, 99), 2),
        "max_ms": round(max(values_ms), 2),
    }


def show(title: str, result: Mapping[str, object], *, as_json: bool) -> None:
    """Prints one result; nested mappings become rows of a table, with a heading where they nest deeper."""
    if as_json:
        print(json.dumps(result, indent=2))
        return
    print(f"\n{title}")
    print("\n".join(table(result)))


def table(result: Mapping[str, object], indent: str = "  ") -> Iterator[str]:
    """The lines of the table."""
    for name, value in result.items():
        if not isinstance(value, Mapping):
            yield f"{indent}{name:18} {'-' if value is None else value}"
        elif any(isinstance(cell, Mapping) for cell in value.values()):
            yield f"{indent}{name}"
            yield from table(value, indent + "  ")
        elif value:
            cells = "   ".join(f"{key} {'-' if cell is None else cell}" for key, cell in value.items())
            yield f"{indent}{name:18} {cells}"
