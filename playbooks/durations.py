"""Spans of time as people write them: `500ms`, `30s`, `5m`, `2h`, `1d`. Pure."""

from __future__ import annotations

import re

_UNITS_US = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_DURATION = re.compile(r"(\d{1,9})(ms|s|m|h|d)")
MOST_US = 31 * _UNITS_US["d"]


def parse_duration(text: str) -> int:
    """The span in us; raises ValueError, whose text says what was meant."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r:.40} is no span of time; write a whole number and ms, s, m, h or d, such as 30s")
    span_us = int(found[1]) * _UNITS_US[found[2]]
    if span_us > MOST_US:
        raise ValueError(f"{text} is longer than 31d")
    return span_us


def duration_text(span_us: int) -> str:
    """The shortest way to write a span so that `parse_duration` gives it back."""
    for unit in ("d", "h", "m", "s"):
        if span_us and span_us % _UNITS_US[unit] == 0:
            return f"{span_us // _UNITS_US[unit]}{unit}"
    return f"{span_us // 1000}ms"
