"""What happened lately on this host, for `reflexd status`: deaths, notable events, services that are down. Pure, bounded."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.deaths import DEATHS
from agent.wire import Event
from agent.words import span

KEPT = 10
ENDS_COUNTED = 4000
DOWN_KEPT = 100
HOUR_US = 3_600_000_000
DOWN_FOR_US = 24 * HOUR_US
LOOP_WITHIN_US = 600_000_000
LOOP_DEATHS = 3

_WORKER_ENDS = frozenset({"clean_exit", "recycled", "stopped_by_master", "stopped_by_manager", "ended_with_master"})
_TOLD_ELSEWHERE = ("worker.exited", "worker.oom_killed", "service.stopped", "probe.attached", "probe.degraded")
_GOOD_NEWS = frozenset(
    {
        "service.started",
        "service.signalled",
        "queue.recovered",
        "worker.unstuck",
        "celery.backlog_over",
        "celery.task_unstuck",
        "celery.consumer_back",
        "celery.broker_back",
        "agent.shedding_ended",
        "deploy.started",
        "deploy.finished",
    }
)


@dataclass(frozen=True, slots=True)
class End:
    """The end of one worker; `is_death` when nobody wanted it."""

    ts_us: int
    service: str
    slot: int
    is_death: bool


@dataclass(frozen=True, slots=True)
class Down:
    """The end of a master that nobody wanted: when, and the sentence that the timeline has."""

    ts_us: int
    text: str


class Past:
    """Takes note of every event that the agent tells. What it keeps does not grow with their number."""

    def __init__(self) -> None:
        self._deaths: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._notable: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._ends: deque[End] = deque(maxlen=ENDS_COUNTED)
        self._down: dict[str, Down] = {}

    def notice(self, event: Event) -> None:
        """Takes note of it if it is worth it."""
        if event.kind in ("worker.exited", "service.stopped"):
            self._note_end(event)
        elif event.kind not in _TOLD_ELSEWHERE and (event.severity != "info" or event.kind in _GOOD_NEWS):
            self._notable.append(_notable(event))

    def deaths(self) -> list[dict[str, Any]]:
        """The last KEPT ends of workers and masters that nobody wanted, newest first."""
        return list(reversed(self._deaths))

    def notable(self) -> list[dict[str, Any]]:
        """The last KEPT other events that a person should know of, newest first."""
        return list(reversed(self._notable))

    def ended_last_hour(self, now_us: int) -> Mapping[tuple[str, int], int]:
        """How many workers of each lane, by service and slot, ended within the last hour; recycled ones count, too."""
        while self._ends and now_us - self._ends[0].ts_us > HOUR_US:
            self._ends.popleft()
        return Counter((end.service, end.slot) for end in self._ends)

    def down(self, alive: Collection[str], now_us: int) -> Iterator[tuple[str, Down]]:
        """Services whose master died within the last day and which have no other; `alive` are names of those that have."""
        for name, down in list(self._down.items()):
            if name in alive or now_us - down.ts_us > DOWN_FOR_US:
                del self._down[name]
            else:
                yield name, down

    def loops(self, now_us: int) -> Iterator[tuple[str, str]]:
        """Services whose workers die again and again, and the words for it."""
        deaths = [end for end in self._ends if end.is_death and now_us - end.ts_us < LOOP_WITHIN_US]
        last = {end.service: end.ts_us for end in deaths}
        for service, count in Counter(end.service for end in deaths).items():
            if count >= LOOP_DEATHS:
                last_us = last[service]
                ago = span(max(0.0, (now_us - last_us) / 1e6))
                yield (
                    service,
                    f"{count} of its workers died within {span(LOOP_WITHIN_US / 1e6)}, the last one {ago} ago",
                )

    def _note_end(self, event: Event) -> None:
        is_master, death = event.kind == "service.stopped", event.attrs.get("death")
        is_death = event.severity != "info" if is_master else death not in _WORKER_ENDS
        if is_death:
            self._deaths.append(_death(event))
        if event.service is None:
            return
        if is_master and is_death:
            self._down.pop(event.service, None)
            self._down[event.service] = Down(event.ts_us, event.text)
            if len(self._down) > DOWN_KEPT:
                del self._down[next(iter(self._down))]
        elif event.worker is not None:
            self._ends.append(End(event.ts_us, event.service, event.worker.slot, is_death))


def _death(event: Event) -> dict[str, Any]:
    death = str(event.attrs.get("death"))
    return {
        "ts_us": event.ts_us,
        "event": event.id,
        "service": event.service,
        "slot": None if event.worker is None else event.worker.slot,
        "pid": None if event.worker is None else event.worker.pid,
        "release": event.release,
        "death": death,
        "meaning": DEATHS.get(death),
        "text": event.text,
    }


def _notable(event: Event) -> dict[str, Any]:
    return {
        "ts_us": event.ts_us,
        "event": event.id,
        "kind": event.kind,
        "severity": event.severity,
        "service": event.service,
        "text": event.text,
    }
