"""Tells when the whole host runs out of memory, while there is still time to act, and which worker holds the most."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from agent.clock import Clock
from agent.ids import new_event_id
from agent.procfs import ProcFs
from agent.pulse import next_pulse
from agent.reporter import Reporter
from agent.rollup import Rollup
from agent.service import Service, Worker
from agent.wire import Event, Evidence, Scalar, Severity
from agent.words import size, span

LOOK_EVERY_TICKS = 2
SCARCE = 0.08
"""So little of the memory is available: that is pressure where tasks wait for memory as well."""

ALL_BUT_GONE = 0.03
"""So little is pressure by itself."""

STALLED_PERCENT = 5.0
"""Some task waited for memory for this share of the last 10 s (PSI)."""

HOLD_S = 6.0
ENOUGH = 0.12
OVER_S = 20.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Memory of the host in bytes; `stalled` in per cent of the last 10 s, None where the kernel does not say."""

    total: int
    available: int
    stalled: float | None

    @property
    def is_tight(self) -> bool:
        """Whether memory is about to run out."""
        share = self.available / self.total
        return share <= ALL_BUT_GONE or (share <= SCARCE and (self.stalled is None or self.stalled >= STALLED_PERCENT))


class Pressure:
    """From readings to a beginning and an end. What lasts less than HOLD_S is none."""

    def __init__(self) -> None:
        self._tight_s: float | None = None
        self._enough_s: float | None = None
        self.began_s: float | None = None

    def step(self, now_s: float, reading: Reading) -> Literal["begun", "over"] | None:
        """What has changed."""
        if self.began_s is None:
            self._tight_s = (now_s if self._tight_s is None else self._tight_s) if reading.is_tight else None
            if self._tight_s is None or now_s - self._tight_s < HOLD_S:
                return None
            self.began_s, self._enough_s = self._tight_s, None
            return "begun"
        has_enough = reading.available / reading.total >= ENOUGH
        self._enough_s = (now_s if self._enough_s is None else self._enough_s) if has_enough else None
        if self._enough_s is None or now_s - self._enough_s < OVER_S:
            return None
        self.began_s = self._tight_s = None
        return "over"


class PressureBeat:
    """Looks at the host's memory for ever."""

    def __init__(self, host: str, procfs: ProcFs, rollup: Rollup, reporter: Reporter, clock: Clock) -> None:
        self._host = host
        self._procfs = procfs
        self._rollup = rollup
        self._reporter = reporter
        self._clock = clock
        self._pressure = Pressure()
        self._told: Event | None = None

    async def pressure_beat(self) -> None:
        """Every other second."""
        while True:
            for _ in range(LOOK_EVERY_TICKS):
                await next_pulse()
            self._look(self._clock.monotonic_ns() / 1e9)

    def _look(self, now_s: float) -> None:
        memory = self._procfs.host_memory()
        if memory is None:
            return
        reading = Reading(*memory, self._procfs.memory_stalled())
        since_s = self._pressure.began_s
        change = self._pressure.step(now_s, reading)
        if change == "begun":
            self._tell_begun(reading)
        elif change == "over" and since_s is not None:
            self._tell_over(reading, now_s - since_s)

    def _tell_begun(self, reading: Reading) -> None:
        worker, service_bytes = most_of(self._rollup.services.values())
        waits = (
            "" if reading.stalled is None else f", and tasks waited for memory {reading.stalled:.0f} % of the last 10 s"
        )
        text = f"{self._host} runs out of memory: {size(reading.available)} of {size(reading.total)} are available{waits}. "
        if worker is None:
            text += "No service that is watched here holds much of it."
        else:
            text += (
                f"Of what is watched, {worker.service.name} holds the most, {size(service_bytes)}, and of that worker "
                f"{worker.ref.slot} (pid {worker.ref.pid}) {size(worker.health.memory_bytes or 0)}."
            )
        self._told = self._event("host.memory_pressure", "critical", text, reading, worker)
        self._reporter.events((self._told,))

    def _tell_over(self, reading: Reading, lasted_s: float) -> None:
        text = (
            f"{self._host} has memory again: {size(reading.available)} of {size(reading.total)} are available, "
            f"{span(lasted_s)} after it began to run out."
        )
        self._reporter.events((self._event("host.memory_pressure_over", "info", text, reading, None),))
        self._told = None

    def _event(self, kind: str, severity: Severity, text: str, reading: Reading, worker: Worker | None) -> Event:
        """The end is about the service that the beginning was about: a playbook waits for it there."""
        now_us = self._clock.now_us()
        attrs: dict[str, Scalar] = {"available_bytes": reading.available, "total_bytes": reading.total}
        evidence = [Evidence("/".join(("", "proc", "meminfo")), f"MemAvailable {size(reading.available)}")]
        if reading.stalled is not None:
            attrs["stalled_percent"] = reading.stalled
            evidence.append(Evidence("PSI", f"some avg10 {reading.stalled:.2f}"))
        before = self._told if worker is None else None
        return Event(
            id=new_event_id(now_us),
            ts_us=now_us,
            kind=kind,
            severity=severity,
            text=text,
            service=worker.service.name if worker is not None else before.service if before is not None else None,
            worker=worker.ref if worker is not None else None,
            cause=before.id if before is not None else None,
            evidence=tuple(evidence),
            attrs=attrs,
        )


def most_of(services: Collection[Service]) -> tuple[Worker | None, int]:
    """The largest worker of the service whose workers hold the most, and what they hold in bytes."""
    held = [(sum(_bytes(worker) for worker in _workers(one)), one) for one in services if one.stopped_event is None]
    largest_bytes, service = max(held, key=lambda pair: pair[0], default=(0, None))
    if service is None or not largest_bytes:
        return None, 0
    return max(_workers(service), key=_bytes), largest_bytes


def _workers(service: Service) -> Sequence[Worker]:
    return list(service.workers.values())


def _bytes(worker: Worker) -> int:
    return worker.health.memory_bytes or 0
