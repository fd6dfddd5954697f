"""Whose shared memory to share out next: /proc/PID/smaps_rollup is dear, so all looks together have a budget. Pure.

The kernel walks every page table of the process for it, some 10 ms for a gigabyte of small pages, and holds the
process's memory map for reading meanwhile (since 5.10 it steps back when the process itself wants it). Hence:

- All looks together may use BUDGET_SHARE of a CPU. A look begins only while there is budget, and its true cost is
  booked afterwards: a look that was dearer than what is left puts all that follow off.
- One process may use a quarter of that, so that the pauses between looks at a huge one grow with it.
- A process is looked at again when its memory has moved by a step, else only every QUIET_S: what it shares with others
  changes without its doing when those come and go.
- Those that waited longest come first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BUDGET_SHARE = 0.0002
"""0.2 ms of CPU time in a second, or 6 ms in 30 s."""

SAVED_MOST_S = 0.006
"""Budget that is not used is saved up to this."""

PAUSE_S = 30.0
QUIET_S = 300.0
STEP_BYTES, STEP_SHARE = 256 * 1024, 0.01
LARGEST_PART = 0.25

Ident = tuple[int, int]
"""Pid and start."""


@dataclass(frozen=True, slots=True)
class _Look:
    at_s: float
    rss_bytes: int
    cost_s: float


class PssPlan:
    """Whom to look at next. Costs are CPU seconds, times are of any clock that only rises."""

    def __init__(self, now_s: float) -> None:
        self._budget_s = SAVED_MOST_S
        self._counted_s = now_s
        self._looks: dict[Ident, _Look] = {}

    def forget_others(self, alive: Mapping[Ident, int]) -> None:
        """Keeps only what is known of these."""
        self._looks = {ident: look for ident, look in self._looks.items() if ident in alive}

    def due(self, rss_bytes: Mapping[Ident, int], now_s: float) -> list[Ident]:
        """The processes to look at, out of these with their resident memory; who waited longest comes first."""
        due = [ident for ident, rss in rss_bytes.items() if self._is_due(ident, rss, now_s)]
        return sorted(due, key=self._last_s)

    def has_budget(self, now_s: float) -> bool:
        """Whether one more look may begin now."""
        self._budget_s = min(self._budget_s + BUDGET_SHARE * (now_s - self._counted_s), SAVED_MOST_S)
        self._counted_s = now_s
        return self._budget_s > 0

    def looked(self, ident: Ident, rss_bytes: int, *, at_s: float, cost_s: float) -> None:
        """Books a look and what it cost."""
        self._looks[ident] = _Look(at_s, rss_bytes, cost_s)
        self._budget_s -= cost_s

    def _last_s(self, ident: Ident) -> float:
        look = self._looks.get(ident)
        return float("-inf") if look is None else look.at_s

    def _is_due(self, ident: Ident, rss_bytes: int, now_s: float) -> bool:
        look = self._looks.get(ident)
        if look is None:
            return True
        since_s = now_s - look.at_s
        if since_s < max(PAUSE_S, look.cost_s / (LARGEST_PART * BUDGET_SHARE)):
            return False
        moved = abs(rss_bytes - look.rss_bytes) > max(STEP_BYTES, STEP_SHARE * look.rss_bytes)
        return moved or since_s >= QUIET_S
