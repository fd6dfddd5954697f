"""What a restarted agent knows again, and what it must not believe."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.memory import Memory
from agent.service import Service, Worker
from agent.slots import Slots
from agent.wire import WorkerRef
from agent.workers.settings import ServiceSettings

BOOT = "5f1c"


@pytest.fixture
def service() -> Service:
    settings = ServiceSettings(app="shop:app", workers=4, timeout_s=30.0, binds=(":80", ":81"))
    secret = ("redis://:hunter2@broker/0",)
    service = Service("shop", "gunicorn", 100, 3000, 30.0, "/shop", Slots(), settings=settings, broker_urls=secret)
    service.workers[200] = Worker(WorkerRef(3, 17, 200, 3100), service, 0, None)
    return service


def test_the_same_master_is_known_again(tmp_path: Path, service: Service) -> None:
    Memory(tmp_path / "services.json", BOOT).keep([service])
    remembered = Memory(tmp_path / "services.json", BOOT).recall(100, 3000)
    assert remembered is not None
    assert (remembered.name, remembered.settings) == ("shop", service.settings)
    assert remembered.lanes == {(200, 3100): (3, 17)}


def test_another_process_or_boot_is_not(tmp_path: Path, service: Service) -> None:
    Memory(tmp_path / "services.json", BOOT).keep([service])
    assert Memory(tmp_path / "services.json", BOOT).recall(100, 3001) is None
    assert Memory(tmp_path / "services.json", "another").recall(100, 3000) is None


def test_credentials_are_not_written_and_nobody_else_reads_it(tmp_path: Path, service: Service) -> None:
    path = tmp_path / "services.json"
    Memory(path, BOOT).keep([service])
    assert b"hunter2" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_service_that_stopped_is_forgotten(tmp_path: Path, service: Service) -> None:
    memory = Memory(tmp_path / "services.json", BOOT)
    memory.keep([service])
    service.stopped_event = "e"
    memory.keep([service])
    assert Memory(tmp_path / "services.json", BOOT).recall(100, 3000) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"boot_id": "5f1c", "format": 1, "services": [{"pid": "x"}]}'])
def test_a_damaged_file_costs_only_what_it_told(tmp_path: Path, service: Service, content: bytes) -> None:
    path = tmp_path / "services.json"
    path.write_bytes(content)
    memory = Memory(path, BOOT)
    assert memory.recall(100, 3000) is None
    memory.keep([service])
    assert Memory(path, BOOT).recall(100, 3000) is not None


def test_a_folder_that_cannot_be_written_is_no_harm(tmp_path: Path, service: Service) -> None:
    memory = Memory(tmp_path / "missing" / "services.json", BOOT)
    memory.keep([service])
    assert not os.path.exists(tmp_path / "missing")


def test_a_lane_is_taken_again_unless_somebody_stands_there() -> None:
    slots = Slots()
    assert slots.take_again(2, 9) == (2, 9, None)
    assert slots.take()[:2] == (0, 1)
    assert slots.take_again(2, 9)[:2] == (1, 1)
    assert slots.take_again(-1, 9)[:2] == (3, 1)
