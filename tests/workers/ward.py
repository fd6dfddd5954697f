"""A host's worth of the agent for workers' health: real programs, the real kernel, and events kept in a list."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from agent.clock import Clock
from agent.health_beat import HealthBeat
from agent.ids import new_event_id
from agent.kernel.kernel import Kernel
from agent.kernel.opening import open_kernel
from agent.procfs import ProcFs
from agent.queue_beat import QueueBeat
from agent.readings_beat import ReadingsBeat
from agent.reporter import Reporter
from agent.rollup import Rollup
from agent.service import Service, Worker
from agent.settings import Settings
from agent.snapshots import Snapshots
from agent.spool import Spool
from agent.stacks import Stacks
from agent.watcher import Watcher
from agent.wire import Event, Row
from demo.stage import free_port
from tests.workers.variants import PROGRAMS

LOOK_S = 0.05
MIB = 1024 * 1024

APP = """
import os, select, socket, threading, time
lock = threading.Lock()
kept = []
def application(environ, start_response):
    path, _, amount = environ["PATH_INFO"].strip("/").partition("/")
    if path == "sleep":
        time.sleep(float(amount))
    elif path == "poll":
        silent, _ = socket.socketpair()
        silent.settimeout(float(amount))
        try:
            silent.recv(1)
        except TimeoutError:
            pass
    elif path == "recv":
        silent, other = socket.socketpair()
        silent.recv(1)
    elif path == "lock":
        lock.acquire()
    elif path == "burn":
        until = time.monotonic() + float(amount)
        while time.monotonic() < until:
            pass
    elif path == "keep":
        kept.append(os.urandom(1) * int(amount))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\\n"]
while os.path.exists("hang"):
    time.sleep(0.2)
"""
ASGI = """
import asyncio, time
async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    path, _, amount = scope["path"].strip("/").partition("/")
    if path == "sleep":
        time.sleep(float(amount))
    elif path == "await":
        await asyncio.sleep(float(amount))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""


class Listed(Reporter):
    """Keeps what is told."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        super().__init__(spool, clock)
        self.told: list[Event] = []
        self.rows: list[Row] = []

    def events(self, events: Sequence[Event]) -> None:  # type: ignore[override]
        """Keeps events."""
        self.told += events

    def samples(self, ts_us: int, rows: Sequence[Row]) -> None:
        """Keeps samples."""
        self.rows += rows


class Ward:
    """Use as an async context manager; programs that it starts end with it."""

    def __init__(self, folder: Path, *, boot_hang_s: float = 60.0, stuck_after_s: float = 60.0) -> None:
        self.folder = folder
        self._procfs = procfs = ProcFs()
        self._kernel: Kernel = open_kernel(Settings().bpf_object, {}, procfs)
        clock = Clock()
        self._spool = Spool.open(folder / "spool", 64 * MIB)
        self._reporter = Listed(self._spool, clock)
        self.rollup = Rollup(new_event_id)
        self.watcher = Watcher(procfs, self.rollup, clock, self._kernel)
        stacks = Stacks(procfs)
        self.readings = ReadingsBeat(procfs, self.rollup, self._kernel, self._reporter, clock)
        self.health = HealthBeat(
            procfs,
            self.rollup,
            self.watcher.heartbeats,
            stacks,
            Snapshots(procfs, stacks, folder / "snapshots"),
            self._reporter,
            self._reporter,
            clock,
            boot_hang_s=boot_hang_s,
            stuck_after_s=stuck_after_s,
        )
        self.readings.health = self.health
        self._queues = QueueBeat(procfs, self.rollup, self._kernel, self._reporter, clock)
        self._masters: list[subprocess.Popen[bytes]] = []
        self._adopted: dict[int, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._visits: list[asyncio.Task[None]] = []
        self.port = 0
        self.hears: list[Callable[[Sequence[Event]], None]] = []

    async def __aenter__(self) -> Self:
        self._keep(self.watcher.scan())
        health = self.health
        beats = (self._watch(), self.readings.readings_beat(), self._queues.queue_beat())
        beats = (*beats, health.health_beat(), health.memory_beat())
        self._tasks = [asyncio.create_task(beat) for beat in beats]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (*self._tasks, *self._visits):
            task.cancel()
        results = await asyncio.gather(*self._tasks, *self._visits, return_exceptions=True)
        for master in self._masters:
            with suppress(ProcessLookupError):
                os.killpg(master.pid, signal.SIGKILL)
            master.wait()
        for pid, start_ticks in self._adopted.items():
            if self._procfs.start_ticks(pid) == start_ticks:
                os.kill(pid, signal.SIGKILL)
        self._spool.close()
        self._kernel.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def start(self, program: str, *words: str, environment: Mapping[str, str] | None = None) -> Service:
        """Starts a program, and waits until its workers are ready; its service."""
        pid = self.begin(program, *words, environment=environment)
        await self.until(lambda: self._is_ready(pid), 30)
        return self.rollup.services[pid]

    def begin(self, program: str, *words: str, environment: Mapping[str, str] | None = None) -> int:
        """Starts a program of a venv of the matrix, else of the system; {port} is filled in. The master's pid."""
        (self.folder / "app.py").write_text(APP)
        (self.folder / "asgi.py").write_text(ASGI)
        self.port = free_port()
        filled = [word.replace("{port}", str(self.port)) for word in words]
        command = [str(PROGRAMS / program / "bin" / "python"), "-m", *filled] if program else filled
        with (self.folder / "log").open("ab") as log:
            more = {**os.environ, **(environment or {})}
            master = subprocess.Popen(command, cwd=self.folder, env=more, stdout=log, stderr=log, process_group=0)
        self._masters.append(master)
        return master.pid

    def begin_in(self, folder: Path, command: Sequence[str]) -> int:
        """Starts a program by the path of its folder, which may be a link; its pid."""
        with (self.folder / "log").open("ab") as log:
            more = {**os.environ, "PWD": str(folder)}
            process = subprocess.Popen(command, cwd=folder, env=more, stdout=log, stderr=log, process_group=0)
        self._masters.append(process)
        return process.pid

    def adopt(self, pid: int) -> int:
        """A process that a program started here left behind on purpose, a daemon: it ends with the ward, too."""
        start_ticks = self._procfs.start_ticks(pid)
        assert start_ticks is not None
        self._adopted[pid] = start_ticks
        return pid

    def visit(self, path: str) -> asyncio.Task[None]:
        """A request whose answer is not waited for."""
        self._visits.append(task := asyncio.create_task(self.visited(path)))
        return task

    async def visited(self, path: str) -> None:
        """A request and its answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET /{path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n".encode())
        await reader.read()
        writer.close()

    async def until(self, ask: Callable[[], object], seconds: float) -> None:
        """Waits for something to become true; AssertionError when it does not."""
        deadline = time.monotonic() + seconds
        while not ask():
            assert time.monotonic() < deadline, self._story()
            await asyncio.sleep(LOOK_S)

    def _story(self) -> str:
        """What was told, and the programs' last lines."""
        services = [f"{one.name} (pid {one.master_pid}, {len(one.workers)} workers)" for one in self.services()]
        told = [f"{event.kind}: {event.text}" for event in self._reporter.told]
        return "\n".join((*services, *told[-30:], *(self.folder / "log").read_text().splitlines()[-15:]))

    def told(self, kind: str = "worker.") -> list[Event]:
        """What was told of this kind or these kinds."""
        mine = {service.name for service in self.services()}
        return [e for e in self._reporter.told if e.kind.startswith(kind) and e.service in mine]

    def services(self) -> list[Service]:
        """The services of the programs started here: there may be others on the host."""
        mine = {master.pid for master in self._masters} | self._adopted.keys()
        return [service for service in self.rollup.services.values() if service.master_pid in mine]

    def workers(self) -> list[Worker]:
        """Their workers."""
        return [worker for service in self.services() for worker in service.workers.values()]

    async def _watch(self) -> None:
        """Reads records as they come, as the agent does: a title hides a command line within milliseconds."""
        waiting, loop = asyncio.Event(), asyncio.get_running_loop()
        for source in self._kernel.sources:
            loop.add_reader(source.fd, waiting.set)
        try:
            while True:
                waiting.clear()
                for record in self._kernel.read():
                    self._keep(self.watcher.on_record(record))
                self._keep(self.watcher.look_for_ready())
                self._keep(self.watcher.tick())
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await waiting.wait()
        finally:
            for source in self._kernel.sources:
                loop.remove_reader(source.fd)

    def _keep(self, events: list[Event]) -> None:
        self.health.notice(events)
        self._reporter.events(events)
        for hear in self.hears:
            hear(events)

    def _is_ready(self, pid: int) -> bool:
        service = self.rollup.services.get(pid)
        if service is None or len(service.workers) < (service.settings.workers or 1):
            return False
        return all(worker.ready_us is not None for worker in service.workers.values())
