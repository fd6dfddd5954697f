"""When a playbook may act: days of the week and hours in a time zone. Pure: the moment comes in as an argument."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Window:
    """Days as numbers from Monday = 0; minutes of the day. One that ends before it begins goes over midnight."""

    days: frozenset[int]
    from_minute: int
    until_minute: int
    zone: str

    def is_open(self, now_us: int) -> bool:
        """Whether a moment (UTC, us since 1970) is inside. What begins before midnight belongs to the day it began on."""
        now = datetime.fromtimestamp(now_us / 1e6, UTC).astimezone(ZoneInfo(self.zone))
        minute, day = now.hour * 60 + now.minute, now.weekday()
        if self.from_minute <= self.until_minute:
            return day in self.days and self.from_minute <= minute < self.until_minute
        if minute >= self.from_minute:
            return day in self.days
        return minute < self.until_minute and (day - 1) % 7 in self.days


def parse_days(text: str) -> frozenset[int]:
    """`mon-fri`, `sat,sun`; raises ValueError."""
    found: set[int] = set()
    for part in text.replace(" ", "").lower().split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError(f"{part!r:.20} is no day; write mon, mon-fri or sat,sun")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found.update(day % 7 for day in range(begin, end + 1 if end >= begin else end + 8))
    return frozenset(found)


def parse_minute(text: str) -> int:
    """`09:30` as minutes since midnight; raises ValueError."""
    hours, colon, minutes = text.partition(":")
    if (
        not (colon and hours.isdigit() and minutes.isdigit() and len(minutes) == 2)
        or int(hours) > 24
        or int(minutes) > 59
    ):
        raise ValueError(f"{text!r:.20} is no time of day; write 09:30")
    minute = int(hours) * 60 + int(minutes)
    if minute > 24 * 60:
        raise ValueError(f"{text!r:.20} is no time of day; a day ends at 24:00")
    return minute


def parse_zone(text: str) -> str:
    """The name of a time zone that is known here; raises ValueError."""
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{text!r:.40} is no time zone that is known here; write UTC or Europe/Berlin") from None
    return text
