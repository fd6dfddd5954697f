"""Reads memory, CPU and waiting of all workers and masters, and tells what moved; on a slower beat, what they share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.clock import Clock
from agent.kernel.ladder import Probe
from agent.kernel.readings import Reading
from agent.procfs import ProcFs
from agent.pss import Ident, PssPlan
from agent.readings import METRICS, MOST_AGE_S, STEPS, Told, values_of
from agent.reporter import Reporter
from agent.rollup import NS_PER_TICK
from agent.service import Service

if TYPE_CHECKING:
    from agent.readings_psutil import PsutilReader

PERIOD_S = 1.0
SHARES_EVERY_S = 10.0


class ReadingsKernel(Protocol):
    """What the beat asks of the kernel."""

    def probe(self, signal: str) -> Probe: ...

    def read_tasks(self) -> list[Reading]: ...


class Services(Protocol):
    """Where the services are."""

    @property
    def services(self) -> Mapping[int, Service]: ...


@dataclass(slots=True)
class _Watched:
    """One process and what was told of it. `subject` names it within the service."""

    service: str
    subject: str
    told: Told
    before: Reading | None = None
    before_ns: int = 0


class ReadingsBeat:
    """All readings of the host's services. `period_s` may be changed at any time."""

    def __init__(
        self, procfs: ProcFs, rollup: Services, kernel: ReadingsKernel, reporter: Reporter, clock: Clock
    ) -> None:
        self.period_s = PERIOD_S
        self._procfs = procfs
        self._rollup = rollup
        self._kernel = kernel
        self._reporter = reporter
        self._clock = clock
        self._watched: dict[Ident, _Watched] = {}
        self._plan = PssPlan(time.monotonic())
        self._psutil: PsutilReader | None = None

    async def readings_beat(self) -> None:
        """Reads for ever."""
        shares_s = time.monotonic()
        while True:
            await asyncio.sleep(self.period_s)
            self.tick()
            if time.monotonic() - shares_s >= SHARES_EVERY_S:
                shares_s = time.monotonic()
                await self.look_at_shares()

    def tick(self) -> None:
        """Reads every process once and tells what moved."""
        members = list(self._members())
        readings = {reading.pid: reading for reading in self._read([ident for ident, _, _ in members])}
        now_ns = self._clock.monotonic_ns()
        watched: dict[Ident, _Watched] = {}
        for ident, service, slot in members:
            one = self._watched.get(ident) or _watch(ident, service, slot)
            watched[ident] = one
            reading = readings.get(ident[0])
            if reading is not None and reading.start_ns // NS_PER_TICK == ident[1]:
                self._tell(one, reading, now_ns)
        self._watched = watched

    async def look_at_shares(self) -> None:
        """Reads PSS and USS of some, as far as the budget goes, off the event loop."""
        rss = {ident: size for ident, one in self._watched.items() if (size := _rss_bytes(one.before)) is not None}
        for ident, pss_bytes, uss_bytes in await asyncio.to_thread(self._shares, rss):
            one = self._watched.get(ident)
            if one is not None:
                self._sample(one, "worker.pss_bytes", pss_bytes)
                self._sample(one, "worker.uss_bytes", uss_bytes)

    def _members(self) -> Iterator[tuple[Ident, Service, int | None]]:
        """Every master and worker, the workers with their slots."""
        for service in self._rollup.services.values():
            if service.stopped_event is None:
                yield (service.master_pid, service.start_ticks), service, None
            for pid, worker in service.workers.items():
                yield (pid, worker.ref.start_ticks), service, worker.ref.slot

    def _read(self, idents: list[Ident]) -> list[Reading]:
        means = self._kernel.probe("readings").means
        if means == "iterator":
            return self._kernel.read_tasks()
        if means != "psutil":
            return []
        if self._psutil is None:
            from agent.readings_psutil import PsutilReader  # some 2 MB, on this rung only

            self._psutil = PsutilReader(self._procfs)
        return self._psutil.read(idents)

    def _tell(self, one: _Watched, reading: Reading, now_ns: int) -> None:
        values = values_of(one.before, reading, (now_ns - one.before_ns) / 1e9)
        one.before, one.before_ns = reading, now_ns
        for place, value in one.told.step(values, now_s=now_ns / 1e9, period_s=self.period_s):
            self._sample(one, METRICS[place], value)

    def _sample(self, one: _Watched, metric: str, value: float) -> None:
        self._reporter.sample(metric, value, service=one.service, subject=one.subject)

    def _shares(self, rss_bytes: Mapping[Ident, int]) -> list[tuple[Ident, int, int]]:
        """One look after another until the plan has no more; runs in a thread."""
        self._plan.forget_others(rss_bytes)
        found = []
        while (ident := self._plan.next(rss_bytes, now_s := time.monotonic())) is not None:
            started_ns = time.thread_time_ns()
            shares = self._procfs.shares(ident[0])
            is_same = self._procfs.start_ticks(ident[0]) == ident[1]
            cost_s = (time.thread_time_ns() - started_ns) / 1e9
            self._plan.looked(ident, rss_bytes[ident], at_s=now_s, cost_s=cost_s)
            if shares is not None and is_same:
                found.append((ident, shares.pss_bytes, shares.uss_bytes))
        return found


def _watch(ident: Ident, service: Service, slot: int | None) -> _Watched:
    subject = f"master (pid {ident[0]})" if slot is None else f"worker {slot} (pid {ident[0]})"
    return _Watched(service.name, subject, Told(list(STEPS.values()), first_renewal_s=ident[0] % MOST_AGE_S))


def _rss_bytes(reading: Reading | None) -> int | None:
    """Resident memory as far as it is known."""
    if reading is None or reading.anon_bytes is None:
        return None
    return reading.anon_bytes + (reading.file_bytes or 0) + (reading.shmem_bytes or 0)
