"""What the agent itself costs: CPU and memory, measured the way it measures others."""

from __future__ import annotations

from dataclasses import dataclass

from agent.procfs import ProcFs


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU in per cent of one core since the reading before, and resident memory in bytes."""

    cpu_percent: float
    rss_bytes: int


class CostMeter:
    """Reads the cost of one process again and again."""

    def __init__(self, procfs: ProcFs, pid: int, now_ns: int) -> None:
        self._procfs = procfs
        self._pid = pid
        self._before_ns = now_ns
        usage = procfs.usage(pid)
        self._cpu_before_ns = usage.cpu_ns if usage is not None else 0

    def read(self, now_ns: int) -> Cost | None:
        """The cost since the reading before; None when it cannot be read or no time has passed."""
        usage = self._procfs.usage(self._pid)
        passed_ns = now_ns - self._before_ns
        if usage is None or passed_ns <= 0:
            return None
        cpu_percent = 100 * (usage.cpu_ns - self._cpu_before_ns) / passed_ns
        self._before_ns, self._cpu_before_ns = now_ns, usage.cpu_ns
        return Cost(round(cpu_percent, 3), usage.rss_bytes)
