"""What this host looks like now, as one document: for `reflexd status`, a person at 3 a.m. and machines. Pure.

docs/status.md names every key. What is not known is null, never 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.deaths import DEATHS
from agent.identity import home_of
from agent.queues import QueueSecond
from agent.service import Service, Worker
from agent.wire import Event
from agent.words import size, span

DEATHS_KEPT = 10
DEATHS_COUNTED = 2000
RESTARTS_WITHIN_US = 3_600_000_000
QUIET_AFTER_S = 5.0
_EXPECTED = frozenset({"clean_exit", "recycled", "stopped_by_master", "stopped_by_manager", "ended_with_master"})


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process holds, in bytes, and which measure it is: `pss` with shared pages divided, else `anon`."""

    amount_bytes: int
    of: str


@dataclass(frozen=True, slots=True)
class Look:
    """What the document is made of. Times of the monotonic clock in s, of the wall clock in us."""

    host: str
    version: str
    now_us: int
    now_s: float
    services: Sequence[Service]
    queues: Mapping[tuple[str, str], QueueSecond]
    saturated: frozenset[tuple[str, str]]
    memory: Mapping[tuple[int, int], Memory]
    celery: Sequence[Mapping[str, Any]]
    probes: Sequence[Mapping[str, Any]]
    link: Mapping[str, Any]
    source: str = "agent"
    judgements: int = 0


class LastDeaths:
    """The last ends of masters and workers, bounded; fed with every event."""

    def __init__(self) -> None:
        self._all: deque[Event] = deque(maxlen=DEATHS_COUNTED)

    def notice(self, events: Iterable[Event]) -> None:
        """Takes note of ends."""
        self._all.extend(event for event in events if event.kind in ("worker.exited", "service.stopped"))

    def latest(self) -> list[dict[str, Any]]:
        """The last DEATHS_KEPT that nobody wanted, newest first; of the others as many as there is room for."""
        unasked = [event for event in self._all if event.attrs.get("death") not in _EXPECTED]
        return [_death(event) for event in reversed(unasked[-DEATHS_KEPT:])]

    def restarts(self, service: str, slot: int, now_us: int) -> int:
        """How many workers of a lane ended within the last hour."""
        since_us = now_us - RESTARTS_WITHIN_US
        return sum(
            event.service == service
            and event.worker is not None
            and event.worker.slot == slot
            and event.ts_us > since_us
            for event in self._all
        )


def document(look: Look, deaths: LastDeaths) -> dict[str, Any]:
    """The whole."""
    services = [_service(service, look, deaths) for service in sorted(look.services, key=lambda one: one.name)]
    return {
        "source": look.source,
        "host": look.host,
        "version": look.version,
        "now_us": look.now_us,
        "troubles": [*_troubles(look), *_told(look)],
        "services": services,
        "judgements": look.judgements,
        "deaths": deaths.latest(),
        "probes": [dict(probe) for probe in look.probes],
        "server": dict(look.link),
    }


def _service(service: Service, look: Look, deaths: LastDeaths) -> dict[str, Any]:
    home, settings = home_of(service.cgroup), service.settings
    celery = next((dict(one) for one in look.celery if one["master_pid"] == service.master_pid), None)
    return {
        "name": service.name,
        "kind": service.kind,
        "release": service.release,
        "master_pid": service.master_pid,
        "unit": home.unit or None,
        "container": home.container or None,
        "folder": service.folder or None,
        "settings": {
            "app": settings.app,
            "workers": settings.workers,
            "threads": settings.threads,
            "worker_class": settings.worker_class,
            "timeout_s": service.timeout_s,
            "max_requests": settings.max_requests,
            "preload": settings.preload,
        },
        "listeners": [_listener(service.name, address, look) for address in _addresses(service)],
        "workers": [
            _worker(worker, look, deaths) for worker in sorted(service.workers.values(), key=lambda one: one.ref.slot)
        ],
        "celery": celery,
    }


def _listener(service: str, address: str, look: Look) -> dict[str, Any]:
    second = look.queues.get((service, address))
    return {
        "address": address,
        "depth": None if second is None else second.depth,
        "limit": None if second is None else second.limit,
        "arrivals": None if second is None else second.arrivals,
        "turned_away": None if second is None else second.turned_away,
        "saturated": (service, address) in look.saturated,
    }


def _worker(worker: Worker, look: Look, deaths: LastDeaths) -> dict[str, Any]:
    health, ref = worker.health, worker.ref
    memory = look.memory.get((ref.pid, ref.start_ticks))
    is_quiet = health.moved_s is None or look.now_s - health.moved_s > QUIET_AFTER_S
    return {
        "slot": ref.slot,
        "generation": ref.generation,
        "pid": ref.pid,
        "start_ticks": ref.start_ticks,
        "release": worker.release,
        "state": _state(worker),
        "age_s": round((look.now_us - worker.started_us) / 1e6, 1),
        "request_age_s": None if health.request_age_s is None else round(health.request_age_s, 1),
        "cpu_percent": (0.0 if memory is not None else None) if is_quiet else health.cpu_percent,
        "memory_bytes": None if memory is None else memory.amount_bytes,
        "memory_of": None if memory is None else memory.of,
        "leak_bytes_per_s": None if health.leak is None else round(health.leak.slope),
        "memory_time_left_s": None if health.time_left_s is None else round(health.time_left_s),
        "ended_last_hour": deaths.restarts(worker.service.name, ref.slot, look.now_us),
    }


def _state(worker: Worker) -> str:
    health = worker.health
    if worker.ready_us is None:
        return "boot hung" if health.boot_hung_event is not None else "booting"
    if worker.stuck_event is not None or health.blocked_event is not None:
        return "stuck"
    if health.leaking_event is not None:
        return "leaking"
    return health.state if health.state != "unknown" else "ready"


def _addresses(service: Service) -> list[str]:
    return list(dict.fromkeys(listener.address for listener in service.listeners))


def _troubles(look: Look) -> Iterable[str]:
    """What is wrong now, a sentence each, the worst first."""
    words = {"stuck": "is stuck", "boot hung": "hangs while it boots", "leaking": "leaks"}
    for service in look.services:
        if service.stopped_event is not None:
            yield f"{service.name}: its master has ended, {len(service.workers)} of its workers are still there."
        wanted = service.settings.workers
        if not service.workers and wanted is not None and wanted > 1 and service.kind != "celery":
            yield f"{service.name}: none of its {wanted} workers is there."
        for worker in service.workers.values():
            state = _state(worker)
            if state in words:
                left_s = worker.health.time_left_s
                left = f"; its memory is full in {span(left_s)}" if state == "leaking" and left_s is not None else ""
                yield f"{service.name}: worker {worker.ref.slot} (pid {worker.ref.pid}) {words[state]}{left}."
        for address in _addresses(service):
            if (service.name, address) in look.saturated:
                yield f"{service.name}: the accept queue of {address} is full: clients wait or are turned away."


def _told(look: Look) -> Iterable[str]:
    """Celery's troubles, and the agent's own."""
    for one in look.celery:
        name = one["service"]
        if one["trouble"] and one["broker"]:
            yield f"{name}: its broker {one['broker']} cannot be asked: {one['trouble']}."
        for queue in one["queues"]:
            if queue["silent"]:
                yield f"{name}: it is alive and does not consume queue {queue['name']}, in which {queue['length']} tasks wait."
            elif queue["backlog"]:
                yield f"{name}: queue {queue['name']} grows faster than it is consumed; {queue['length']} tasks wait."
        for task in one["active"] or ():
            if task["stuck"]:
                yield f"{name}: task {task['name']} is stuck in pid {task['pid']} since {span(task['age_s'] or 0)}."
    for probe in look.probes:
        if probe["state"] == "off":
            yield f"The agent does not hear {probe['signal']}: {probe['reason']}."
    waiting = look.link.get("spool_bytes")
    if look.link.get("trouble"):
        held = f"; {size(waiting)} wait in its spool" if waiting else ""
        yield f"The agent cannot reach {look.link['url']}: {look.link['trouble']}{held}."


def _death(event: Event) -> dict[str, Any]:
    death = str(event.attrs.get("death"))
    return {
        "ts_us": event.ts_us,
        "event": event.id,
        "service": event.service,
        "slot": None if event.worker is None else event.worker.slot,
        "pid": None if event.worker is None else event.worker.pid,
        "death": death,
        "meaning": DEATHS.get(death),
        "text": event.text,
    }
