"""Asks circus which of its watchers has begun a service, while both still live: a dead service cannot be asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from agent.circus import CircusTrouble, watcher_of
from agent.service import Service

PAUSES_S = (0.5, 3.0, 15.0)
"""Circus lists a process a moment after it has begun it, and does not answer while it is busy."""

log = logging.getLogger(__name__)


class WatcherNames:
    """Learns names; `learned` is told of each service that has got one."""

    def __init__(self, learned: Callable[[Service], None]) -> None:
        self._learned = learned
        self._asking: set[asyncio.Task[None]] = set()

    def ask(self, service: Service) -> None:
        """Begins to ask, if circus manages the service and its watcher is not known. There is one question a service."""
        if service.manager is None or service.manager.kind != "circus" or service.manager.name:
            return
        task = asyncio.get_running_loop().create_task(self._ask(service))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, service: Service) -> None:
        manager, why = service.manager, "it runs no such process"
        assert manager is not None
        for pause_s in PAUSES_S:
            try:
                if name := await watcher_of(manager.socket, manager.child):
                    service.manager = replace(manager, name=name)
                    self._learned(service)
                    return
            except CircusTrouble as trouble:
                why = str(trouble)
            await asyncio.sleep(pause_s)
        log.warning("which watcher of circus starts %s is not known, so it cannot be restarted: %s", service.name, why)
