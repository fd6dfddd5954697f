"""How numbers read in a sentence: sizes, spans of time, signals. Pure."""

from __future__ import annotations

import signal

_MIB = 1024 * 1024


def size(amount_bytes: float) -> str:
    """Bytes in the unit that people set limits in: `183.0 MiB`, `4.0 KiB`, `1.50 GiB`."""
    if amount_bytes >= 1024 * _MIB:
        return f"{amount_bytes / (1024 * _MIB):.2f} GiB"
    if amount_bytes >= _MIB:
        return f"{amount_bytes / _MIB:.1f} MiB"
    return f"{amount_bytes / 1024:.1f} KiB" if amount_bytes else "0"


def span(seconds: float) -> str:
    """A span of time in its two largest units: `4 ms`, `1.72 s`, `3 min 12 s`, `2 d 4 h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    whole = round(seconds)
    for unit_s, unit, part_s, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit_s:
            return f"{whole // unit_s} {unit} {whole % unit_s // part_s} {part}"
    return f"{whole} s"


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; a number that has no name stays a number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
