"""Keeps the agent within its own budget: carries out what the budget decides, and tells it on the timeline."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from agent.budget import LEVELS, MIB, Budget, Cost, Level, Limits, Verdict
from agent.clock import Clock
from agent.kernel.heap import trim
from agent.reporter import Reporter
from agent.spool import Spool
from agent.wire import Row, Scalar

IDLE_READINGS_S = 60.0
"""Readings that nobody is told of still run this often, so that they are there when they are wanted again."""


class Beat(Protocol):
    """A beat whose period may be changed at any time, in seconds."""

    period_s: float


class SheddableReporter(Reporter):
    """A reporter that keeps samples to itself while they are shed. Events always go."""

    def __init__(self, spool: Spool, clock: Clock, is_wanted: Callable[[], bool]) -> None:
        super().__init__(spool, clock)
        self._is_wanted = is_wanted

    def sample(self, metric: str, value: float, *, service: str | None = None, subject: str | None = None) -> None:
        """Spools one number, now, unless samples are shed."""
        if self._is_wanted():
            super().sample(metric, value, service=service, subject=subject)

    def samples(self, ts_us: int, rows: Sequence[Row]) -> None:
        """Spools numbers of one moment, unless samples are shed."""
        if self._is_wanted():
            super().samples(ts_us, rows)


class Shedding:
    """The level of samples that the agent is on, and its way from one to the next."""

    def __init__(self, limits: Limits, reporter: Reporter, host: str) -> None:
        self._budget = Budget(limits)
        self._reporter = reporter
        self._host = host
        self._mean_cpu_percent: float | None = None
        self._began: str | None = None

    @property
    def level(self) -> Level:
        """What is sampled now."""
        return LEVELS[self._budget.level]

    def wants_readings(self) -> bool:
        """Whether readings of processes are told."""
        return self.level.readings_s is not None

    def wants_queues(self) -> bool:
        """Whether samples of accept queues are told."""
        return self.level.queues

    def status(self) -> dict[str, Any]:
        """The budget and where the agent stands, as docs/api.md has it."""
        limits = self._budget.limits
        return {
            "level": self._budget.level,
            "samples": self.level.samples,
            "cpu_percent": limits.cpu_percent,
            "mean_cpu_percent": self._mean_cpu_percent,
            "rss_bytes": limits.rss_bytes,
        }

    def look(self, now_s: float, cost: Cost, readings: Beat) -> None:
        """Judges the cost since the look before, and sheds samples or brings some back."""
        verdict = self._budget.step(now_s, cost)
        readings.period_s = self.level.readings_s or IDLE_READINGS_S
        self._reporter.sample("agent.shed_level", self._budget.level)
        if verdict is None:
            return
        self._mean_cpu_percent = verdict.cpu_percent
        if verdict.level > verdict.before:
            self._tell_shed(verdict)
        elif verdict.level < verdict.before:
            self._tell_back(verdict)
        if verdict.alarm:
            self._tell_alarm(verdict)

    def _tell_shed(self, verdict: Verdict) -> None:
        tidied = "memory" in verdict.over and self._began is None
        if tidied:
            gc.collect()
            trim()
        event = self._reporter.about_agent(
            "agent.shedding",
            f"The agent on {self._host} is over its own budget ({self._figures(verdict)}) and samples less: "
            f"{self.level.samples}. Events go on.{' It gave free memory back to the system.' * tidied}",
            severity="warning",
            cause=self._began,
            attrs=self._attrs(verdict),
        )
        self._began = self._began or event

    def _tell_back(self, verdict: Verdict) -> None:
        is_over = verdict.level == 0
        self._reporter.about_agent(
            "agent.shedding_ended" if is_over else "agent.shedding",
            f"The agent on {self._host} was well within its own budget for {verdict.calm_s:.0f} s "
            f"({self._figures(verdict)}) and samples {'everything' if is_over else 'more'} again"
            f"{'' if is_over else f': {self.level.samples}'}.",
            cause=self._began,
            attrs=self._attrs(verdict),
        )
        if is_over:
            self._began = None

    def _tell_alarm(self, verdict: Verdict) -> None:
        by_memory = "memory" in verdict.over
        self._reporter.about_agent(
            "agent.over_budget",
            f"The agent on {self._host} is over its own budget for {verdict.over_s:.0f} s ({self._figures(verdict)}) "
            "and has no samples left to shed. Events go on."
            + (" If the host runs short of memory, restart the agent: its spool keeps what is not sent." * by_memory),
            severity="critical" if by_memory else "warning",
            cause=self._began,
            attrs=self._attrs(verdict),
        )

    def _figures(self, verdict: Verdict) -> str:
        limits = self._budget.limits
        return (
            f"{verdict.cpu_percent:.3g} % of a core, {limits.cpu_percent:.3g} % allowed; "
            f"{verdict.rss_bytes / MIB:.0f} MiB of memory, {limits.rss_bytes / MIB:.0f} allowed"
        )

    def _attrs(self, verdict: Verdict) -> dict[str, Scalar]:
        return {
            "level": verdict.level,
            "level_before": verdict.before,
            "samples": LEVELS[verdict.level].samples,
            "over": ", ".join(sorted(verdict.over)),
            "cpu_percent": verdict.cpu_percent,
            "cpu_budget_percent": self._budget.limits.cpu_percent,
            "rss_bytes": verdict.rss_bytes,
            "memory_budget_bytes": self._budget.limits.rss_bytes,
        }
