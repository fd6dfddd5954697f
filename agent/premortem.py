"""Watches for workers that are about to be killed, by the kernel for their memory or by their master for their silence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from agent import health_sentences as sentences
from agent.limits import MemoryLimits, Room
from agent.service import Service, Worker

FULL_SHARE = 0.85
TIMEOUT_SHARE = 0.8
CLOSE_SHARE = 0.6
"""From this share of a limit on, a cgroup is looked at on every look; below, now and then, and when a worker in it grew."""

CALM_LOOK_S = 10.0
MOST_WAIT_S = 10.0
"""A worker that became ready since the last look is looked at after this time at the latest."""

GREW_BYTES = 4 * 1024 * 1024
EASED_SHARE = 0.75
"""Below this share a cgroup that was full is no more; it may fill anew."""


@dataclass(frozen=True, slots=True)
class Danger:
    """A worker that may be killed soon, why, and the limit that is near."""

    worker: Worker
    why: str
    room: Room | None = None


class Heartbeats(Protocol):
    """Where heartbeats are read."""

    def heartbeat_age_s(self, worker: Worker) -> float | None: ...


@dataclass(slots=True)
class _Group:
    """A memory cgroup with services in it."""

    due_s: float = 0.0
    is_full: bool = False
    share: float = 0.0


class MemoryWatch:
    """Looks how full the memory cgroups of services are."""

    def __init__(self, limits: MemoryLimits) -> None:
        self._limits = limits
        self._groups: dict[str, _Group] = {}

    @property
    def is_close(self) -> bool:
        """Whether some cgroup is close to its limit, so that looks should be frequent."""
        return any(group.share >= CLOSE_SHARE and not group.is_full for group in self._groups.values())

    def grew(self, service: Service) -> None:
        """A worker of the service has taken much memory since it was last looked at."""
        if service.cgroup in self._groups:
            self._groups[service.cgroup].due_s = 0.0

    def look(self, services: Iterable[Service], now_s: float) -> Iterator[Danger]:
        """The workers that hold most in cgroups that have become full."""
        by_group: dict[str, list[Service]] = {}
        for service in services:
            by_group.setdefault(service.cgroup, []).append(service)
        self._groups = {path: self._groups.get(path) or _Group() for path in by_group}
        for path, group in self._groups.items():
            if now_s < group.due_s:
                continue
            room = self._limits.room(path, now_s)
            group.share = 0.0 if room is None else room.share
            group.due_s = now_s if group.share >= CLOSE_SHARE else now_s + CALM_LOOK_S
            if group.share < EASED_SHARE:
                group.is_full = False
            if room is None or group.is_full or room.share < FULL_SHARE:
                continue
            group.is_full = True
            largest = _largest(by_group[path])
            if largest is not None:
                yield Danger(largest, sentences.memory_reason(largest, room), room)


class TimeoutWatch:
    """Looks at heartbeats when they may be old enough: one that is a s old cannot be older than a + t after t s."""

    def __init__(self, heartbeats: Heartbeats) -> None:
        self._heartbeats = heartbeats
        self._due_s: dict[tuple[int, int], float] = {}
        self._next_s = 0.0
        self._seen_changes = -1

    def look(self, services: Iterable[Service], now_s: float, changes: int) -> Iterator[Danger]:
        """The workers that have been silent for most of their master's timeout.

        `changes` counts workers that came or went: without any, nothing is looked at before the next is due.
        """
        if changes == self._seen_changes and now_s < self._next_s:
            return
        self._seen_changes, self._next_s = changes, now_s + MOST_WAIT_S
        due_s: dict[tuple[int, int], float] = {}
        for service in services:
            timeout_s = service.timeout_s
            if not timeout_s:
                continue
            for worker in service.workers.values():
                if worker.heartbeat_inode is None or worker.ready_us is None:
                    continue
                ident = (worker.ref.pid, worker.ref.start_ticks)
                next_s = self._due_s.get(ident, 0.0)
                if now_s >= next_s:
                    age_s = self._heartbeats.heartbeat_age_s(worker)
                    if age_s is None:
                        continue
                    if age_s >= TIMEOUT_SHARE * timeout_s:
                        yield Danger(worker, sentences.timeout_reason(age_s, timeout_s))
                        next_s = now_s + timeout_s
                    else:
                        next_s = now_s + TIMEOUT_SHARE * timeout_s - age_s
                due_s[ident] = next_s
                self._next_s = min(self._next_s, next_s)
        self._due_s = due_s


def _largest(services: Iterable[Service]) -> Worker | None:
    workers = [worker for service in services for worker in service.workers.values()]
    return max(workers, key=lambda worker: worker.health.memory_bytes or 0, default=None)
