"""What this host looks like now, as one document: for `reflexd status`, a person at 3 a.m. and machines. Pure.

docs/status.md names every key. What is not known is null, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.identity import home_of
from agent.queues import QueueSecond
from agent.service import Service, Worker
from agent.status_past import Past
from agent.status_troubles import TICKS_PER_S, Now, state_of, troubles

VERSION = 1
"""Of the document: a command of another one cannot show it."""

QUIET_AFTER_S = 5.0
APP_CHARS = 200
TELLS_SETTINGS_UP_TO = 300
"""Masters and workers of a host: of more the server is told no settings, because what it is told has a limit."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process holds, in bytes, and which measure it is: `pss` with shared pages divided, else `anon`."""

    amount_bytes: int
    of: str
    uss_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What the document is made of.

    `now_us` is of the wall clock, `now_s` and `read_s` (of the latest readings) of the monotonic clock, `boot_s` of
    the boot clock. `saturated` names queues by service and address, `memory` processes by pid and start in ticks.
    """

    host: str
    version: str
    now_us: int
    now_s: float
    boot_s: float
    services: Sequence[Service]
    queues: Mapping[tuple[str, str], QueueSecond]
    saturated: frozenset[tuple[str, str]]
    memory: Mapping[tuple[int, int], Memory]
    read_s: float | None
    celery: Sequence[Mapping[str, Any]]
    probes: Sequence[Mapping[str, Any]]
    link: Mapping[str, Any]
    source: str = "agent"
    judgements: int | None = None


def document(look: Look, past: Past) -> dict[str, Any]:
    """The whole."""
    now = Now(look.now_us, look.boot_s, look.services, look.saturated, look.celery, look.probes, look.link)
    ended = past.ended_last_hour(look.now_us)
    services = sorted(look.services, key=lambda one: (one.name, one.master_pid))
    return {
        "document": VERSION,
        "source": look.source,
        "host": look.host,
        "version": look.version,
        "now_us": look.now_us,
        "troubles": [{"service": one.service, "text": one.text} for one in troubles(now, past)],
        "services": [_service(service, look, ended) for service in services],
        "judgements": look.judgements,
        "deaths": past.deaths(),
        "events": past.notable(),
        "probes": [dict(probe) for probe in look.probes],
        "server": dict(look.link),
    }


def settings_for_server(service: Service, processes: int) -> dict[str, Any]:
    """Release and known settings, as docs/api.md has them; none on a host with very many masters and workers."""
    if processes > TELLS_SETTINGS_UP_TO:
        return {}
    known = {name: value for name, value in _settings(service).items() if value is not None}
    return {"release": service.release, "settings": known}


def _service(service: Service, look: Look, ended: Mapping[tuple[str, int], int]) -> dict[str, Any]:
    home = home_of(service.cgroup)
    celery = next((dict(one) for one in look.celery if one["master_pid"] == service.master_pid), None)
    is_alive = service.stopped_event is None
    return {
        "name": service.name,
        "kind": service.kind,
        "release": service.release,
        "master_pid": service.master_pid,
        "master_age_s": round(look.boot_s - service.start_ticks / TICKS_PER_S, 1) if is_alive else None,
        "unit": home.unit or None,
        "container": home.container or None,
        "folder": service.folder or None,
        "settings": _settings(service),
        "listeners": [_listener(service.name, address, look) for address in _addresses(service)],
        "workers": [
            _worker(worker, look, ended) for worker in sorted(service.workers.values(), key=lambda one: one.ref.slot)
        ],
        "celery": celery,
    }


def _settings(service: Service) -> dict[str, Any]:
    settings = service.settings
    return {
        "app": None if settings.app is None else settings.app[:APP_CHARS],
        "workers": settings.workers,
        "threads": settings.threads,
        "worker_class": settings.worker_class,
        "timeout_s": service.timeout_s,
        "max_requests": settings.max_requests,
        "preload": settings.preload,
    }


def _listener(service: str, address: str, look: Look) -> dict[str, Any]:
    second = look.queues.get((service, address)) or QueueSecond()
    return {
        "address": address,
        "depth": second.depth,
        "limit": second.limit,
        "arrivals": second.arrivals,
        "turned_away": second.turned_away,
        "blocked": second.blocked,
        "saturated": (service, address) in look.saturated,
    }


def _worker(worker: Worker, look: Look, ended: Mapping[tuple[str, int], int]) -> dict[str, Any]:
    health, ref = worker.health, worker.ref
    memory = look.memory.get((ref.pid, ref.start_ticks))
    return {
        "slot": ref.slot,
        "generation": ref.generation,
        "pid": ref.pid,
        "start_ticks": ref.start_ticks,
        "release": worker.release,
        "state": state_of(worker),
        "age_s": round((look.now_us - worker.started_us) / 1e6, 1),
        "request_age_s": None if health.request_age_s is None else round(health.request_age_s, 1),
        "cpu_percent": _cpu_percent(worker, look, is_read=memory is not None),
        "memory_bytes": None if memory is None else memory.amount_bytes,
        "memory_of": None if memory is None else memory.of,
        "uss_bytes": None if memory is None else memory.uss_bytes,
        "leak_bytes_per_s": None if health.leak is None else round(health.leak.slope),
        "memory_time_left_s": None if health.time_left_s is None else round(health.time_left_s),
        "snapshot": None if health.snapshot is None else health.snapshot.path,
        "ended_last_hour": ended.get((worker.service.name, ref.slot), 0),
    }


def _cpu_percent(worker: Worker, look: Look, *, is_read: bool) -> float | None:
    """Whoever is read and hands nothing over uses next to none; without a fresh reading nothing is known."""
    if look.read_s is None or look.now_s - look.read_s > QUIET_AFTER_S:
        return None
    moved_s = worker.health.moved_s
    if moved_s is None or look.now_s - moved_s > QUIET_AFTER_S:
        return 0.0 if is_read else None
    cpu_percent = worker.health.cpu_percent
    return None if cpu_percent is None else round(cpu_percent, 1)


def _addresses(service: Service) -> list[str]:
    return list(dict.fromkeys(listener.address for listener in service.listeners))
