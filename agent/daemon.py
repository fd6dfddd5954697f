"""Wires the agent: kernel records and looks into /proc become events, the spool keeps them, the link sends them."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import platform
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent import __version__
from agent.budget import MIB, Cost, CostMeter, Limits
from agent.celery.beat import CeleryBeat
from agent.clock import Clock
from agent.defects import Defects
from agent.hands import Hands
from agent.health_beat import HealthBeat
from agent.host_pressure import PressureBeat
from agent.identity import home_of
from agent.ids import new_event_id
from agent.kernel.figures import Figures
from agent.kernel.heap import trim
from agent.kernel.kernel import Kernel
from agent.kernel.ladder import DETAILS, Probe, parse_wishes
from agent.kernel.opening import open_kernel
from agent.link import Link, LinkError
from agent.lookout import Lookout
from agent.memory import Memory
from agent.oom_beat import oom_beat
from agent.overrides import OverridesError, load_overrides
from agent.privilege import Privileges
from agent.probes import row
from agent.procfs import ProcFs, own_network
from agent.protect import protect
from agent.pulse import next_pulse
from agent.queue_beat import QueueBeat
from agent.readings_beat import ReadingsBeat
from agent.reporter import Reporter
from agent.rollup import Rollup
from agent.service import Service
from agent.settings import Settings, SettingsError
from agent.shedding import SheddableReporter, Shedding
from agent.snapshots import Snapshots
from agent.spool import Spool, SpoolError
from agent.stacks import Stacks
from agent.status import Look, document, settings_for_server
from agent.status_past import Past
from agent.status_socket import StatusSocket
from agent.watcher import Watcher

log = logging.getLogger(__name__)

LOSSES_EVERY_TICKS = 10
"""How often losses are looked for on a quiet host; a full buffer has been read since the last look, and is looked at at once."""

COST_EVERY_TICKS = 10
FIGURES_EVERY_TICKS = 30
RENEW_EVERY_TICKS = 300
LOOK_AROUND_EVERY_TICKS = 300
FIRST_LOOKS_TICKS = (2, 4, 8, 16, 32, 64)
"""What began to start just before the agent did, such as a second master without workers yet, shows only after a while."""

STOP_GRACE_S = 3.0
MEMORY_FILE = "services.json"
SNAPSHOTS_FOLDER = "snapshots"


class DaemonError(RuntimeError):
    """The agent cannot run; the text says why and what to do."""


class WrongSetting(DaemonError):
    """What a person has to mend: starting again does not help."""


class Daemon:
    """One running agent. `run` returns after SIGTERM or SIGINT, with everything sent that can be sent."""

    def __init__(self, settings: Settings, privileges: Privileges) -> None:
        """Opens the spool; raises DaemonError when that cannot be used, WrongSetting for what the settings name."""
        self._settings = settings
        self._privileges = privileges
        self._clock = Clock()
        self._started_us = self._clock.now_us()
        try:
            host_key = self._host_key = settings.read_host_key()
            self._overrides = load_overrides(settings.services_file)
            self._spool = Spool.open(settings.state_dir / "spool", settings.spool_max_bytes)
            self._link = Link(
                settings.server_url,
                host_key,
                self._spool,
                self.status,
                rejected_file=settings.state_dir / "rejected.jsonl",
                allow_plain_http=settings.allow_plain_http,
            )
        except (SettingsError, OverridesError, LinkError) as error:
            raise WrongSetting(str(error)) from None
        except SpoolError as error:
            raise DaemonError(str(error)) from None
        self._reporter = Reporter(self._spool, self._clock)
        self._defects = Defects(settings.host, self._reporter, self._clock)
        self._procfs = ProcFs(settings.proc_root)
        self._rollup = Rollup(new_event_id)
        self._meter = CostMeter(self._procfs, os.getpid(), self._clock.monotonic_ns())
        self._cost: Cost | None = None
        limits = Limits(settings.cpu_budget_percent, settings.memory_budget_mb * MIB)
        self._shedding = Shedding(limits, self._reporter, settings.host)
        self._queue_reporter = SheddableReporter(self._spool, self._clock, self._shedding.wants_queues)
        self._readings_reporter = SheddableReporter(self._spool, self._clock, self._shedding.wants_readings)
        self._kernel = Kernel((), (), None)
        self._watcher = Watcher(self._procfs, self._rollup, self._clock, self._kernel)
        self._queues = QueueBeat(self._procfs, self._rollup, self._kernel, self._queue_reporter, self._clock)
        self._readings = ReadingsBeat(self._procfs, self._rollup, self._kernel, self._readings_reporter, self._clock)
        self._stacks = Stacks(self._procfs)
        self._health = self._new_health()
        self._past = Past()
        for reporter in (self._reporter, self._queue_reporter, self._readings_reporter):
            reporter.notice = self._past.notice
        self._status_socket = StatusSocket(settings.state_dir, self.document)
        self._celery = CeleryBeat(
            self._procfs,
            self._rollup,
            self._reporter,
            self._readings_reporter,
            self._clock,
            settings.host,
            self._stacks,
            stuck_after_s=settings.celery_stuck_after_s,
            backlog_window_s=settings.celery_backlog_window_s,
        )
        self._hands: Hands | None = None
        self._figures: Mapping[str, Figures] = {}
        self._socket_troubles: list[str] = []
        self._sampled_sent = 0
        self._sampled_lost = 0
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Watches until it is told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        await self._link.start()
        opened = await self._status_socket.open()
        self._socket_troubles = [] if opened is None else [opened]
        self._attach(loop)
        await self._lookout.first_look(self._stopping)
        if self._hands is not None:
            self._hands.remember()
        # Modules and their like live as long as the agent: the collector need not look at them again and again.
        gc.collect()
        gc.freeze()
        trim()
        beats = [asyncio.create_task(self._defects.outlive(beat)) for beat in self._beats()]
        log.info("watching %d services, sending to %s", len(self._rollup.services), self._settings.server_url)
        await self._stopping.wait()
        for task in beats:
            task.cancel()
        await asyncio.gather(*beats, return_exceptions=True)
        await self._stop(loop)

    def status(self) -> dict[str, Any]:
        """What the server is told about this agent with every batch; docs/api.md names the fields."""
        counts, services = self._kernel.counts(), self._rollup.services.values()
        processes = len(services) + sum(len(service.workers) for service in services)
        return {
            "version": __version__,
            "kernel": platform.release(),
            "started_us": self._started_us,
            "cpu_percent": self._cost.cpu_percent if self._cost else None,
            "rss_bytes": self._cost.rss_bytes if self._cost else None,
            "budget": self._shedding.status(),
            "privileges": self._privileges.status(),
            "spool_bytes": self._spool.pending_bytes,
            "records": {name: count.sent for name, count in counts.items()},
            "lost": {name: count.lost for name, count in counts.items()},
            "probes": [row(probe, self._figures.get(probe.signal)) for probe in self._kernel.probes],
            "playbooks": self._hands.reflexes.status() if self._hands is not None else None,
            "releases": self._hands.release_status() if self._hands is not None else None,
            "services": [_service_status(service, processes) for service in services],
        }

    def document(self) -> dict[str, Any]:
        """What this host looks like now; docs/status.md names the keys."""
        look = Look(
            host=self._settings.host,
            version=__version__,
            now_us=self._clock.now_us(),
            now_s=self._clock.monotonic_ns() / 1e9,
            boot_s=float(self._clock.boot_second()),
            services=list(self._rollup.services.values()),
            queues=self._queues.latest(),
            saturated=self._queues.saturated(),
            memory=self._readings.memory(),
            read_s=self._readings.read_s,
            celery=self._celery.status(),
            probes=[row(probe, self._figures.get(probe.signal)) for probe in self._kernel.probes],
            link={
                "url": self._settings.server_url,
                "connected": self._link.connected,
                "trouble": self._link.trouble or None,
                "spool_bytes": self._spool.pending_bytes,
            },
            judgements=self._health.judgements,
        )
        return document(look, self._past)

    def _beats(self) -> list[Callable[[], Awaitable[None]]]:
        beats: list[Callable[[], Awaitable[None]]] = [*self._lookout.beats(), self._tick_beat, self._queues.queue_beat]
        beats += [self._ooms.oom_beat, self._pressure.pressure_beat]
        beats.append(self._celery.celery_beat)
        if self._hands is not None:
            beats += [self._hands.command_beat, self._hands.reflex_beat]
        beats += [self._readings.readings_beat, self._health.health_beat, self._health.memory_beat]
        return beats

    def _attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Attaches to the kernel before the first scan, so that nothing falls between the two."""
        self._kernel = open_kernel(self._settings.bpf_object, parse_wishes(self._settings.rungs), self._procfs)
        started = self._reporter.about_agent(
            "agent.started",
            f"The agent started on {self._settings.host} (reflexd {__version__}, Linux {platform.release()}).",
            attrs={"version": __version__, "kernel": platform.release(), "pid": os.getpid()},
        )
        for probe in self._kernel.probes:
            self._report_probe(probe, started)
        memory = Memory(self._settings.state_dir / MEMORY_FILE, self._procfs.boot_id())
        network = own_network() if self._settings.only_own_network else None
        self._watcher = Watcher(self._procfs, self._rollup, self._clock, self._kernel, memory, self._overrides, network)
        self._queues = QueueBeat(self._procfs, self._rollup, self._kernel, self._queue_reporter, self._clock)
        self._readings = ReadingsBeat(self._procfs, self._rollup, self._kernel, self._readings_reporter, self._clock)
        self._health = self._new_health()
        self._readings.health = self._health
        host = self._settings.host
        self._ooms = oom_beat(self._kernel, self._procfs, self._rollup, self._reporter, self._clock, host)
        self._pressure = PressureBeat(host, self._procfs, self._rollup, self._reporter, self._clock)
        self._open_hands()
        takers = [self._celery.notice, self._health.notice, *([self._hands.notice] if self._hands is not None else [])]
        self._lookout = Lookout(
            host, self._kernel, self._watcher, self._ooms, self._reporter, self._clock, self._defects, takers
        )
        for source in self._kernel.sources:
            loop.add_reader(source.fd, self._lookout.read_kernel)
        self._settle(started)

    def _new_health(self) -> HealthBeat:
        settings, stacks = self._settings, self._stacks
        return HealthBeat(
            self._procfs,
            self._rollup,
            self._watcher.heartbeats,
            stacks,
            Snapshots(self._procfs, stacks, settings.state_dir / SNAPSHOTS_FOLDER, self._reporter.artifact),
            self._reporter,
            self._readings_reporter,
            self._clock,
            boot_hang_s=settings.boot_hang_s,
            stuck_after_s=settings.stuck_after_s,
        )

    def _open_hands(self) -> None:
        """Without a journal of commands nothing may be done to the host; watching goes on."""
        try:
            self._hands = Hands(
                self._settings,
                self._host_key,
                self._procfs,
                self._rollup,
                self._celery,
                self._reporter,
                self._clock,
                self._health.snapshot,
                (self._reporter, self._queue_reporter, self._readings_reporter),
            )
        except OSError as error:
            self._socket_troubles.append(f"takes no commands: their journal cannot be written ({error.strerror})")

    def _settle(self, cause: str) -> None:
        """From here on the agent is hard to kill for want of memory, and may do no more than it still has to."""
        troubles = [
            *self._socket_troubles,
            *protect(self._settings.oom_score_adj),
            *self._privileges.settle(self._kernel.probes),
        ]
        for trouble in troubles:
            text = f"The agent on {self._settings.host} {trouble}."
            self._reporter.about_agent("agent.privileges", text, severity="warning", cause=cause)

    def _report_probe(self, probe: Probe, cause: str) -> None:
        attached = probe.state == "attached"
        if attached:
            text = f"The agent on {self._settings.host} hears {probe.signal} by {probe.rung}."
        elif probe.state == "degraded":
            text = f"The agent on {self._settings.host} hears {probe.signal} only by {probe.rung}: {probe.reason}."
        else:
            text = f"The agent on {self._settings.host} does not hear {probe.signal}: {probe.reason}."
        self._reporter.about_agent(
            "probe.attached" if attached else "probe.degraded",
            text,
            severity="info" if attached or (probe.state == "degraded" and probe.signal in DETAILS) else "warning",
            cause=cause,
            attrs={"signal": probe.signal, "state": probe.state, "rung": probe.rung, "reason": probe.reason},
        )

    async def _tick_beat(self) -> None:
        ticks = 0
        while True:
            await next_pulse()
            ticks += 1
            self._clock.refresh()
            self._lookout.tick()
            await self._spool.sync()
            self._report_drops()
            if self._lookout.take_has_heard() or ticks % LOSSES_EVERY_TICKS == 1:
                self._lookout.report_losses()
            if ticks % COST_EVERY_TICKS == 1:
                self._sample_cost()
            if ticks % FIGURES_EVERY_TICKS == 1:
                self._figures = self._kernel.figures()
            if ticks % LOOK_AROUND_EVERY_TICKS == 1 or ticks in FIRST_LOOKS_TICKS or self._watcher.is_in_doubt:
                self._lookout.look_around()
            if ticks % RENEW_EVERY_TICKS == 1:
                self._kernel.renew(self._watcher.is_gone)

    def _report_drops(self) -> None:
        for drop in self._spool.take_drops():
            self._reporter.about_agent(
                "agent.spool_dropped",
                f"The agent on {self._settings.host} gave up {drop.count} spooled {drop.stream}: {drop.reason}.",
                severity="critical" if drop.stream == "events" else "warning",
                attrs={"stream": drop.stream, "count": drop.count, "reason": drop.reason},
            )

    def _sample_cost(self) -> None:
        self._cost = self._meter.read(self._clock.monotonic_ns())
        if self._cost is not None:
            self._shedding.look(self._clock.monotonic_ns() / 1e9, self._cost, self._readings)
            self._reporter.sample("agent.cpu_percent", self._cost.cpu_percent)
            self._reporter.sample("agent.rss_bytes", self._cost.rss_bytes)
        self._reporter.sample("agent.spool_bytes", self._spool.pending_bytes)
        counts = self._kernel.counts().values()
        sent, lost = sum(c.sent for c in counts), sum(c.lost for c in counts)
        self._reporter.sample("agent.records", sent - self._sampled_sent)
        self._reporter.sample("agent.lost_records", lost - self._sampled_lost)
        self._sampled_sent, self._sampled_lost = sent, lost

    async def _stop(self, loop: asyncio.AbstractEventLoop) -> None:
        self._lookout.drain()
        self._ooms.finish()
        if self._hands is not None:
            await self._hands.stop()
        await self._celery.stop()
        await self._status_socket.close()
        for source in self._kernel.sources:
            loop.remove_reader(source.fd)
        self._kernel.close()
        self._kernel = Kernel((), (), None)
        self._reporter.about_agent("agent.stopped", f"The agent on {self._settings.host} stopped in good order.")
        await self._link.stop(STOP_GRACE_S)
        self._spool.close()


def _service_status(service: Service, processes: int) -> dict[str, Any]:
    home = home_of(service.cgroup)
    return {
        "name": service.name,
        "kind": service.kind,
        "master_pid": service.master_pid,
        "unit": home.unit,
        "container": home.container,
        "listeners": list(dict.fromkeys(listener.address for listener in service.listeners)),
        **settings_for_server(service, processes),
        "workers": [
            {
                "slot": worker.ref.slot,
                "generation": worker.ref.generation,
                "pid": worker.ref.pid,
                "start_ticks": worker.ref.start_ticks,
                "state": "booting" if worker.ready_us is None else "ready",
                "since_us": worker.started_us if worker.ready_us is None else worker.ready_us,
            }
            for worker in sorted(service.workers.values(), key=lambda w: w.ref.slot)
        ],
    }
