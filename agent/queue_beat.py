"""Reads the accept queues of all services once a second: samples of the second that is over, events when one is full."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from agent import queue_sentences as sentences
from agent.clock import Clock
from agent.ids import new_event_id
from agent.kernel.ladder import Probe
from agent.kernel.queues import QueueReading
from agent.listeners import ListenerKeeper
from agent.procfs import ProcFs
from agent.pulse import next_pulse
from agent.queues import QueueSecond, Saturation, WaitEstimate, between, mean_wait_ms, percentile_ms, together
from agent.reporter import Reporter
from agent.service import Service
from agent.wire import Event, Scalar

WORKERS_EVERY_TICKS = 10
MASTERS_EVERY_TICKS = 60
RELOADS_FOR_US = 10_000_000
"""After a signal to a master it may be about to change its sockets."""


class QueueKernel(Protocol):
    """What the beat asks of the kernel."""

    @property
    def looks_at_queues(self) -> bool: ...

    def probe(self, signal: str) -> Probe: ...

    def watch_listener(self, inode: int, holder_pid: int | None = None) -> None: ...

    def forget_listener(self, inode: int) -> None: ...

    def look_at_queues(self, second: int) -> None: ...

    def queues(self, second: int) -> Mapping[int, QueueReading]: ...


class Services(Protocol):
    """Where the services are."""

    @property
    def services(self) -> Mapping[int, Service]: ...


@dataclass(slots=True)
class _Queue:
    """The queue, or by reuse_port the queues, that clients of one address of one service meet."""

    service: str
    address: str
    inodes: tuple[int, ...]
    saturation: Saturation = field(default_factory=Saturation)
    estimate: WaitEstimate = field(default_factory=WaitEstimate)
    saturated_event: str | None = None
    latest: QueueSecond | None = None


class QueueBeat:
    """All accept queues of the host's services."""

    def __init__(self, procfs: ProcFs, rollup: Services, kernel: QueueKernel, reporter: Reporter, clock: Clock) -> None:
        self._rollup = rollup
        self._kernel = kernel
        self._reporter = reporter
        self._clock = clock
        self._keeper = ListenerKeeper(procfs)
        self._queues: dict[tuple[str, str], _Queue] = {}
        self._before: dict[int, QueueReading] = {}
        self._told_until = 0
        self._ticks = 0
        self._masters: tuple[int, ...] = ()

    def latest(self) -> dict[tuple[str, str], QueueSecond]:
        """The last second of every queue, by service and address."""
        return {key: queue.latest for key, queue in self._queues.items() if queue.latest is not None}

    def saturated(self) -> frozenset[tuple[str, str]]:
        """The queues that are full now."""
        return frozenset(key for key, queue in self._queues.items() if queue.saturation.since_us is not None)

    async def queue_beat(self) -> None:
        """Ticks for ever, on every pulse."""
        while True:
            await next_pulse()
            self.tick()
            if self._kernel.looks_at_queues:
                await asyncio.sleep(0.5)
                self._kernel.look_at_queues(self._clock.boot_second())

    def tick(self) -> None:
        """Tells of everything up to the last second that is over."""
        self._refresh()
        second = self._clock.boot_second()
        readings = self._kernel.queues(second)
        for queue in self._queues.values():
            self._tell(queue, readings, until=second - 1)
        self._before = dict(readings)
        self._told_until = second - 1

    def _refresh(self) -> None:
        """Looks for new listeners where there may be some."""
        services, since_us = self._rollup.services, self._clock.now_us() - RELOADS_FOR_US
        masters = tuple(services)
        masters_again = (
            self._ticks % MASTERS_EVERY_TICKS == 0
            or masters != self._masters
            or any(service.signalled_us > since_us for service in services.values())
        )
        if masters_again or self._ticks % WORKERS_EVERY_TICKS == 0:
            self._keeper.refresh(services.values(), masters_again=masters_again)
            self._arrange()
        self._masters = masters
        self._ticks += 1

    def _arrange(self) -> None:
        """Watches every listener that a service has now, and forgets those that none has any more."""
        inodes: dict[tuple[str, str], list[int]] = {}
        seen: set[int] = set()
        # A master that replaces another shares its sockets; they belong to the younger, which is the later one.
        for service in reversed(list(self._rollup.services.values())):
            for listener in service.listeners:
                if listener.inode not in seen:
                    seen.add(listener.inode)
                    inodes.setdefault((service.name, listener.address), []).append(listener.inode)
                    self._kernel.watch_listener(listener.inode, self._keeper.holder(listener.inode))
        for inode in self._before.keys() - seen:
            self._kernel.forget_listener(inode)
        self._queues = {key: self._queue(key, tuple(sorted(group))) for key, group in inodes.items()}

    def _queue(self, key: tuple[str, str], inodes: tuple[int, ...]) -> _Queue:
        queue = self._queues.get(key) or _Queue(*key, inodes)
        queue.inodes = inodes
        return queue

    def _tell(self, queue: _Queue, readings: Mapping[int, QueueReading], *, until: int) -> None:
        parts = {
            inode: between(
                self._before.get(inode, QueueReading()), readings[inode], after=self._told_until, until=until
            )
            for inode in queue.inodes
            if inode in readings
        }
        if not parts:
            return
        whole = queue.latest = together(list(parts.values()))
        self._sample(queue, whole)
        if len(parts) > 1:
            for inode, part in parts.items():
                self._sample_depth(queue.service, f"{queue.address} inode {inode}", part)
        self._judge(queue, whole)

    def _sample(self, queue: _Queue, second: QueueSecond) -> None:
        estimate_ms = queue.estimate.step(second) if second.accepts is None else None
        if not second.had_traffic:
            return
        self._sample_depth(queue.service, queue.address, second)
        values = {
            "queue.wait_mean_ms": mean_wait_ms(second),
            "queue.wait_mean_ms_estimated": estimate_ms if second.arrivals else None,
            "queue.wait_p50_ms": percentile_ms(second, 0.5),
            "queue.wait_p99_ms": percentile_ms(second, 0.99),
            "queue.wait_max_ms": second.longest_wait_ns / 1e6 or None,
            "queue.overflows": second.turned_away,
            "queue.blocked": second.blocked,
        }
        for metric, value in values.items():
            if value is not None:
                self._reporter.sample(metric, round(value, 3), service=queue.service, subject=queue.address)

    def _sample_depth(self, service: str, subject: str, second: QueueSecond) -> None:
        values = {
            "queue.depth_peak": second.depth,
            "queue.limit": second.limit,
            "queue.arrivals": second.arrivals,
            "queue.accepts": second.accepts,
        }
        for metric, value in values.items():
            if value is not None and second.had_traffic:
                self._reporter.sample(metric, value, service=service, subject=subject)

    def _judge(self, queue: _Queue, second: QueueSecond) -> None:
        now_us, state = self._clock.now_us(), queue.saturation
        since_us = state.since_us
        change = state.step(second, now_us)
        if change is None:
            return
        numbers = sentences.attrs(queue.address, state, second.limit, len(queue.inodes))
        if change == "saturated":
            queue.saturated_event = self._report(
                queue,
                "queue.saturated",
                sentences.saturated(queue.service, queue.address, state, second.limit),
                numbers,
                now_us,
                second.limit,
            )
        elif since_us is not None:
            lasted_us = now_us - since_us
            self._report(
                queue,
                "queue.recovered",
                sentences.recovered(queue.service, queue.address, state, lasted_us),
                numbers | {"lasted_s": round(lasted_us / 1e6, 1)},
                now_us,
                second.limit,
            )

    def _report(
        self, queue: _Queue, kind: str, text: str, attrs: dict[str, Scalar], now_us: int, limit: int | None
    ) -> str:
        recovered = kind == "queue.recovered"
        event = Event(
            id=new_event_id(now_us),
            ts_us=now_us,
            kind=kind,
            severity="info" if recovered else sentences.severity(queue.saturation),
            text=text,
            service=queue.service,
            cause=queue.saturated_event if recovered else None,
            evidence=sentences.evidence(queue.saturation, limit, self._rungs()),
            attrs=attrs,
        )
        self._reporter.events((event,))
        return event.id

    def _rungs(self) -> dict[str, str]:
        return {signal: self._kernel.probe(signal).rung or "nothing" for signal in ("queue", "queue_overflow")}
