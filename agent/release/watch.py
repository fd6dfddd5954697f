"""Sees what an app's services do before and after a switch: one look a second, and every event about them."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from agent.managers import ASIDE
from agent.procfs import ProcFs
from agent.release.gate import BAD_EVENTS, FAULTS, JOB_EVENTS, Probed, Second, Seen
from agent.release.probe import ask
from agent.service import Service
from agent.wire import Event, Row
from agent.wire.app import App, Health, Web

LOOK_S = 1.0
MOST_KEPT = 1800
"""Seconds that are kept of each service."""

_QUEUE_METRICS = ("queue.accepts", "queue.arrivals", "queue.wait_p99_ms", "queue.overflows")


class Observer:
    """Watches all services of one app until it is closed. What it has seen starts anew with `turn`."""

    def __init__(self, app: App, procfs: ProcFs, services: Mapping[int, Service]) -> None:
        self._app = app
        self._procfs = procfs
        self._services = services
        self._queues: dict[str, dict[str, float]] = defaultdict(dict)
        self._names = {web.service for web in app.web} | {jobs.service for jobs in app.jobs}
        self.seen: dict[str, Seen] = {}
        self.turn()

    def see_as(self, app: App) -> None:
        """From now on the app is looked at as another of its releases has it."""
        self._app = app

    def turn(self) -> dict[str, Seen]:
        """Begins anew; what was seen until now, by service."""
        before, now_s = self.seen, time.monotonic()
        self.seen = {name: Seen(name, now_s) for name in self._names}
        return before

    def notice(self, event: Event) -> None:
        """An event of this host; those about the app's services count."""
        seen = self.seen.get(event.service or "")
        if seen is None:
            return
        if event.kind in ("worker.exited", "service.stopped") and event.attrs.get("death") in FAULTS:
            seen.faults.append(event.text)
        elif event.kind in BAD_EVENTS or event.kind in JOB_EVENTS:
            seen.troubles.append(event.text)

    def rows(self, rows: Sequence[Row]) -> None:
        """Samples of this host; those of accept queues and task queues count."""
        for metric, value, service, _ in rows:
            if service not in self._names or service is None:
                continue
            if metric in _QUEUE_METRICS:
                now = self._queues[service]
                now[metric] = (
                    max(now.get(metric, 0.0), value) if metric.endswith("_ms") else now.get(metric, 0.0) + value
                )
            elif metric == "celery.queue_length":
                self.seen[service].lengths.append(value)

    async def look(self) -> None:
        """Looks once a second, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look_once()

    async def look_once(self) -> None:
        """One look at every service, and one health check of each that has one."""
        now_s = time.monotonic()
        for name, seen in self.seen.items():
            seen.seconds.append(self._second(name, now_s))
            del seen.seconds[:-MOST_KEPT], seen.probes[:-MOST_KEPT], seen.lengths[:-MOST_KEPT]
        for web in self._app.web:
            if web.health is not None:
                await self._probe(web, web.health)

    def _second(self, name: str, now_s: float) -> Second:
        memory = cpu_s = 0.0
        workers = 0
        for service in self._services.values():
            if service.name != name or service.stopped_event is not None:
                continue
            for worker in service.workers.values():
                usage = self._procfs.usage(worker.ref.pid)
                if usage is not None and worker.ready_us is not None:
                    memory, cpu_s, workers = memory + usage.rss_bytes, cpu_s + usage.cpu_ns / 1e9, workers + 1
        queue = self._queues.pop(name, {})
        return Second(
            at_s=now_s,
            memory_bytes=memory if workers else None,
            workers=workers,
            cpu_s=cpu_s if workers else None,
            accepts=queue.get("queue.accepts", queue.get("queue.arrivals", 0.0)),
            wait_p99_ms=queue.get("queue.wait_p99_ms"),
            overflows=queue.get("queue.overflows", 0.0),
        )

    async def _probe(self, web: Web, health: Health) -> None:
        address = health.address or self._address(web.service)
        if address:
            answer = await ask(health, address)
            self.seen[web.service].probes.append(Probed(time.monotonic(), answer.took_ms, answer.trouble))

    def _address(self, name: str) -> str:
        """Where the service listens, for a client on this host."""
        for service in self._services.values():
            if service.name == name and service.stopped_event is None:
                for listener in service.listeners:
                    if address := client_address(listener.address):
                        return address
        return ""


def client_address(address: str) -> str:
    """`tcp 0.0.0.0:8000` or `unix /run/shop.sock` as a client reaches it; empty where none can."""
    kind, _, place = address.partition(" ")
    if kind == "unix":
        return place.removesuffix(ASIDE) if place.startswith("/") else ""
    host, _, port = place.rpartition(":")
    return (
        f"{ {'0.0.0.0': '127.0.0.1', '[::]': '[::1]', '*': '127.0.0.1'}.get(host, host) }:{port}"
        if port.isdigit()
        else ""
    )
