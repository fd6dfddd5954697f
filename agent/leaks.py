"""Tells of services whose workers leak, once for each service, and of workers that have stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agent.health_sentences import subject
from agent.leak import Leak, seconds_left, will_fill
from agent.limits import MemoryLimits, Room
from agent.service import Service, Worker
from agent.wire import Row, WorkerRef

APART_S = 1800.0
"""A service is told of again after this time, if other workers of it leak by then; sooner once all that were told of are gone."""

OVER_AFTER_S = 600.0
"""A worker leaks no more when its memory has shown no trend for this long, and for as long as the trend had lasted."""


@dataclass(frozen=True, slots=True)
class _Told:
    """When a service was told of last, and which workers of it."""

    at_s: float
    workers: frozenset[WorkerRef]


Leaking = list[tuple[Worker, Leak]]


class Leaks:
    """The leaks of all services of the host."""

    def __init__(self, limits: MemoryLimits) -> None:
        self.judgements = 0
        self._limits = limits
        self._grew: dict[int, Service] = {}
        self._told: dict[str, _Told] = {}

    def reading(self, worker: Worker, memory_bytes: int, now_s: float) -> bool:
        """A reading of a worker's memory; whether a leak that was told of is over by it."""
        health = worker.health
        health.memory_bytes = memory_bytes
        if not health.series.add(now_s, memory_bytes):
            return False
        self.judgements += 1
        leak = health.series.leak()
        if leak is not None:
            health.leak, health.leak_seen_s = leak, now_s
            self._grew[worker.service.master_pid] = worker.service
            return False
        is_over = health.leaking_event is not None and _is_over(health.leak, health.leak_seen_s, now_s)
        if is_over or health.leaking_event is None:
            health.leak = health.time_left_s = None
        return is_over

    def look(
        self, services: Mapping[int, Service], now_s: float
    ) -> Iterator[tuple[Service, Leaking, Room, float, bool]]:
        """Services that have grown since the last look: who leaks, towards what, the time left in s, whether to tell."""
        for pid, service in self._grew.items():
            leaking = [(w, w.health.leak) for w in service.workers.values() if w.health.leak is not None]
            room = self._room(service, now_s)
            if services.get(pid) is not service or not leaking or room is None:
                continue
            slopes = [leak for _, leak in leaking]
            left_s = seconds_left(slopes, room.left_bytes)
            if left_s is None:
                continue
            for worker, _ in leaking:
                worker.health.time_left_s = left_s
            is_new = any(worker.health.leaking_event is None for worker, _ in leaking)
            tells = is_new and self._may_tell(service, now_s) and will_fill(slopes, room.left_bytes)
            if tells:
                self._told[service.name] = _Told(now_s, frozenset(worker.ref for worker, _ in leaking))
            yield service, leaking, room, left_s, tells
        self._grew.clear()

    def forget_others(self, names: set[str]) -> None:
        """Forgets services that are gone."""
        self._told = {name: told for name, told in self._told.items() if name in names}

    def _may_tell(self, service: Service, now_s: float) -> bool:
        """Whether it is long ago, or about workers that have been replaced since: what replaced them may leak as well."""
        told = self._told.get(service.name)
        if told is None or now_s - told.at_s >= APART_S:
            return True
        return told.workers.isdisjoint(worker.ref for worker in service.workers.values())

    def _room(self, service: Service, now_s: float) -> Room | None:
        """What is full first: the memory cgroup around the service, or the host."""
        rooms = (self._limits.room(service.cgroup, now_s), self._limits.host())
        return min((room for room in rooms if room is not None), key=lambda room: room.left_bytes, default=None)


def rows_of(service: Service, leaking: Leaking, left_s: float) -> list[Row]:
    """The samples of a leak."""
    rows: list[Row] = [
        ("worker.leak_bytes_per_s", round(leak.slope), service.name, subject(worker)) for worker, leak in leaking
    ]
    return [*rows, ("service.memory_time_left_s", round(left_s), service.name, None)]


def _is_over(leak: Leak | None, seen_s: float | None, now_s: float) -> bool:
    return leak is not None and seen_s is not None and now_s - seen_s >= max(OVER_AFTER_S, leak.seconds)
