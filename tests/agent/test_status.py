"""The document of `reflexd status`: what is known and what is not, what counts as a trouble, and that the page names every key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agent.brokers.common import Address, QueueLook
from agent.celery.node import Node, Watched
from agent.celery.queue_judges import Backlog
from agent.celery.queue_watch import QueueState
from agent.celery.status import status_of
from agent.celery.values import ActiveTask
from agent.health import Kept
from agent.leak import Leak
from agent.procfs import Listener
from agent.queues import QueueSecond
from agent.service import Service, Worker
from agent.slots import Slots
from agent.status import Look, Memory, document, settings_for_server
from agent.status_past import Past
from agent.wire import Event, WorkerRef
from agent.workers.settings import ServiceSettings

MIB = 1024 * 1024
NOW_US = 1_790_000_000_000_000
PAGE = (Path(__file__).parents[2] / "docs" / "status.md").read_text()
LINK = {"url": "http://s", "connected": True, "trouble": None, "spool_bytes": 0}


class Queues:
    """A broker's queues as agent.celery.queue_watch keeps them."""

    unacked = 3

    def __init__(self, **marks: Any) -> None:
        state = QueueState("mail", Backlog(), look=QueueLook("mail", 12), wait_s=9.0, **marks)
        self.queues = {"mail": state}


def look(*services: Service, **other: Any) -> Look:
    values: dict[str, Any] = {
        "host": "web-1",
        "version": "1",
        "now_us": NOW_US,
        "now_s": 100.0,
        "boot_s": 90.0,
        "services": services,
        "queues": {},
        "saturated": frozenset(),
        "memory": {},
        "read_s": 99.5,
        "celery": (),
        "probes": (),
        "link": LINK,
    }
    return Look(**{**values, **other})


def ended(kind: str = "worker.exited", *, death: str = "kernel_oom", ago_s: float = 10, **other: Any) -> Event:
    values: dict[str, Any] = {"severity": "critical", "service": "shop", "worker": WorkerRef(0, 1, 6, 60)}
    values |= {"text": "It died."} | other
    return Event("e", int(NOW_US - ago_s * 1e6), kind, attrs={"death": death}, **values)


def past_of(*events: Event) -> Past:
    past = Past()
    for event in events:
        past.notice(event)
    return past


def troubles(look: Look, past: Past | None = None) -> list[str]:
    return [one["text"] for one in document(look, past or Past())["troubles"]]


@pytest.fixture
def worker(shop: Service) -> Worker:
    shop.listeners = (Listener(5, "tcp 127.0.0.1:80"),)
    return add_worker(shop, 0)


def add_worker(service: Service, slot: int) -> Worker:
    ref = WorkerRef(slot, 2, 7 + slot, 70)
    service.workers[ref.pid] = Worker(ref, service, NOW_US - 60_000_000, None, ready_us=NOW_US - 59_000_000)
    return service.workers[ref.pid]


@pytest.fixture
def jobs() -> Service:
    settings = ServiceSettings(app="shop", role="worker", queues=("mail",))
    return Service("jobs", "celery", 200, 3000, None, "/jobs", Slots(), settings=settings)


@pytest.fixture
def celery(jobs: Service) -> dict[str, Any]:
    """As the beat tells it: a queue that is not consumed and a task that is stuck."""
    task = ActiveTask("1", "shop.mail", 1_000.0, 7, True)
    node = Node(jobs, (Address("redis://:secret@broker/0"),), frozenset(), {7: 7}, active=(task,))
    node.silent_events["mail"] = "e"
    node.watched["1"] = Watched(told="e")
    told = status_of(jobs, node, Queues(), None, 1_070.0)  # type: ignore[arg-type]
    assert [queue["name"] for queue in told["queues"]] == ["mail"]
    return told


def test_what_is_not_known_is_null(shop: Service, worker: Worker) -> None:
    (service,) = document(look(shop), Past())["services"]
    (shown,) = service["workers"]
    unknown = ("request_age_s", "cpu_percent", "memory_bytes", "memory_of", "uss_bytes", "leak_bytes_per_s", "snapshot")
    assert [shown[key] for key in unknown] == [None] * len(unknown)
    listener = service["listeners"][0]
    assert [listener[key] for key in ("depth", "limit", "arrivals", "turned_away", "blocked")] == [None] * 5
    assert (shown["state"], shown["age_s"], service["master_age_s"]) == ("ready", 60.0, 60.0)


def test_a_worker_that_hardly_moves_uses_no_cpu(shop: Service, worker: Worker) -> None:
    memory = {(7, 70): Memory(5 * MIB, "pss", 4 * MIB)}
    (shown,) = document(look(shop, memory=memory), Past())["services"][0]["workers"]
    keys = ("cpu_percent", "memory_bytes", "memory_of", "uss_bytes")
    assert [shown[key] for key in keys] == [0.0, 5 * MIB, "pss", 4 * MIB]
    worker.health.moved_s, worker.health.cpu_percent = 99.0, 31.04
    (shown,) = document(look(shop, memory=memory), Past())["services"][0]["workers"]
    assert shown["cpu_percent"] == 31.0


@pytest.mark.parametrize("read_s", [None, 40.0])
def test_without_a_fresh_reading_the_cpu_is_not_known(shop: Service, worker: Worker, read_s: float | None) -> None:
    memory = {(7, 70): Memory(5 * MIB, "pss")}
    (shown,) = document(look(shop, memory=memory, read_s=read_s), Past())["services"][0]["workers"]
    assert shown["cpu_percent"] is None


def test_troubles_come_as_sentences_the_worst_first(
    shop: Service, worker: Worker, jobs: Service, celery: dict[str, Any]
) -> None:
    worker.health.blocked_event = "e"
    queues = {("shop", "tcp 127.0.0.1:80"): QueueSecond(depth=9, limit=8, arrivals=3)}
    now = look(
        shop,
        jobs,
        queues=queues,
        saturated=frozenset(queues),
        celery=[celery],
        probes=[{"signal": "oom", "state": "off", "reason": "no BTF"}],
        link={"url": "http://s", "connected": False, "trouble": "server unreachable", "spool_bytes": 5 * MIB},
    )
    down = ended("service.stopped", worker=None, service="old", text="old ended.", ago_s=120)
    assert troubles(now, past_of(down)) == [
        "old is down, without a master for 2 min 0 s. old ended.",
        "shop: worker 0 (pid 7) is stuck.",
        "shop: the accept queue of tcp 127.0.0.1:80 is full: clients wait or are turned away.",
        "jobs: it is alive and does not consume queue mail, which holds 12 tasks.",
        "jobs: task shop.mail is stuck in pid 7, begun 1 min 10 s ago.",
        "The agent does not hear oom: no BTF.",
        "The agent cannot reach http://s: server unreachable; 5.0 MiB wait in its spool.",
    ]


def test_many_workers_with_one_trouble_are_one_sentence(shop: Service) -> None:
    for slot in range(6):
        add_worker(shop, slot).health.blocked_event = "e" if slot else None
    assert troubles(look(shop)) == [
        "shop: 5 of its 6 workers are stuck: 1 (pid 8), 2 (pid 9), 3 (pid 10), 4 (pid 11) and 1 more."
    ]


def test_a_leak_says_how_long_there_is_and_a_snapshot_says_where_it_is(shop: Service, worker: Worker) -> None:
    worker.health.leaking_event, worker.health.time_left_s = "e", 720.0
    assert troubles(look(shop)) == ["shop: worker 0 (pid 7) leaks; the memory it may have is full in 12 min 0 s."]
    worker.health.leaking_event = None
    worker.health.blocked_event, worker.health.snapshot = "e", Kept("e", "/state/7.txt", "recv (socket.py:7)")
    assert troubles(look(shop)) == ["shop: worker 0 (pid 7) is stuck, in recv (socket.py:7)."]


def test_a_boot_that_hangs_and_a_service_without_workers_are_troubles(shop: Service, worker: Worker) -> None:
    worker.ready_us, worker.health.boot_hung_event = None, "e"
    assert troubles(look(shop)) == ["shop: worker 0 (pid 7) hangs while it boots."]
    shop.workers.clear()
    shop.settings = ServiceSettings(workers=4)
    assert troubles(look(shop)) == ["shop: none of its 4 workers is there."]
    assert troubles(look(shop, boot_s=31.0)) == []


def test_a_master_that_died_is_a_trouble_until_another_is_there(shop: Service) -> None:
    died = ended("service.stopped", worker=None, text="shop ended.")
    past = past_of(died)
    assert troubles(look(), past) == ["shop is down, without a master for 10.0 s. shop ended."]
    assert troubles(look(shop), past) == []
    asked = ended("service.stopped", death="stopped_by_manager", severity="info", worker=None)
    assert troubles(look(), past_of(asked)) == []
    assert troubles(look(), past_of(ended("service.stopped", worker=None, ago_s=90_000))) == []


def test_workers_that_outlive_their_master_are_counted(shop: Service, worker: Worker) -> None:
    shop.stopped_event = "e"
    whole = document(look(shop), past_of(ended("service.stopped", worker=None, text="shop ended.")))
    assert [one["text"] for one in whole["troubles"]] == [
        "shop is down, without a master for 10.0 s. 1 of its workers still run. shop ended."
    ]
    assert whole["services"][0]["master_age_s"] is None


def test_workers_that_die_again_and_again_are_a_trouble(shop: Service, worker: Worker) -> None:
    assert troubles(look(shop), past_of(*[ended(ago_s=ago) for ago in (300, 20)])) == []
    assert troubles(look(shop), past_of(*[ended(ago_s=ago) for ago in (300, 20, 5)])) == [
        "shop: 3 of its workers died within 10 min 0 s, the last one 5.00 s ago."
    ]
    assert troubles(look(shop), past_of(*[ended(death="recycled", severity="info") for _ in range(9)])) == []


def test_only_deaths_that_nobody_asked_for_are_last_deaths() -> None:
    past = past_of(ended(ago_s=5000), ended(death="recycled"), ended("worker.started"), ended(text="Second."))
    assert [death["text"] for death in past.deaths()] == ["Second.", "It died."]
    assert past.ended_last_hour(NOW_US) == {("shop", 0): 2}


def test_events_are_kept_when_they_matter_and_are_no_deaths() -> None:
    kinds = [("worker.ready", "info"), ("queue.saturated", "warning"), ("queue.recovered", "info")]
    past = past_of(*[ended(kind, severity=severity) for kind, severity in [*kinds, ("worker.oom_killed", "critical")]])
    assert [event["kind"] for event in past.notable()] == ["queue.recovered", "queue.saturated"]


def test_what_is_kept_of_the_past_does_not_grow() -> None:
    past = Past()
    for number in range(10_000):
        past.notice(ended(service=f"shop-{number}"))
        past.notice(ended("service.stopped", service=f"shop-{number}", worker=None))
        past.notice(ended("queue.saturated", service=f"shop-{number}"))
    assert (len(past.deaths()), len(past.notable())) == (10, 10)
    assert sum(past.ended_last_hour(NOW_US).values()) == 4000
    assert len(list(past.down((), NOW_US))) == 100


def test_no_credential_is_told(shop: Service, worker: Worker, jobs: Service, celery: dict[str, Any]) -> None:
    jobs.broker_urls = ("redis://:secret@broker/0",)
    whole = str(document(look(shop, jobs, celery=[celery]), Past()))
    assert "redis://broker" in whole
    assert "secret" not in whole


def test_the_server_is_told_settings_as_long_as_there_is_room(shop: Service) -> None:
    shop.settings, shop.release = ServiceSettings(app="x" * 5000, workers=4), "r1"
    told = settings_for_server(shop, 300)
    assert (told["release"], told["settings"]["workers"], told["settings"]["timeout_s"]) == ("r1", 4, 30.0)
    assert len(told["settings"]["app"]) == 200
    assert "threads" not in told["settings"]
    assert settings_for_server(shop, 301) == {}


def test_the_page_names_every_key(shop: Service, worker: Worker, jobs: Service, celery: dict[str, Any]) -> None:
    worker.health.leak = Leak(5.0, 4.0, 900.0, 5 * MIB, 60 * MIB, 9.0)
    past = past_of(ended(), ended("queue.saturated"))
    whole = document(look(shop, jobs, celery=[celery]), past)
    told = {key for table in _objects(whole) for key in table}
    described = set(re.findall(r"`([a-z_]+)`", PAGE))
    assert told - {"priorities"} <= described | {"service"}


def _objects(value: Any) -> list[dict[str, Any]]:
    """All objects in a document."""
    if isinstance(value, dict):
        return [value, *(found for one in value.values() for found in _objects(one))]
    return [found for one in value for found in _objects(one)] if isinstance(value, list | tuple) else []
