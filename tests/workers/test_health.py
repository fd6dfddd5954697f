"""Health of real workers: what they do, what stands still, what leaks, what hangs; and what must never be told."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.service import Service, Worker
from tests.workers.variants import PROGRAMS
from tests.workers.ward import MIB, Ward

GUNICORN = ("gunicorn", "-b", "127.0.0.1:{port}", "-w", "1")
UWSGI = ("uwsgi", "--plugin", "python3", "--http-socket", "127.0.0.1:{port}", "--wsgi-file", "app.py", "--master")
UVICORN = ("uvicorn", "--port", "{port}", "--workers", "2", "asgi:application")
STUCK_AFTER_S = 4.0

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the ward loads BPF programs"),
    pytest.mark.skipif(not (PROGRAMS / "gunicorn-newest" / "installed").exists(), reason="run ./reflex setup --dev"),
    pytest.mark.timeout(180),
]


@pytest.fixture
async def ward(tmp_path: Path) -> AsyncIterator[Ward]:
    async with Ward(tmp_path, boot_hang_s=3, stuck_after_s=STUCK_AFTER_S) as entered:
        yield entered


def _state(ward: Ward) -> set[str]:
    return {worker.health.state for worker in ward.workers()}


async def _one(ward: Ward, program: str, *words: str) -> Worker:
    service: Service = await ward.start(program, *words)
    return next(iter(service.workers.values()))


@pytest.mark.parametrize("path", ["sleep/3", "poll/3", "recv", "lock", "burn/3"])
async def test_a_sync_worker_is_busy_whatever_it_waits_for(ward: Ward, path: str) -> None:
    worker = await _one(ward, "gunicorn-newest", *GUNICORN, "--timeout", "60", "app:application")
    await ward.until(lambda: worker.health.state == "idle", 10)
    if path == "lock":
        await ward.visited(path)
    began_s = time.monotonic()
    ward.visit(path)
    await ward.until(lambda: worker.health.state == "busy", 25)
    await ward.until(lambda: (worker.health.request_age_s or 0) > 1.5, 25)
    assert worker.health.request_age_s is not None
    assert worker.health.request_age_s == pytest.approx(time.monotonic() - began_s, abs=2.0)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("gunicorn-newest", (*GUNICORN, "--threads", "3", "app:application")),
        ("gunicorn-20", (*GUNICORN, "--threads", "3", "app:application")),
        ("", (*UWSGI, "--processes", "1")),
        ("", (*UWSGI, "--processes", "1", "--threads", "3")),
    ],
)
async def test_a_worker_is_busy_in_a_call_and_idle_after_it(ward: Ward, program: str, words: tuple[str, ...]) -> None:
    worker = await _one(ward, program, *words)
    task = ward.visit("poll/4")
    await ward.until(lambda: worker.health.state == "busy", 10)
    await task
    await ward.until(lambda: worker.health.state == "idle", 10)
    assert worker.health.request_age_s is None


async def test_an_event_loop_is_busy_while_it_is_blocked(ward: Ward) -> None:
    await ward.start("uvicorn-newest", *UVICORN)
    await ward.until(lambda: _state(ward) == {"idle"}, 10)
    ward.visit("sleep/12")
    await ward.until(lambda: _state(ward) == {"idle", "busy"}, 12)
    await ward.until(lambda: _state(ward) == {"idle"}, 15)


async def test_threads_that_stand_still_are_told_until_they_go_on(ward: Ward) -> None:
    worker = await _one(ward, "gunicorn-newest", *GUNICORN, "--threads", "4", "app:application")
    ward.visit("sleep/14")
    ward.visit("sleep/14")
    served = asyncio.create_task(_serve(ward, "sleep/0.1", 22))
    await ward.until(lambda: ward.told("worker.threads_stuck"), 20)
    (stuck,) = ward.told("worker.threads_stuck")
    assert stuck.attrs["stuck_threads"] == 2
    assert stuck.attrs["threads"] == 4
    assert stuck.severity == "warning"
    assert stuck.cause == worker.started_event
    assert "application (" in stuck.text
    assert "app.py:" in stuck.text
    assert not ward.told("worker.unstuck")
    await ward.until(lambda: ward.told("worker.unstuck"), 20)
    (freed,) = ward.told("worker.unstuck")
    assert freed.cause == stuck.id
    await served
    assert len(ward.told("worker.threads_stuck")) == 1


async def test_a_deadlock_of_all_threads_is_told(ward: Ward) -> None:
    worker = await _one(ward, "gunicorn-newest", *GUNICORN, "--threads", "2", "app:application")
    await ward.visited("lock")
    ward.visit("lock")
    await ward.until(lambda: ward.told("worker.threads_stuck"), 40)
    first = ward.told("worker.threads_stuck")[0]
    assert first.attrs["stuck_threads"] == 1
    ward.visit("lock")
    await ward.until(lambda: len(ward.told("worker.threads_stuck")) == 2, 60)
    second = ward.told("worker.threads_stuck")[1]
    assert (second.attrs["stuck_threads"], second.severity, second.cause) == (2, "critical", first.id)
    assert worker.health.blocked_event == second.id


@pytest.mark.parametrize(
    ("program", "words", "path"),
    [
        ("gunicorn-newest", (*GUNICORN, "--timeout", "0", "app:application"), "poll/60"),
        ("gunicorn-newest", (*GUNICORN, "--timeout", "0", "app:application"), "recv"),
        ("", (*UWSGI, "--processes", "1"), "poll/60"),
        ("uvicorn-newest", UVICORN, "sleep/60"),
    ],
)
async def test_a_worker_that_nobody_ends_is_told(ward: Ward, program: str, words: tuple[str, ...], path: str) -> None:
    await ward.start(program, *words)
    ward.visit(path)
    await ward.until(lambda: ward.told("worker.stuck"), 20)
    (stuck,) = ward.told("worker.stuck")
    assert "application (" in stuck.text
    assert stuck.severity == "critical"
    assert any(one.source == "py-spy" for one in stuck.evidence)


@pytest.mark.parametrize(
    ("program", "words", "path"),
    [
        ("gunicorn-newest", (*GUNICORN, "--threads", "3", "app:application"), "sleep/0.9"),
        ("gunicorn-newest", (*GUNICORN, "--threads", "3", "--timeout", "0", "app:application"), "poll/0.9"),
        ("gunicorn-newest", (*GUNICORN, "--timeout", "0", "app:application"), "sleep/0.9"),
        ("gunicorn-newest", (*GUNICORN, "--timeout", "0", "-k", "gevent", "app:application"), "sleep/0.9"),
        ("", (*UWSGI, "--processes", "1", "--threads", "3"), "sleep/0.9"),
        ("uvicorn-newest", UVICORN, "await/0.9"),
    ],
)
async def test_slow_calls_one_after_another_and_idle_pools_are_no_alarm(
    ward: Ward, program: str, words: tuple[str, ...], path: str
) -> None:
    await ward.start(program, *words)
    await asyncio.gather(*(_serve(ward, path, 3 * STUCK_AFTER_S) for _ in range(3)))
    await asyncio.sleep(4 * STUCK_AFTER_S)  # nothing to wait for: the claim is that nothing comes
    assert [event.text for event in ward.told() if event.severity != "info"] == []


async def test_a_boot_that_hangs_is_told_once(ward: Ward) -> None:
    (ward.folder / "hang").touch()
    ward.begin("gunicorn-newest", *GUNICORN, "app:application")
    await ward.until(lambda: ward.told("worker.boot_hung"), 15)
    (hung,) = ward.told("worker.boot_hung")
    assert "app.py:" in hung.text
    assert hung.cause == ward.told("worker.started")[0].id
    (ward.folder / "hang").unlink()
    await ward.until(lambda: ward.told("worker.ready"), 15)
    assert len(ward.told("worker.boot_hung")) == 1


async def test_a_leak_is_told_and_ends_where_memory_is_flat(ward: Ward) -> None:
    worker = await _one(ward, "gunicorn-newest", *GUNICORN, "app:application")
    until_s = time.monotonic() + 60
    while worker.health.leak is None:
        assert time.monotonic() < until_s, worker.health
        await ward.visited(f"keep/{MIB}")
        await asyncio.sleep(0.05)
    assert worker.health.leak.slope_at_least > 0
    assert worker.health.time_left_s is None or worker.health.time_left_s > 0
    assert not ward.told("worker.leaking")  # the host has far more room than was seen to be used up


async def _serve(ward: Ward, path: str, seconds: float) -> None:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        await ward.visited(path)
