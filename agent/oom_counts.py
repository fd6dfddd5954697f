"""Reads the kernel's counts of OOM kills: the host's, and those of the memory cgroups that hold services."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agent.counters import Counted
from agent.procfs import MemoryCgroups, ProcFs
from agent.service import Service

KEPT_US = 60_000_000
"""How long the cgroup of a service that has ended is still counted: its last kill is read after its end."""


class CountReader:
    """The counts as they are now. `services` gives the services that are known."""

    def __init__(self, procfs: ProcFs, services: Callable[[], Iterable[Service]], now_us: Callable[[], int]) -> None:
        self._procfs = procfs
        self._services = services
        self._now_us = now_us
        self._cgroups: MemoryCgroups | None = procfs.memory_cgroups()
        self._places: dict[str, tuple[str, int]] = {}
        self._group_kills = 0
        self._group_kills_in: dict[str, int] = {}

    @property
    def counter(self) -> str:
        """The file that counts for a cgroup."""
        return "" if self._cgroups is None else self._cgroups.counter

    def read(self) -> Counted | None:
        """All counts; None when the kernel does not count."""
        now_us = self._now_us()
        self._locate(now_us)
        kills = self._procfs.oom_kills()
        if kills is None:
            return None
        if self._cgroups is None:
            return Counted(now_us, kills, 0, {}, nested=False)
        paths = {path for path, _ in self._places.values()}
        found = {path: count.kills for path in paths if (count := self._cgroups.oom_count(path)) is not None}
        self.note_group_kills()
        return Counted(now_us, kills, self._group_kills, found, nested=self._cgroups.version == 2)

    def note_group_kills(self) -> None:
        """Counts them while their cgroups are still there; the more often it is called, the less it misses."""
        if self._cgroups is None:
            return
        now = self._cgroups.group_kills()
        self._group_kills += sum(max(count - self._group_kills_in.get(name, 0), 0) for name, count in now.items())
        self._group_kills_in = now

    def differs_from(self, before: Counted) -> bool:
        """Whether there is something to read: another kill, or a cgroup that `before` does not have."""
        self._locate(self._now_us())
        new_place = any(path not in before.cgroups for path, _ in self._places.values())
        return new_place or self._procfs.oom_kills() != before.kills

    def path_of(self, service: str | None) -> str | None:
        """The memory cgroup of a service; None for one at the top, and for one that is not known."""
        place = self._places.get(service or "")
        return None if place is None else place[0]

    def services_in(self, path: str) -> tuple[str, ...]:
        """The services of a memory cgroup, by name."""
        return tuple(sorted(name for name, (place, _) in self._places.items() if place == path))

    def _locate(self, now_us: int) -> None:
        for service in self._services():
            path = None if self._cgroups is None else self._cgroups.owner(service.cgroup)
            if path is not None:
                self._places[service.name] = (path, now_us)
        for name, (_, seen_us) in list(self._places.items()):
            if now_us - seen_us > KEPT_US:
                del self._places[name]
