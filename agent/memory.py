"""What the agent remembers of services over its own restart: what titles have hidden since, and who stood in which lane.

One small file, written anew whenever something in it changes. It names processes by pid, start and boot, so that what
is no longer true is never believed. Credentials are not in it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import orjson

from agent.managers import Manager
from agent.service import Service
from agent.workers import gunicorn
from agent.workers.settings import ServiceSettings

MOST_BYTES = 4 * 1024 * 1024
_FORMAT = 1
_PRIVATE = 0o600

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Remembered:
    """A service as an earlier agent knew it; `lanes` are slot and generation by pid and start of its workers."""

    name: str
    settings: ServiceSettings
    lanes: Mapping[tuple[int, int], tuple[int, int]]
    argv: tuple[str, ...] = ()
    manager: Manager | None = None


class Memory:
    """The file. One that cannot be read or written costs what it would have told, and nothing else."""

    def __init__(self, path: Path, boot_id: str) -> None:
        self._path = path
        self._boot_id = boot_id
        self._known = self._load()
        self._written = b""

    def recall(self, pid: int, start_ticks: int) -> Remembered | None:
        """What was known of the service of this very master."""
        return self._known.get((pid, start_ticks))

    def keep(self, services: Iterable[Service]) -> None:
        """Writes down what is known now, if that has changed."""
        document = {
            "format": _FORMAT,
            "boot_id": self._boot_id,
            "services": [_written(service) for service in services if service.stopped_event is None],
        }
        content = orjson.dumps(document)
        if content == self._written:
            return
        self._written = content
        aside = self._path.with_suffix(".new")
        try:
            file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _PRIVATE)
            with os.fdopen(file, "wb") as opened:
                opened.write(content)
            aside.replace(self._path)
        except OSError as error:
            log.warning("%s cannot be written (%s); a restart of the agent will know less", self._path, error.strerror)

    def _load(self) -> dict[tuple[int, int], Remembered]:
        try:
            with self._path.open("rb") as file:
                document = orjson.loads(file.read(MOST_BYTES))
            if document["boot_id"] != self._boot_id or document["format"] != _FORMAT:
                return {}
            return {(int(one["pid"]), int(one["start_ticks"])): _read(one) for one in document["services"]}
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.warning("%s cannot be read (%s); services are looked at anew", self._path, error.strerror)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s is damaged (%r); services are looked at anew", self._path, error)
        return {}


def _written(service: Service) -> dict[str, Any]:
    return {
        "pid": service.master_pid,
        "start_ticks": service.start_ticks,
        "name": service.name,
        "settings": asdict(service.settings),
        "argv": _without_secrets(service),
        "manager": None if service.manager is None else asdict(service.manager),
        "lanes": [
            [worker.ref.pid, worker.ref.start_ticks, worker.ref.slot, worker.ref.generation]
            for worker in service.workers.values()
        ],
    }


def _without_secrets(service: Service) -> tuple[str, ...]:
    """The command line of a Gunicorn that takes no environment from it; others' name brokers with passwords."""
    takes_environment = any(word.startswith(("-e", "--env")) for word in service.argv)
    return () if service.kind != gunicorn.KIND or takes_environment else service.argv


def _manager(said: Mapping[str, Any]) -> Manager:
    return Manager(said["kind"], str(said["name"]), str(said["socket"]), int(said.get("child", 0)))


def _read(one: Mapping[str, Any]) -> Remembered:
    names = {field.name for field in fields(ServiceSettings)}
    settings: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in one["settings"].items() if name in names
    }
    lanes = {(int(pid), int(start)): (int(slot), int(generation)) for pid, start, slot, generation in one["lanes"]}
    argv = tuple(str(word) for word in one.get("argv", ()))
    said = one.get("manager")
    manager = None if said is None else _manager(said)
    return Remembered(str(one["name"]), ServiceSettings(**settings), lanes, argv, manager)
