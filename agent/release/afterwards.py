"""Counts what services die of, so that a release which is kept and turns bad later is told. Pure."""

from __future__ import annotations

from collections import defaultdict, deque

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
WITHIN_US = 10 * MINUTE_US
DAY_US = 24 * HOUR_US
LEAST = 3
"""So many deaths of faults within ten minutes are more than chance."""

MOST_DEATHS = 200


class Deaths:
    """When workers of each service died of faults, within the last hour."""

    def __init__(self) -> None:
        self._times: dict[str, deque[int]] = defaultdict(lambda: deque(maxlen=MOST_DEATHS))

    def add(self, service: str, at_us: int) -> None:
        """One more."""
        self._times[service].append(at_us)

    def lately(self, service: str, now_us: int, within_us: int) -> int:
        """How many there were within so long before now."""
        times = self._times.get(service)
        if times is None:
            return 0
        while times and times[0] < now_us - HOUR_US:
            times.popleft()
        return sum(one >= now_us - within_us for one in times)


def has_regressed(lately: int, usual_an_hour: int, *, switched_us: int, now_us: int) -> bool:
    """Whether a release of less than a day ago lets workers die as the one before did not."""
    if not 0 < now_us - switched_us < DAY_US:
        return False
    return lately >= LEAST and lately > usual_an_hour
