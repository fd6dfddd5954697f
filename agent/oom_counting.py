"""OOM kills by the kernel's counts alone, where its OOM records cannot be had: how many died, where, and who it most likely was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent import oom_sentences as sentences
from agent.counters import Counted, rise
from agent.ids import new_event_id
from agent.oom_counts import CountReader
from agent.pulse import next_pulse
from agent.wire import Event

EXPLAINS_US = 5_000_000
"""How long a counted kill explains a death: a scan notices deaths up to two seconds late."""

_DEATHS = ("worker.exited", "service.stopped")
_NOT_SEEN = ("killed_unseen", "kernel_kill", "unknown")
_MASTERS = ("service.found", "service.started")


@dataclass(slots=True)
class _Unexplained:
    """A counted kill of a cgroup, as long as it may explain deaths: as many as it counted."""

    event: Event
    deaths_left: int


class OomCounting:
    """Tells counted kills as events, and names them as the likely cause of deaths that nobody saw happen."""

    def __init__(self, reader: CountReader, tell: Callable[[list[Event]], None], host: str) -> None:
        self._reader = reader
        self._tell = tell
        self._host = host
        self._last = reader.read()
        self._unexplained: dict[str, list[_Unexplained]] = {}

    def notice(self, events: list[Event]) -> list[Event]:
        """The events, with what was counted before them, and with likely causes."""
        unseen = [event.ts_us for event in events if _is_unseen_death(event)]
        if not unseen and not any(event.kind in _MASTERS for event in events):
            return events
        return [*self._look(before_us=min(unseen, default=None)), *map(self._explained, events)]

    async def oom_beat(self) -> None:
        """Looks about once a second."""
        while True:
            await next_pulse()
            self._tell(self._look())

    def finish(self) -> None:
        """Tells what was counted last."""
        self._tell(self._look())

    def _look(self, before_us: int | None = None) -> list[Event]:
        """What was counted since the last look: by now, or, where a death is the reason to look, just before that."""
        if self._last is None or not self._reader.differs_from(self._last):
            return []
        now = self._reader.read()
        if now is None:
            return []
        events = self._counted(self._last, now, now.at_us if before_us is None else min(now.at_us, before_us - 1))
        self._last = now
        return events

    def _counted(self, before: Counted, now: Counted, at_us: int) -> list[Event]:
        risen = rise(before, now)
        seconds = (now.at_us - before.at_us) / 1e6
        events = []
        for path, kills in risen.cgroups.items():
            services = self._reader.services_in(path)
            text = sentences.killed_in_cgroup(kills, path, services)
            only = services[0] if len(services) == 1 else None
            event = _event(at_us, text, self._reader.counter, kills, seconds, service=only, path=path)
            self._unexplained[path] = [*self._recent(path, at_us), _Unexplained(event, kills)]
            events.append(event)
        if risen.elsewhere:
            text = sentences.killed_elsewhere(risen.elsewhere, self._host)
            events.append(_event(at_us, text, "vmstat", risen.elsewhere, seconds))
        return events

    def _explained(self, event: Event) -> Event:
        path = self._reader.path_of(event.service)
        if path is None or not _is_unseen_death(event):
            return event
        waiting = self._recent(path, event.ts_us)
        if not waiting:
            return event
        waiting[0].deaths_left -= 1
        self._unexplained[path] = [one for one in waiting if one.deaths_left]
        return sentences.likely_killed(event, waiting[0].event)

    def _recent(self, path: str, at_us: int) -> list[_Unexplained]:
        return [one for one in self._unexplained.get(path, ()) if at_us - one.event.ts_us < EXPLAINS_US]


def _is_unseen_death(event: Event) -> bool:
    return event.kind in _DEATHS and event.cause is None and event.attrs.get("death") in _NOT_SEEN


def _event(
    at_us: int,
    text: str,
    source: str,
    kills: int,
    seconds: float,
    *,
    service: str | None = None,
    path: str | None = None,
) -> Event:
    return Event(
        id=new_event_id(at_us),
        ts_us=at_us,
        kind="process.oom_killed",
        severity="critical",
        text=text,
        service=service,
        evidence=(sentences.count_evidence(source, kills, seconds),),
        attrs=sentences.count_attrs(source, kills, path),
    )
