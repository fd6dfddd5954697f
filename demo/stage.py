"""The stage of a story: a server, an agent and a shop of their own, started for real and taken down again."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar

import aiohttp

from demo.cgroup import MemoryGroup, make_group

ROOT = Path(__file__).resolve().parent.parent
SHOP = ROOT / "demo" / "shop"
SERVICE = "shop-web"
HOST = "demo-host"
POLL_S = 0.02
EXIT_STOPPED = 130
"""Exit code of a program of the stage that Ctrl-C or SIGTERM ended."""

READY_LINE = "reflex-server: ready on "


Result = TypeVar("Result")


class StageError(RuntimeError):
    """A part of the stage did not come up, or an expected event did not come; the text says which."""


@dataclass(frozen=True, slots=True)
class ShopOptions:
    """How the shop is run. `limit_bytes` is the limit of its memory cgroup, `timeout_s` Gunicorn's.

    `agent` are options of the agent's command line.
    """

    workers: int = 3
    timeout_s: int = 30
    limit_bytes: int = 256 * 1024 * 1024
    import_s: float = 0.5
    report_pause_s: float = 0.01
    extra: tuple[str, ...] = ()
    agent: tuple[str, ...] = ()


class Stage:
    """Use as an async context manager; everything that it starts ends with it."""

    def __init__(
        self,
        *,
        log: Callable[[str], None] = lambda text: None,
        agent: Sequence[str] = (),
        agent_launcher: Sequence[str] = (),
        playbooks: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`agent` are options of the agent's command line, `playbooks` texts by the names of their files.

        `agent_launcher` is a command that becomes the one that follows it: the agent's.
        """
        self._log = log
        self._agent_launcher = tuple(agent_launcher)
        self._playbooks = playbooks
        self._agent_options = tuple(agent)
        self._folder = tempfile.TemporaryDirectory(prefix="reflex-demo-")
        self.folder = Path(self._folder.name)
        self._processes: list[asyncio.subprocess.Process] = []
        self._groups: list[MemoryGroup] = []
        self._session: aiohttp.ClientSession | None = None
        self.address = "127.0.0.1"
        self.url = ""
        self.token = ""
        self.service = SERVICE
        self.figures: dict[str, dict[str, int]] = {}
        """What a story has counted by itself, by the names of its parts."""

        self.shop: asyncio.subprocess.Process | None = None
        self.agent: asyncio.subprocess.Process | None = None
        self.server: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            await end(process)
        for group in self._groups:
            group.remove()
        if self._session is not None:
            await self._session.close()
        self._folder.cleanup()

    @property
    def programs(self) -> Sequence[asyncio.subprocess.Process]:
        """What was started beside the server and the agent, in that order."""
        return [one for one in self._processes if one not in (self.server, self.agent)]

    @property
    def playbooks(self) -> Path:
        """The folder of the operator's playbooks."""
        return self.folder / "playbooks"

    async def start_server(self, port: int = 0) -> None:
        """Starts the server and waits for its ready line; on `port` again after a stop."""
        state = self.folder / "server"
        token_file = self.folder / "token"
        command = ["-m", "server", "run", "--listen", f"{self.address}:{port}", "--state", str(state)]
        command += ["--playbooks", str(self.playbooks), "--channels", str(self.folder / "channels.toml")]
        self.server = await self._spawn("server", command + ["--first-token-file", str(token_file)])
        ready = await self._line(self.server, READY_LINE)
        self.url = ready.removeprefix(READY_LINE).strip()
        self.token = token_file.read_text().strip() if not self.token else self.token

    async def start_agent(self, *extra: str) -> None:
        """Starts the agent and waits until the server shows it live with its probes."""
        command = [*self._agent_command(), *extra]
        spawned_us = time.time_ns() // 1000
        self.agent = await self._spawn("agent", command, self._agent_launcher)
        await self.until(lambda: self._agent_since(spawned_us), "the agent does not report to the server")

    def _agent_command(self) -> list[str]:
        command = ["-m", "agent", "run", "--server-url", self.url, "--host", HOST]
        command += ["--host-key-file", str(self._host_key), "--state-dir", str(self.folder / "agent")]
        return [*command, "--policy-file", str(self.folder / "policy.toml")]

    async def start_agent_alone(self, *extra: str) -> None:
        """Starts the agent again while there is no server; waits until it watches."""
        command = [*self._agent_command(), *extra]
        self.agent = await self._spawn("agent", command, self._agent_launcher)
        log, marks = self.folder / "agent.log", b"watching "
        before = log.read_bytes().count(marks)

        async def watches() -> bool:
            return log.read_bytes().count(marks) > before

        await self.until(watches, "the agent does not begin to watch")

    async def restart_agent(self) -> None:
        """Ends the agent in good order and starts it again."""
        assert self.agent is not None
        await end(self.agent)
        await self.start_agent()

    async def kill_agent(self) -> None:
        """Kills the agent where it stands."""
        assert self.agent is not None
        self.agent.kill()
        await self.agent.wait()

    async def stop_server(self) -> None:
        """Ends the server; its port is kept in mind."""
        assert self.server is not None
        await end(self.server)

    async def start_server_again(self) -> None:
        """Starts the server where it was."""
        await self.start_server(int(self.url.rpartition(":")[2]))

    async def start_shop(self, options: ShopOptions, *, wait_ready: bool = True) -> MemoryGroup:
        """Starts the shop in a memory cgroup of its own; waits until every worker is ready on the timeline."""
        python = demo_python()
        name = self.service = f"{SERVICE}-{os.getpid()}" if await self.service_is_there(SERVICE) else SERVICE
        group = self.make_group(name, options.limit_bytes)
        port = free_port()
        gunicorn = [str(python), "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", str(options.workers)]
        gunicorn += ["--timeout", str(options.timeout_s), "--name", name, *options.extra, "app:app"]
        environment = {
            **os.environ,
            "SHOP_IMPORT_S": str(options.import_s),
            "SHOP_REPORT_PAUSE_S": str(options.report_pause_s),
            "SHOP_FOLDER": str(self.folder),
        }
        environment.pop("PYTHONPATH", None)
        began_us = time.time_ns() // 1000
        launcher = [sys.executable, str(ROOT / "demo" / "cgroup.py"), str(group.procs), *gunicorn]
        self.shop = await self.start_program(name, launcher, SHOP, environment=environment)
        self.shop_url = f"http://127.0.0.1:{port}"
        if wait_ready:
            await self.until(
                lambda: self._all_ready(name, options.workers, began_us), f"workers of {name} do not become ready"
            )
        return group

    def make_group(self, name: str, limit_bytes: int) -> MemoryGroup:
        """A memory cgroup that is removed with the stage."""
        group = make_group(f"reflex-{name}-{os.getpid()}", limit_bytes)
        self._groups.append(group)
        return group

    async def start_program(
        self, name: str, command: Sequence[str], folder: Path, *, environment: Mapping[str, str] | None = None
    ) -> asyncio.subprocess.Process:
        """Starts a program that writes into a log of the stage."""
        with (self.folder / f"{name}.log").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self._processes.append(process)
        return process

    async def end_programs(self) -> None:
        """Ends what a story was played on; the server and the agent go on."""
        kept = (self.server, self.agent)
        for process in reversed([one for one in self._processes if one not in kept]):
            await end(process)
        self._processes = [one for one in self._processes if one in kept]
        while self._groups:
            self._groups.pop().remove()

    async def service_is_there(self, name: str) -> bool:
        """Whether the agent sees a service of this name already: another stage on this host has one."""
        statuses = [host["status"] for host in (await self.get("/v1/hosts"))["hosts"]]
        return any(service["name"] == name for status in statuses for service in status.get("services", []))

    async def get(self, path: str, **params: str) -> Any:
        """An answer of the API, as the operator gets it."""
        session = self._client()
        headers = {"Authorization": f"Bearer {self.token}"}
        async with session.get(self.url + path, params=params, headers=headers) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def status(self) -> Any:
        """What `reflexd status --json` says on this host."""
        command = ["-m", "agent", "status", "--json", "--state-dir", str(self.folder / "agent")]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        output, _ = await asyncio.wait_for(process.communicate(), 30)
        return json.loads(output)

    async def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """What the API answers to a change by the operator."""
        return await self._say("PUT", path, body)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """What the API answers to a request of the operator."""
        return await self._say("POST", path, body)

    async def _say(self, method: str, path: str, body: Mapping[str, Any]) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self._client().request(method, self.url + path, json=body, headers=headers) as answer:
            if answer.status >= 400:
                raise StageError(f"{method} {path}: {answer.status} {await answer.text()}")
            return await answer.json()

    @asynccontextmanager
    async def follow(self, **filters: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The live stream: events as they become visible, from the moment of entering on."""
        headers = {"Authorization": f"Bearer {self.token}"}
        timeout = aiohttp.ClientTimeout(total=None)
        stream = self._client().get(self.url + "/v1/stream", params=filters, headers=headers, timeout=timeout)
        async with stream as answer:
            answer.raise_for_status()
            yield _messages(answer)

    async def events(self, **filters: str) -> list[dict[str, Any]]:
        """Events of the timeline, newest first."""
        found: list[dict[str, Any]] = (await self.get("/v1/timeline", **filters))["events"]
        return found

    async def record(self, file: Path) -> int:
        """Writes the whole timeline into a file, oldest first, one event a line, compressed; how many there are."""
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = await self.get("/v1/timeline", limit="500", **cursor)
            found += page["events"]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        await asyncio.to_thread(_write_lines, file, found[::-1])
        return len(found)

    async def until(self, ask: Callable[[], Any], problem: str, *, within_s: float = 20.0) -> Any:
        """The first true answer of the coroutine function `ask`; raises StageError when the time is up."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            answer = await ask()
            if answer:
                return answer
            await asyncio.sleep(POLL_S)
        raise StageError(f"{problem} within {within_s:g} s; the logs' last lines:\n{self.last_lines()}")

    async def visit(self, path: str, *, method: str = "GET") -> int | None:
        """A request to the shop; the status, or None when the connection broke.

        A GET on a connection that broke is tried once more by the client, a POST is not.
        """
        try:
            timeout = aiohttp.ClientTimeout(total=10)
            async with self._client().request(method, self.shop_url + path, timeout=timeout) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return None

    def last_lines(self) -> str:
        """The end of every part's log."""
        parts = []
        for log in sorted(self.folder.glob("*.log")):
            parts.append(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-12:]))
        return "\n".join(parts)

    async def _start(self) -> None:
        self._log("starting a server with its own embedded ClickHouse")
        self._host_key = self.folder / "host-key"
        self.playbooks.mkdir()
        for name, text in self._playbooks.items():
            (self.playbooks / name).write_text(text)
        state = ["--state", str(self.folder / "server")]
        add = await self._spawn(
            "host-key", ["-m", "server", "host-key", "add", HOST, "--out", str(self._host_key), *state]
        )
        if await add.wait():
            raise StageError(f"no host key could be made:\n{self.last_lines()}")
        await self.start_server()
        self._log("starting an agent and its BPF programs")
        await self.start_agent(*self._agent_options)

    async def _spawn(
        self, name: str, command: Sequence[str], launcher: Sequence[str] = ()
    ) -> asyncio.subprocess.Process:
        with (self.folder / f"{name}.log").open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *launcher,
                sys.executable,
                *command,
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    async def _line(self, process: asyncio.subprocess.Process, start: str) -> str:
        assert process.stdout is not None
        async for raw in process.stdout:
            line = raw.decode(errors="replace")
            if line.startswith(start):
                return line
        raise StageError(f"the server ended before it was ready:\n{self.last_lines()}")

    async def _agent_since(self, started_us: int) -> bool:
        """Whether the server has heard of probes from an agent that started since."""
        statuses = [host["status"] for host in (await self.get("/v1/hosts"))["hosts"] if host["name"] == HOST]
        return any(status.get("probes") and status["started_us"] >= started_us for status in statuses)

    async def _all_ready(self, name: str, workers: int, since_us: int) -> bool:
        ready = await self.events(service=name, kind="worker.ready", host=HOST)
        return len({event["worker"]["pid"] for event in ready if event["ts_us"] >= since_us}) >= workers

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))
        return self._session


async def _messages(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream of server-sent events."""
    name = ""
    async for raw in answer.content:
        field, _, value = raw.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data" and name == "timeline":
            yield json.loads(value)


def _write_lines(file: Path, events: Sequence[Mapping[str, Any]]) -> None:
    with gzip.open(file, "wt") as opened:
        opened.writelines(json.dumps(event, separators=(",", ":")) + "\n" for event in events)


async def end(process: asyncio.subprocess.Process, *, grace_s: float = 10.0) -> None:
    """Asks a process to end, waits, and kills it when it does not."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), grace_s)
    except TimeoutError:
        process.kill()
        await process.wait()


async def until_told(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs the work; SIGTERM ends it like Ctrl-C does, so that nothing that it started is left behind."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def demo_python() -> Path:
    """The interpreter of the shop's own virtual environment, which `./reflex demo` makes."""
    named = os.environ.get("REFLEX_DEMO_PYTHON")
    python = Path(named) if named else ROOT / ".reflex" / "demo-venv" / "bin" / "python"
    if not python.exists():
        raise StageError(f"the shop's virtual environment is missing ({python}); run ./reflex setup")
    return python


def free_port() -> int:
    """A TCP port that is free on the loopback address now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
