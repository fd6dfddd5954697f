"""Reads memory, CPU and waiting of all workers and masters, and tells what moved; on a slower beat, what they share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.clock import Clock
from agent.kernel.ladder import Probe
from agent.kernel.readings import Moved, Reading
from agent.procfs import ProcFs, Shares
from agent.pss import Ident, PssPlan
from agent.pulse import next_pulse
from agent.readings import FIRST_RATE, METRICS, STEPS, Follower, Told, values_of
from agent.reporter import Reporter
from agent.rollup import NS_PER_TICK
from agent.service import Service, Worker
from agent.status import Memory
from agent.wire import Row

if TYPE_CHECKING:
    from agent.readings_psutil import PsutilReader

PERIOD_S = PULSE_S = 1.0
SHARES_EVERY_READINGS = 30
SHARES_HOLD = 0.1
IDLE_CPU_PERCENT = 0.15
APART_S = 0.3
"""What is shared is looked at in a thread; with all beats that the pulse has woken it would fight for the interpreter."""


class ReadingsKernel(Protocol):
    """What the beat asks of the kernel."""

    def probe(self, signal: str) -> Probe: ...

    def read_moved_tasks(self) -> list[Moved]: ...


class Health(Protocol):
    """Who judges workers by their readings."""

    def moved(self, worker: Worker, memory_bytes: int | None, cpu_percent: float | None, *, is_quiet: bool) -> None: ...


class Services(Protocol):
    """Where the services are."""

    @property
    def services(self) -> Mapping[int, Service]: ...


@dataclass(slots=True)
class _Watched:
    """One process, what was told of it and its latest reading. `subject` names it within the service."""

    service: str
    subject: str
    told: Told
    worker: Worker | None = None
    shares: Shares | None = None
    shares_anon_bytes: int | None = None
    reading: Reading | None = None


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
        self.read_s: float | None = None
        """When processes were read last, in s of the monotonic clock."""
        self._watched: dict[Ident, _Watched] = {}
        self._unmet: dict[Ident, Moved] = {}
        self._follower = Follower()
        self._plan = PssPlan(time.monotonic())
        self._psutil: PsutilReader | None = None
        self.health: Health | None = None

    async def readings_beat(self) -> None:
        """Reads for ever; on every so many readings, looks at what is shared."""
        readings, read_s = 0, time.monotonic()
        while True:
            await next_pulse()
            if time.monotonic() - read_s < self.period_s - PULSE_S / 2:
                continue
            readings, read_s = readings + 1, time.monotonic()
            self.tick()
            if readings % SHARES_EVERY_READINGS == 0:
                self._forget_others()
                await asyncio.sleep(APART_S)
                await self.look_at_shares()

    def memory(self) -> dict[tuple[int, int], Memory]:
        """What every process holds, by pid and start in ticks: PSS while the last look holds, else anonymous memory."""
        held = {(pid, start_ns // NS_PER_TICK): _held(one) for (pid, start_ns), one in self._watched.items()}
        return {ident: memory for ident, memory in held.items() if memory is not None}

    def tick(self) -> None:
        """Reads every process once and tells what moved."""
        now_us = self._clock.now_us()
        moved = self._unmet | {(one.now.pid, one.now.start_ns): one for one in self._read()}
        self._unmet = {}
        self.read_s = self._clock.monotonic_ns() / 1e9
        rows: list[Row] = []
        for ident, reading in moved.items():
            one = self._watched.get(ident) or self._meet(reading.now)
            if one is None:
                self._unmet[ident] = reading
                continue
            self._watched[ident] = one
            one.reading = reading.now
            values = values_of(reading.before, reading.now, reading.passed_s)
            if self.health is not None and one.worker is not None:
                is_quiet, cpu_percent = _is_quiet(values), values[FIRST_RATE]
                self.health.moved(one.worker, _own_bytes(reading.now), cpu_percent, is_quiet=is_quiet)
            told = one.told.step(values, renews=reading.renews, settles=reading.settles)
            rows += [(METRICS[place], value, one.service, one.subject) for place, value in told]
        self._reporter.samples(now_us, rows)

    async def look_at_shares(self) -> None:
        """Reads PSS and USS of some, as far as the budget goes, off the event loop."""
        rss = {ident: size for ident, one in self._watched.items() if (size := _rss_bytes(one.reading)) is not None}
        now_us = self._clock.now_us()
        rows: list[Row] = []
        for ident, shares in await asyncio.to_thread(self._shares, rss):
            one = self._watched.get(ident)
            if one is not None:
                one.shares = shares
                one.shares_anon_bytes = None if one.reading is None else one.reading.anon_bytes
                rows.append(("worker.pss_bytes", shares.pss_bytes, one.service, one.subject))
                rows.append(("worker.uss_bytes", shares.uss_bytes, one.service, one.subject))
        self._reporter.samples(now_us, rows)

    def _read(self) -> list[Moved]:
        means = self._kernel.probe("readings").means
        if means == "iterator":
            return self._kernel.read_moved_tasks()
        if means != "psutil":
            return []
        if self._psutil is None:
            from agent.readings_psutil import PsutilReader  # some 2 MB, on this rung only

            self._psutil = PsutilReader(self._procfs)
        return self._follower.follow(self._psutil.read(self._members()), self._clock.monotonic_ns() / 1e9)

    def _forget_others(self) -> None:
        """Forgets who is gone. Who is not known as a master or worker by now is told of when its values renew."""
        alive = set(self._members())
        self._watched = {
            ident: one for ident, one in self._watched.items() if (ident[0], ident[1] // NS_PER_TICK) in alive
        }
        self._unmet = {}

    def _members(self) -> Iterator[tuple[int, int]]:
        """Pid and start in ticks of every master and worker."""
        for service in self._rollup.services.values():
            yield service.master_pid, service.start_ticks
            yield from ((worker.ref.pid, worker.ref.start_ticks) for worker in service.workers.values())

    def _meet(self, reading: Reading) -> _Watched | None:
        """A process that is read for the first time; None for one that is no master and no worker, or not yet."""
        start_ticks = reading.start_ns // NS_PER_TICK
        for service in self._rollup.services.values():
            worker = service.workers.get(reading.pid)
            if worker is not None and worker.ref.start_ticks == start_ticks:
                return _watch(service, f"worker {worker.ref.slot} (pid {reading.pid})", worker)
            if (service.master_pid, service.start_ticks) == (reading.pid, start_ticks):
                return _watch(service, f"master (pid {reading.pid})")
        return None

    def _shares(self, rss_bytes: Mapping[Ident, int]) -> list[tuple[Ident, Shares]]:
        """One look after another until the plan has no more; runs in a thread."""
        self._plan.forget_others(rss_bytes)
        found = []
        for ident in self._plan.due(rss_bytes, time.monotonic()):
            if not self._plan.has_budget(now_s := time.monotonic()):
                break
            pid, start_ns = ident
            started_ns = time.thread_time_ns()
            shares = self._procfs.shares(pid)
            is_same = self._procfs.start_ticks(pid) == start_ns // NS_PER_TICK
            cost_s = (time.thread_time_ns() - started_ns) / 1e9
            self._plan.looked(ident, rss_bytes[ident], at_s=now_s, cost_s=cost_s)
            if shares is not None and is_same:
                found.append((ident, shares))
        return found


def _watch(service: Service, subject: str, worker: Worker | None = None) -> _Watched:
    return _Watched(service.name, subject, Told(list(STEPS.values())), worker)


def _is_quiet(values: Sequence[float | None]) -> bool:
    """Whether a reading is of no more than a beating heart; one that is handed over to renew what is told may be."""
    cpu_percent = values[FIRST_RATE]
    return cpu_percent is not None and cpu_percent < IDLE_CPU_PERCENT


def _held(one: _Watched) -> Memory | None:
    anon = None if one.reading is None else one.reading.anon_bytes
    if one.shares is not None and _still_holds(anon, one.shares_anon_bytes):
        return Memory(one.shares.pss_bytes, "pss", one.shares.uss_bytes)
    return None if anon is None else Memory(anon, "anon")


def _still_holds(anon_bytes: int | None, then_bytes: int | None) -> bool:
    """Looks at shares are rare: one that a process has outgrown since tells less than its anonymous memory of now."""
    if anon_bytes is None or then_bytes is None:
        return True
    return abs(anon_bytes - then_bytes) <= SHARES_HOLD * then_bytes


def _own_bytes(reading: Reading) -> int | None:
    """Memory that counts against a limit and that the kernel cannot simply drop."""
    if reading.anon_bytes is None:
        return None
    return reading.anon_bytes + (reading.shmem_bytes or 0) + (reading.swap_bytes or 0)


def _rss_bytes(reading: Reading | None) -> int | None:
    """Resident memory as far as it is known."""
    if reading is None or reading.anon_bytes is None:
        return None
    return reading.anon_bytes + (reading.file_bytes or 0) + (reading.shmem_bytes or 0)
