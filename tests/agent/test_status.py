"""The status: its keys, its troubles, how it reads on a narrow terminal, and who may ask for it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agent.procfs import Listener
from agent.queues import QueueSecond
from agent.service import Service, Worker
from agent.status import LastDeaths, Look, Memory, document
from agent.status_socket import NoAgentError, StatusSocket, ask
from agent.status_view import render
from agent.wire import Event, WorkerRef

MIB = 1024 * 1024
NOW_US = 1_790_000_000_000_000
QUEUE = {
    "name": "mail",
    "length": 12,
    "priorities": {},
    "unacked": None,
    "consumers": 1,
    "oldest_wait_s": 9.0,
    "backlog": False,
    "silent": True,
}
CELERY = {
    "service": "shop",
    "master_pid": 100,
    "role": "worker",
    "broker": "redis://broker/0",
    "trouble": None,
    "node": "jobs@web",
    "answers": True,
    "queues": [QUEUE],
    "unacked": 0,
    "active": [{"id": "1", "name": "shop.mail", "pid": 7, "age_s": 70.0, "acknowledged": True, "stuck": True}],
    "reserved": 0,
}


def _look(*services: Service, **other: Any) -> Look:
    values: dict[str, Any] = {
        "host": "web-1",
        "version": "1",
        "now_us": NOW_US,
        "now_s": 100.0,
        "services": services,
        "queues": {},
        "saturated": frozenset(),
        "memory": {},
        "celery": (),
        "probes": (),
        "link": {"url": "http://s", "trouble": None, "spool_bytes": 0},
    }
    return Look(**{**values, **other})


@pytest.fixture
def worker(shop: Service) -> Worker:
    shop.listeners = (Listener(5, "tcp 127.0.0.1:80"),)
    shop.workers[7] = Worker(WorkerRef(0, 2, 7, 70), shop, NOW_US - 60_000_000, None, ready_us=NOW_US - 59_000_000)
    return shop.workers[7]


def _died(kind: str = "worker.exited", death: str = "kernel_oom", ago_s: float = 10) -> Event:
    at_us = int(NOW_US - ago_s * 1e6)
    return Event("e", at_us, kind, "critical", "It died.", "shop", WorkerRef(0, 1, 6, 60), attrs={"death": death})


def _page(text: dict[str, Any], width: int = 80) -> str:
    console = Console(width=width, record=True, color_system=None, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(text, width))
    return console.export_text()


def test_what_is_not_known_is_null(shop: Service, worker: Worker) -> None:
    (service,) = document(_look(shop), LastDeaths())["services"]
    (shown,) = service["workers"]
    unknown = ("request_age_s", "cpu_percent", "memory_bytes", "leak_bytes_per_s", "memory_time_left_s")
    assert [shown[key] for key in unknown] == [None] * len(unknown)
    assert service["listeners"][0]["depth"] is None
    assert (shown["state"], shown["age_s"]) == ("ready", 60.0)


def test_a_worker_that_hardly_moves_uses_no_cpu(shop: Service, worker: Worker) -> None:
    look = _look(shop, memory={(7, 70): Memory(5 * MIB, "pss")})
    (shown,) = document(look, LastDeaths())["services"][0]["workers"]
    assert (shown["cpu_percent"], shown["memory_bytes"], shown["memory_of"]) == (0.0, 5 * MIB, "pss")
    worker.health.moved_s, worker.health.cpu_percent = 99.0, 31.0
    (shown,) = document(look, LastDeaths())["services"][0]["workers"]
    assert shown["cpu_percent"] == 31.0


def test_troubles_come_as_sentences(shop: Service, worker: Worker) -> None:
    worker.health.blocked_event = "e"
    queues = {("shop", "tcp 127.0.0.1:80"): QueueSecond(depth=9, limit=8, arrivals=3)}
    look = _look(
        shop,
        queues=queues,
        saturated=frozenset(queues),
        celery=[CELERY],
        probes=[{"signal": "oom", "state": "off", "reason": "no BTF"}],
        link={"url": "http://s", "trouble": "server unreachable", "spool_bytes": 5 * MIB},
    )
    assert document(look, LastDeaths())["troubles"] == [
        "shop: worker 0 (pid 7) is stuck.",
        "shop: the accept queue of tcp 127.0.0.1:80 is full: clients wait or are turned away.",
        "shop: it is alive and does not consume queue mail, in which 12 tasks wait.",
        "shop: task shop.mail is stuck in pid 7 since 1 min 10 s.",
        "The agent does not hear oom: no BTF.",
        "The agent cannot reach http://s: server unreachable; 5.0 MiB wait in its spool.",
    ]


def test_only_deaths_that_nobody_asked_for_are_last_deaths() -> None:
    deaths = LastDeaths()
    deaths.notice([_died(), _died(death="recycled"), _died(kind="worker.started"), _died(ago_s=5000)])
    assert [death["death"] for death in deaths.latest()] == ["kernel_oom", "kernel_oom"]
    assert deaths.restarts("shop", 0, NOW_US) == 2
    assert deaths.restarts("shop", 1, NOW_US) == 0


@pytest.mark.parametrize("width", [80, 140])
def test_it_reads_well_on_narrow_and_wide_terminals(shop: Service, worker: Worker, width: int) -> None:
    deaths = LastDeaths()
    deaths.notice([_died()])
    page = _page(document(_look(shop, celery=[CELERY]), deaths), width)
    lines = page.splitlines()
    assert all(len(line) <= width for line in lines)
    assert lines[0].startswith("web-1")
    assert lines[1].startswith("! shop: it is alive and does not consume queue mail")
    assert "It died." in page
    assert ("gen" in page) is (width == 140)


def test_an_empty_host_says_what_to_do() -> None:
    page = _page(document(_look(), LastDeaths()))
    assert "Nothing is wrong that Reflex can see." in page
    assert "/etc/reflex/services.toml" in page


def test_the_page_names_every_key(shop: Service, worker: Worker) -> None:
    text = (Path(__file__).parents[2] / "docs" / "status.md").read_text()
    described = set(re.findall(r"`([a-z_]+)`", text))
    whole = document(_look(shop, celery=[CELERY]), LastDeaths())
    service = whole["services"][0]
    keys = {
        *whole,
        *service,
        *service["settings"],
        *service["workers"][0],
        *service["listeners"][0],
        *service["celery"],
    }
    assert keys - {"service"} <= described


async def test_whoever_asks_gets_the_document_of_that_moment(tmp_path: Path) -> None:
    count = iter(range(10))
    server = StatusSocket(tmp_path, lambda: {"count": next(count)})
    assert await server.open() is None
    assert [(await asyncio.to_thread(ask, tmp_path))["count"] for _ in range(3)] == [0, 1, 2]
    assert (tmp_path / "status.sock").stat().st_mode & 0o777 == 0o600
    await server.close()
    with pytest.raises(NoAgentError, match="no agent answers"):
        await asyncio.to_thread(ask, tmp_path)


async def test_a_file_that_was_left_is_replaced_and_a_deaf_client_does_not_matter(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "status.sock"))
    left.close()
    large = {"text": "x" * 4_000_000}
    server = StatusSocket(tmp_path, lambda: large)
    assert await server.open() is None
    deaf = socket.socket(socket.AF_UNIX)
    deaf.connect(str(tmp_path / "status.sock"))
    answer = await asyncio.to_thread(ask, tmp_path)
    assert len(json.dumps(answer)) > 4_000_000
    deaf.close()
    await server.close()


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    problem = await StatusSocket(tmp_path / "missing", dict).open()
    assert problem is not None
    assert "cannot be asked for its status" in problem
