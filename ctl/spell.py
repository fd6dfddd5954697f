"""How numbers are said to people: spans of time, ages, sizes. Pure; unknown stays unknown."""

from __future__ import annotations

UNKNOWN = "unknown"


def span(us: int) -> str:
    """A span of time in microseconds with the unit that fits: `85 µs`, `1.8 ms`, `3.2 s`, `4 min 10 s`, `2 d 3 h`."""
    if us < 0:
        return "-" + span(-us)
    if us < 1_000:
        return f"{us} µs"
    if us < 999_950:
        return f"{us / 1e3:.1f} ms"
    if us < 59_950_000:
        return f"{us / 1e6:.1f} s"
    seconds = us // 1_000_000
    for unit_s, unit, rest_s, rest in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit_s:
            left = seconds % unit_s // rest_s
            return f"{seconds // unit_s} {unit} {left} {rest}" if left else f"{seconds // unit_s} {unit}"
    return f"{seconds} s"


def age(since_us: int | None, *, now_us: int) -> str:
    """How long ago a moment is, in whole seconds or more; a moment ahead of our clock counts as now."""
    if since_us is None:
        return UNKNOWN
    seconds = max(0, now_us - since_us) // 1_000_000
    return f"{seconds} s" if seconds < 60 else span(seconds * 1_000_000)


def size(count: float | None) -> str:
    """Bytes in units of 1024."""
    if count is None:
        return UNKNOWN
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1023.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def number(count: float | None, unit: str = "") -> str:
    """A number with its unit, without needless digits."""
    if count is None:
        return UNKNOWN
    return f"{count:.1f} {unit}".strip() if isinstance(count, float) else f"{count} {unit}".strip()
