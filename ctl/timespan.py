"""Times as people write them, turned into what the API takes. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

_RELATIVE = re.compile(r"-?(\d{1,6}[smhdw])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_time(text: str, *, zone: tzinfo | None) -> str:
    """`1h` and `-1h` as `-1h`, which the server counts back on its own clock; dates and times as microseconds since 1970.

    A time without an offset is in `zone`; None is the local one, summer time included. Raises ValueError with a sentence.
    """
    if relative := _RELATIVE.fullmatch(text):
        return f"-{relative[1]}"
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.astimezone() if zone is None else moment.replace(tzinfo=zone)
        since_epoch_us = (moment - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError, OSError):
        since_epoch_us = -1
    if since_epoch_us < 0:
        raise ValueError(
            f"{text!r:.60} is no time; write how far back from now (90s, 15m, 1h, 7d, 2w) "
            "or a date and time (2026-11-23, 2026-11-23T01:11, 2026-11-23T01:11:09Z)"
        )
    return str(since_epoch_us)
