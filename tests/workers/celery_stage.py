"""Real brokers, real Celery nodes and the agent's own eyes on them: what tests of Celery are played on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.celery.beat import CeleryBeat
from agent.clock import Clock
from agent.ids import new_event_id
from agent.procfs import ProcFs
from agent.reporter import Reporter
from agent.rollup import Rollup
from agent.service import Service
from agent.stacks import Stacks
from agent.watcher import Watcher
from agent.wire import Event, Row

PASSWORD = "pass-w0rd-that-nobody-may-see"
APP = """
import os, signal, subprocess, time
from celery import Celery

app = Celery("jobs", broker=os.environ.get("JOBS_BROKER") or os.environ.get("CELERY_BROKER_URL"))
app.conf.broker_connection_retry_on_startup = True
if os.environ.get("JOBS_VISIBILITY"):
    app.conf.broker_transport_options = {"visibility_timeout": int(os.environ["JOBS_VISIBILITY"])}

@app.task
def nap(seconds): time.sleep(seconds)

@app.task(acks_late=True)
def late(seconds): time.sleep(seconds)

@app.task(acks_late=True, reject_on_worker_lost=True)
def again(seconds): time.sleep(seconds)

@app.task
def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end: pass

@app.task
def program(seconds):
    subprocess.run(["python3", "-c", f"import time\\nend = time.monotonic() + {seconds}\\nwhile time.monotonic() < end: pass"])

@app.task
def die(after=0):
    time.sleep(after)
    os.kill(os.getpid(), signal.SIGKILL)

if os.path.exists("deaf"):
    # A node that stops asking for messages and thinks that it does: as after some lost connections to Redis.
    from kombu.transport.redis import Channel
    asks = Channel._brpop_start
    Channel._brpop_start = lambda self, *given: asks(self, *given) if not os.path.exists("deaf now") else None
"""


def free_port(among: Sequence[int] = ()) -> int:
    """A port that nobody listens on now."""
    for port in among or (0,):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    pytest.skip("no port is free")


def wait_until(check: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """Asks again and again until the answer is worth something."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if found := check():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds:g} s")


def end(process: subprocess.Popen[bytes], seconds: float = 10.0) -> None:
    """Ends a process that this test started."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class RedisServer:
    """A redis-server with a password, on a port and on a unix socket."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    password: str | None = PASSWORD

    def url(self, database: int = 0) -> str:
        """Its address with the password."""
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}/{database}"

    def unix_url(self, database: int = 0) -> str:
        """The address of its unix socket."""
        return f"redis+socket://{f':{self.password}@' if self.password else ''}{self.folder}/redis.sock?virtual_host={database}"

    def client(self, database: int = 0) -> Any:
        """A client of our own."""
        import redis

        return redis.Redis(port=self.port, db=database, password=self.password)


@contextlib.contextmanager
def redis_server(folder: Path, *, password: str | None = PASSWORD, port: int | None = None) -> Iterator[RedisServer]:
    """A redis-server of our own; skips where there is none to be had."""
    program = shutil.which("redis-server") or pytest.skip("redis-server is not installed")
    port = port or free_port()
    words = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    words += ["--unixsocket", f"{folder}/redis.sock", *(["--requirepass", password] if password else [])]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    server = RedisServer(folder, port, process, password)
    try:
        wait_until(lambda: _answers(port), "redis-server")
        yield server
    finally:
        end(process)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class CeleryNode:
    """A node that runs."""

    process: subprocess.Popen[bytes]
    log: Path
    python: Path
    folder: Path
    environment: dict[str, str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(
        self, task: str, *arguments: object, times: int = 1, queue: str = "celery", priority: int | None = None
    ) -> None:
        """Sends tasks as the application does, from a process of its own."""
        options = f"queue={queue!r}" + (f", priority={priority}" if priority is not None else "")
        code = f"import jobs\nfor _ in range({times}): jobs.{task}.apply_async({arguments!r}, {options})"
        subprocess.run([self.python, "-c", code], cwd=self.folder, env=self.environment, check=True, timeout=60)

    def kill(self) -> None:
        """Kills the master and reaps it, as its manager would."""
        self.process.kill()
        self.process.wait()

    def control(self, *words: str) -> None:
        """Says something to the node by remote control."""
        command = [self.python, "-m", "celery", "-A", "jobs", "control", *words]
        subprocess.run(command, cwd=self.folder, env=self.environment, check=True, timeout=60, capture_output=True)


@contextlib.contextmanager
def celery_node(
    python: Path,
    folder: Path,
    broker: str,
    *words: str,
    environment: dict[str, str] | None = None,
    hides_broker: bool = False,
) -> Iterator[CeleryNode]:
    """`celery -A jobs worker …`, ready to work."""
    (folder / "jobs.py").write_text(APP)
    log = folder / f"node-{time.monotonic_ns()}.log"
    whole = {name: value for name, value in os.environ.items() if "BROKER" not in name}
    whole |= {"PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
    if hides_broker:
        (folder / "broker.txt").write_text(broker)
        text = APP.replace(
            'os.environ.get("JOBS_BROKER") or os.environ.get("CELERY_BROKER_URL")', 'open("broker.txt").read()'
        )
        (folder / "jobs.py").write_text(text)
    else:
        whole["CELERY_BROKER_URL"] = broker
    command = [python, "-m", "celery", "-A", "jobs", "worker", "-l", "INFO", *words]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=whole, stdout=output, stderr=output)
    try:
        wait_until(lambda: " ready." in log.read_text() or process.poll() is not None, f"a node ({log})", 60)
        assert process.poll() is None, log.read_text()[-2_000:]
        yield CeleryNode(process, log, python, folder, whole)
    finally:
        end(process)


class Recorder(Reporter):
    """Keeps what would go into the spool."""

    def __init__(self) -> None:
        self.told: list[Event] = []
        self.rows: list[Row] = []

    def events(self, events: Any) -> None:
        self.told += events

    def samples(self, ts_us: int, rows: Sequence[Row]) -> None:
        self.rows += rows


@dataclass
class Eyes:
    """The agent's watcher without the kernel, and the beat under test."""

    watcher: Watcher
    services: OwnServices
    beat: CeleryBeat
    recorder: Recorder
    seen: list[Event] = field(default_factory=list)

    def look_for_services(self) -> None:
        """One look through /proc, whose events the beat is told."""
        self.note([*self.watcher.scan_for_deaths(), *self.watcher.scan()])

    def note(self, events: list[Event]) -> None:
        """Events as the daemon hands them on."""
        self.seen += events
        self.beat.notice(events)

    def told(self, kind: str) -> list[Event]:
        """Events of this kind so far."""
        return [event for event in self.recorder.told if event.kind == kind]

    async def until(self, kind: str, seconds: float = 60.0, *, count: int = 1) -> Event:
        """Beats until so many events of this kind have been told; the last of them."""
        import asyncio

        ends = time.monotonic() + seconds
        while len(self.told(kind)) < count:
            assert time.monotonic() < ends, (
                f"no {kind} within {seconds:g} s; told: {[e.text for e in self.recorder.told]}"
            )
            self.look_for_services()
            await self.beat.tick()
            await asyncio.sleep(0.1)
        return self.told(kind)[count - 1]

    async def beats(self, seconds: float) -> None:
        """Beats for a while."""
        import asyncio

        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.look_for_services()
            await self.beat.tick()
            await asyncio.sleep(0.1)

    async def until_known(
        self, check: Callable[[list[dict[str, Any]]], Any], seconds: float = 30.0
    ) -> list[dict[str, Any]]:
        """Beats until the status is as wished."""
        import asyncio

        ends = time.monotonic() + seconds
        while not check(self.beat.status()):
            assert time.monotonic() < ends, self.beat.status()
            self.look_for_services()
            await self.beat.tick()
            await asyncio.sleep(0.1)
        return self.beat.status()


@dataclass
class OwnServices:
    """The services of one folder: others may run on this host."""

    rollup: Rollup
    folder: str

    @property
    def services(self) -> dict[int, Service]:
        return {pid: service for pid, service in self.rollup.services.items() if service.folder == self.folder}


@contextlib.asynccontextmanager
async def eyes(folder: Path, *, py_spy: Path | None = None, **settings: Any) -> AsyncIterator[Eyes]:
    """Eyes on all Celery services that were started in a folder."""
    recorder, procfs, clock = Recorder(), ProcFs(), Clock()
    rollup = Rollup(new_event_id)
    watcher = Watcher(procfs, rollup, clock, None)
    services = OwnServices(rollup, str(folder))
    beat = CeleryBeat(procfs, services, recorder, recorder, clock, "web-1", Stacks(procfs, py_spy), **settings)
    try:
        yield Eyes(watcher, services, beat, recorder)
    finally:
        await beat.stop()


def celery_python() -> Path:
    """A Python that has Celery, in an environment of its own; made once, beside other caches of the tests."""
    named = os.environ.get("REFLEX_CELERY_PYTHON")
    if named:
        return Path(named)
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "reflex-tests" / "celery"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
        made = subprocess.run(
            [python, "-m", "pip", "install", "-q", "celery[redis]", "packaging"], timeout=600, check=False
        )
        if made.returncode:
            shutil.rmtree(folder)
            pytest.skip("Celery cannot be installed")
    return python


@dataclass
class RabbitServer:
    """A RabbitMQ with one user of its own; `has_management` where the port of its management API was free."""

    folder: Path
    port: int
    has_management: bool
    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    def url(self, vhost: str = "%2F") -> str:
        """Its address with the password."""
        return f"amqp://shop:{PASSWORD}@127.0.0.1:{self.port}/{vhost}"

    def ctl(self, *words: str) -> str:
        """rabbitmqctl."""
        program = [_RABBIT / "rabbitmqctl", "--quiet", *words]
        done = subprocess.run(program, env=self.environment, timeout=60, check=True, capture_output=True, text=True)
        return done.stdout


MANAGEMENT_PORT = 15672
_RABBIT = Path("/usr/lib/rabbitmq/bin")


@contextlib.contextmanager
def rabbit_server(folder: Path) -> Iterator[RabbitServer]:
    """A RabbitMQ of our own, with an epmd of its own; takes some ten seconds to start. Skips where there is none."""
    if not (_RABBIT / "rabbitmq-server").exists():
        pytest.skip("RabbitMQ is not installed")
    port, epmd, distribution = free_port(), free_port(), free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ")} | {
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"reflex{port}@localhost",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "environment"),
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    has_management = not _answers(MANAGEMENT_PORT)
    (folder / "plugins").write_text("[rabbitmq_management].\n" if has_management else "[].\n")
    lines = ["log.console = false", f"management.tcp.port = {MANAGEMENT_PORT}", "management.tcp.ip = 127.0.0.1"]
    (folder / "rabbitmq.conf").write_text("\n".join(lines if has_management else lines[:1]) + "\n")
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen([_RABBIT / "rabbitmq-server"], env=environment, stdout=log, stderr=log)
    server = RabbitServer(folder, port, has_management, environment, process)
    try:
        wait_until(lambda: _answers(port) or process.poll() is not None, f"RabbitMQ ({folder})", 90)
        assert process.poll() is None, (folder / "start.log").read_text()[-2_000:]
        server.ctl("await_startup")
        server.ctl("add_user", "shop", PASSWORD)
        server.ctl("set_user_tags", "shop", "monitoring")
        server.ctl("set_permissions", "shop", ".*", ".*", ".*")
        yield server
    finally:
        end(process, 30)
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(["epmd", "-port", str(epmd), "-kill"], env=environment, capture_output=True, check=False)
