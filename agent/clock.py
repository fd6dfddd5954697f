"""The clocks of a host: the kernel stamps records with its boot clock, people read the wall clock."""

from __future__ import annotations

import time
from collections.abc import Callable

LOOKS = 3


class Clock:
    """Turns boot clock and monotonic clock times into UTC microseconds.

    The wall clock is compared anew at every `refresh`, so that a step of NTP is followed within one beat.
    """

    def __init__(
        self,
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        boot_ns: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall_ns = wall_ns
        self._boot_ns = boot_ns
        self.monotonic_ns = monotonic_ns
        self.refresh()

    def refresh(self) -> None:
        """Compares the clocks."""
        self._boot_to_wall_ns = self._apart_ns(self._boot_ns)
        self.monotonic_to_wall_ns = self._apart_ns(self.monotonic_ns)

    def _apart_ns(self, clock_ns: Callable[[], int]) -> int:
        """How far the wall clock is ahead of another. Of some looks the shortest counts: in a longer one somebody else had the CPU."""
        looks = []
        for _ in range(LOOKS):
            before_ns, wall_ns, after_ns = clock_ns(), self._wall_ns(), clock_ns()
            looks.append((after_ns - before_ns, wall_ns - (before_ns + after_ns) // 2))
        return min(looks)[1]

    def now_us(self) -> int:
        """Now, in UTC microseconds."""
        return self._wall_ns() // 1000

    def boot_to_us(self, boot_ns: int) -> int:
        """A time of CLOCK_BOOTTIME, as kernel records carry it, in UTC microseconds."""
        return (boot_ns + self._boot_to_wall_ns) // 1000

    def monotonic_to_us(self, monotonic_ns: int) -> int:
        """A time of CLOCK_MONOTONIC, as heartbeats carry it, in UTC microseconds."""
        return (monotonic_ns + self.monotonic_to_wall_ns) // 1000

    def boot_second(self) -> int:
        """The running second of the boot clock."""
        return self._boot_ns() // 1_000_000_000
