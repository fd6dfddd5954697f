"""What is wrong on this host now, for `reflexd status`: a sentence each, the worst first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.service import Service, Worker
from agent.status_past import Past
from agent.words import size, span

TOLD_WORKERS = 4
FORKS_WITHIN_S = 30.0
TICKS_PER_S = 100
_STATES = {"stuck": ("is stuck", "are stuck"), "boot hung": ("hangs", "hang"), "leaking": ("leaks", "leak")}


@dataclass(frozen=True, slots=True)
class Trouble:
    """One sentence; `service` is None where the agent or the whole host is meant. A lower rank is worse."""

    rank: int
    service: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Now:
    """What troubles are looked for in; the fields are those of agent.status.Look."""

    now_us: int
    boot_s: float
    services: Sequence[Service]
    saturated: frozenset[tuple[str, str]]
    celery: Sequence[Mapping[str, Any]]
    probes: Sequence[Mapping[str, Any]]
    link: Mapping[str, Any]


def troubles(now: Now, past: Past) -> list[Trouble]:
    """All of them, the worst first."""
    found = [*_of_masters(now, past), *_of_workers(now), *_of_queues(now), *_of_celery(now), *_of_agent(now)]
    found += [Trouble(6, service, f"{service}: {words}.") for service, words in past.loops(now.now_us)]
    return sorted(found, key=lambda one: (one.rank, one.service or ""))


def state_of(worker: Worker) -> str:
    """The one word for a worker."""
    health = worker.health
    if worker.ready_us is None:
        return "boot hung" if health.boot_hung_event is not None else "booting"
    if worker.stuck_event is not None or health.blocked_event is not None:
        return "stuck"
    if health.leaking_event is not None:
        return "leaking"
    return health.state if health.state != "unknown" else "ready"


def _of_masters(now: Now, past: Past) -> Iterator[Trouble]:
    alive = {service.name for service in now.services if service.stopped_event is None}
    for name, down in past.down(alive, now.now_us):
        left = sum(len(service.workers) for service in now.services if service.name == name)
        orphans = f" {left} of its workers still run." if left else ""
        since = span(max(0.0, (now.now_us - down.ts_us) / 1e6))
        yield Trouble(0, name, f"{name} is down, without a master for {since}.{orphans} {down.text}")


def _of_workers(now: Now) -> Iterator[Trouble]:
    for service in now.services:
        if _lacks_workers(service, now):
            text = f"{service.name}: none of its {service.settings.workers} workers is there."
            yield Trouble(1, service.name, text)
        by_state: dict[str, list[Worker]] = {state: [] for state in _STATES}
        for worker in sorted(service.workers.values(), key=lambda one: one.ref.slot):
            by_state.get(state_of(worker), []).append(worker)
        for state, workers in by_state.items():
            if workers:
                yield Trouble(7 if state == "leaking" else 2, service.name, _workers_words(service, state, workers))


def _lacks_workers(service: Service, now: Now) -> bool:
    """Whether a master that had the time to fork has no worker. Celery's pools of threads never have one."""
    age_s = now.boot_s - service.start_ticks / TICKS_PER_S
    if service.workers or service.stopped_event is not None or service.kind == "celery" or age_s < FORKS_WITHIN_S:
        return False
    return (service.settings.workers or 0) > 1


def _workers_words(service: Service, state: str, workers: Sequence[Worker]) -> str:
    left = [worker.health.time_left_s for worker in workers if worker.health.time_left_s is not None]
    full = f"; the memory it may have is full in {span(min(left))}" if state == "leaking" and left else ""
    boot = " while it boots" if state == "boot hung" else ""
    if len(workers) == 1:
        return f"{service.name}: worker {_worker(workers[0])} {_STATES[state][0]}{boot}{full}{_kept(workers[0])}."
    names = ", ".join(_worker(worker) for worker in workers[:TOLD_WORKERS])
    more = f" and {len(workers) - TOLD_WORKERS} more" if len(workers) > TOLD_WORKERS else ""
    boot = " while they boot" if state == "boot hung" else ""
    total = len(service.workers)
    return f"{service.name}: {len(workers)} of its {total} workers {_STATES[state][1]}{boot}{full}: {names}{more}."


def _worker(worker: Worker) -> str:
    return f"{worker.ref.slot} (pid {worker.ref.pid})"


def _kept(worker: Worker) -> str:
    kept = worker.health.snapshot
    if kept is None:
        return ""
    return f", in {kept.where}" if kept.where else f"; {kept.path} has a snapshot of it"


def _of_queues(now: Now) -> Iterator[Trouble]:
    for service, address in sorted(now.saturated):
        text = f"{service}: the accept queue of {address} is full: clients wait or are turned away."
        yield Trouble(3, service, text)


def _of_celery(now: Now) -> Iterator[Trouble]:
    for one in now.celery:
        name = one["service"]
        if one["trouble"] and one["broker"]:
            text = f"{name}: its broker {one['broker']} cannot be asked: {one['trouble'].rstrip('.')}."
            yield Trouble(4, name, text)
        for queue in one["queues"]:
            if queue["silent"]:
                waiting = _number(queue["length"])
                text = f"{name}: it is alive and does not consume queue {queue['name']}, which holds {waiting}."
                yield Trouble(4, name, text)
            elif queue["backlog"]:
                text = f"{name}: queue {queue['name']} grows faster than it is consumed and holds {_number(queue['length'])}."
                yield Trouble(8, name, text)
        yield from _of_tasks(name, one["active"] or ())


def _of_tasks(service: str, active: Iterable[Mapping[str, Any]]) -> Iterator[Trouble]:
    stuck = [task for task in active if task["stuck"]]
    for task in stuck[:TOLD_WORKERS]:
        where = "" if task["pid"] is None else f" in pid {task['pid']}"
        age = "" if task["age_s"] is None else f", begun {span(task['age_s'])} ago"
        yield Trouble(5, service, f"{service}: task {task['name']} is stuck{where}{age}.")
    if len(stuck) > TOLD_WORKERS:
        yield Trouble(5, service, f"{service}: {len(stuck) - TOLD_WORKERS} more tasks are stuck.")


def _of_agent(now: Now) -> Iterator[Trouble]:
    for probe in now.probes:
        if probe["state"] == "off":
            yield Trouble(9, None, f"The agent does not hear {probe['signal']}: {probe['reason'].rstrip('.')}.")
    waiting = now.link.get("spool_bytes")
    if now.link.get("trouble"):
        held = f"; {size(waiting)} wait in its spool" if waiting else ""
        yield Trouble(9, None, f"The agent cannot reach {now.link['url']}: {now.link['trouble']}{held}.")


def _number(value: int | None) -> str:
    return "an unknown number of tasks" if value is None else f"{value} {'task' if value == 1 else 'tasks'}"
