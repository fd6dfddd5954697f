"""How a worker is judged from what it sleeps in, its heartbeat and its service's history."""

from __future__ import annotations

import pytest

from agent.health import Doing, boot_limit_s, state_in_pool, state_of
from agent.limits import Room
from agent.premortem import CALM_LOOK_S, MemoryWatch, TimeoutWatch
from agent.service import Service, Worker
from agent.wire import WorkerRef

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("threads", "state"),
    [
        (["runs"], "busy"),
        (["call"], "busy"),
        (["clients"], "idle"),
        (["lock"], "busy"),
        (["clients", "lock", "lock"], "idle"),
        (["clients", "lock", "call"], "busy"),
        (["clients", "runs"], "busy"),
        (["lock", "lock", "clients"], "idle"),
        (["unknown"], "unknown"),
        ([], "unknown"),
    ],
)
def test_states(threads: list[Doing], state: str) -> None:
    assert state_of(threads) == state


@pytest.mark.parametrize(
    ("sleeps_in", "state"),
    [(None, "busy"), ("anon_pipe_read", "idle"), ("do_epoll_wait", "busy"), ("0", "unknown")],
)
def test_states_in_a_pool_of_celery(sleeps_in: str | None, state: str) -> None:
    assert state_in_pool(sleeps_in) == state


def test_a_boot_hangs_by_its_services_own_measure() -> None:
    assert boot_limit_s((), 60.0) == 60.0
    assert boot_limit_s((40.0, 41.0), 60.0) == 60.0
    assert boot_limit_s((40.0, 41.0, 39.0), 60.0) == 200.0
    assert boot_limit_s((0.1, 0.1, 0.1), 60.0) == 60.0


class Limits:
    """Limits whose use a test sets."""

    def __init__(self) -> None:
        self.used = 0.0
        self.looks = 0

    def room(self, cgroup: str, now_s: float) -> Room | None:
        self.looks += 1
        return Room(cgroup, 1000 * MIB, int(self.used * 1000 * MIB))


def _worker(service: Service, pid: int, memory_bytes: int) -> Worker:
    worker = Worker(WorkerRef(pid, 1, pid, 1), service, 0, heartbeat_inode=pid, ready_us=1)
    worker.health.memory_bytes = memory_bytes
    service.workers[pid] = worker
    return worker


def test_the_largest_worker_is_in_danger_once_in_each_filling(shop: Service) -> None:
    limits = Limits()
    watch = MemoryWatch(limits)  # type: ignore[arg-type]
    _worker(shop, 1, 100)
    largest = _worker(shop, 2, 200)
    steps = [(0.5, 0), (0.84, 0), (0.86, 1), (0.9, 0), (0.8, 0), (0.9, 0), (0.7, 0), (0.86, 1)]
    for second, (used, expected) in enumerate(steps):
        limits.used = used
        watch.grew(shop)
        dangers = list(watch.look([shop], float(second)))
        assert [danger.worker for danger in dangers] == [largest] * expected, (second, used)


def test_a_cgroup_with_room_is_looked_at_seldom(shop: Service) -> None:
    limits = Limits()
    watch = MemoryWatch(limits)  # type: ignore[arg-type]
    for tenth in range(200):
        list(watch.look([shop], tenth / 10))
    assert limits.looks == 20 / CALM_LOOK_S
    assert not watch.is_close


class Hearts:
    """Heartbeats of an age that a test sets."""

    def __init__(self) -> None:
        self.age_s = 0.0
        self.looks = 0

    def heartbeat_age_s(self, worker: Worker) -> float | None:
        self.looks += 1
        return self.age_s


def test_a_silent_worker_is_in_danger_before_its_master_acts(shop: Service) -> None:
    hearts = Hearts()
    watch = TimeoutWatch(hearts)
    worker = _worker(shop, 1, 0)
    found = []
    for second in range(31):
        hearts.age_s = float(second)
        found += [(second, danger.worker) for danger in watch.look([shop], float(second), 0)]
    assert found == [(24, worker)]
    assert hearts.looks == 2


def test_a_beating_worker_is_looked_at_seldom(shop: Service) -> None:
    hearts = Hearts()
    watch = TimeoutWatch(hearts)
    _worker(shop, 1, 0)
    for second in range(240):
        hearts.age_s = float(second % 15)
        assert list(watch.look([shop], float(second), 0)) == []
    assert hearts.looks < 30


def test_a_worker_that_came_is_looked_at_at_once(shop: Service) -> None:
    hearts = Hearts()
    watch = TimeoutWatch(hearts)
    assert list(watch.look([shop], 0.0, 0)) == []
    _worker(shop, 1, 0)
    hearts.age_s = 25.0
    assert list(watch.look([shop], 1.0, 0)) == []
    assert [danger.worker.ref.pid for danger in watch.look([shop], 1.0, 1)] == [1]
