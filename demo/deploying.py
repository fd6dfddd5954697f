"""A real app in a real repository, deployed for real: Gunicorn and Celery under a supervisor, and traffic that never stops."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from demo.stage import HOST, ROOT, Stage, StageError, demo_python, free_port

SOURCES = ROOT / "demo" / "deployed"
APP = "market"
USER = "nobody"
REQUESTS_A_SECOND = 100
PATIENCE_S = 10.0
TASK_EVERY_S, TASK_S = 0.5, 0.2
DEPLOY_WITHIN_S = 400.0

SUPERVISORD = """\
[unix_http_server]
file={folder}/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{folder}/supervisor.sock
[supervisord]
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
nodaemon=true
"""
SUPERVISOR = (
    SUPERVISORD
    + """\
[program:market-web]
command={keeper} {base}/current/venv/bin/python -m gunicorn --bind 127.0.0.1:{port} --workers 4 --name market-web market:app
environment=PWD="{base}/current",MARKET_BROKER_URL="{broker}"
directory={base}/current
user={user}
autostart=false
stopwaitsecs=60
stdout_logfile={folder}/market-web.log
redirect_stderr=true
[program:market-jobs]
command={base}/current/venv/bin/python -m celery -A jobs worker -c 2 -n market-jobs@%%h --loglevel warning
environment=PWD="{base}/current",MARKET_BROKER_URL="{broker}"
directory={base}/current
user={user}
autostart=false
stopwaitsecs=120
stdout_logfile={folder}/market-jobs.log
redirect_stderr=true
"""
)

FILE = """\
app: market
repository: {repository}
ref: main
hosts: [{host}]
user: {user}
folder: {base}
web:
  - service: market-web
    app: market:app
    health: {{path: /healthz, status: 200}}
    boot: 60s
celery:
  - service: market-jobs
    drain: 60s
watch: {{for: {watch}}}
environment:
  MARKET_BROKER_URL: {broker}
"""


@dataclass(frozen=True, slots=True)
class DeployOptions:
    """How the app is deployed; `agent` are settings of the agent."""

    watch: str = "20s"
    agent: tuple[str, ...] = ()


@dataclass(slots=True)
class Counts:
    """What clients saw."""

    served: int = 0
    failed: int = 0
    worst_ms: float = 0.0
    versions: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)


class Visitors:
    """New connections, a hundred a second, whatever comes back. Use as an async context manager."""

    def __init__(
        self,
        port: int,
        *,
        a_second: int = REQUESTS_A_SECOND,
        host: str = APP,
        path: str = "/",
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Who has no answer after `patience_s` counts it as failed."""
        self._port = port
        self._patience_s = patience_s
        self._asked = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        self._pause_s = 1 / a_second
        self.counts = Counts()
        self._asking: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def turn(self) -> Counts:
        """What was seen until now; counting begins anew."""
        before, self.counts = self.counts, Counts()
        return before

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._visit())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, *self._asking, return_exceptions=True)

    async def _visit(self) -> None:
        at_s = time.monotonic()
        while True:
            at_s += self._pause_s
            if (wait_s := at_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            task = asyncio.create_task(self._ask())
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask(self) -> None:
        began, counts = time.monotonic(), self.counts
        try:
            async with asyncio.timeout(self._patience_s):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.write(self._asked)
                said = await reader.read()
                writer.close()
            if not said.startswith(b"HTTP/1.1 200"):
                raise OSError(repr(said[:60]))
            counts.versions[said.rpartition(b"\r\n\r\n")[2].decode()] += 1
            counts.served += 1
        except (OSError, TimeoutError) as error:
            counts.failed += 1
            counts.troubles.append(repr(error)[:100])
        counts.worst_ms = max(counts.worst_ms, (time.monotonic() - began) * 1000)


class Tasks:
    """Celery tasks that are sent all along, each with a number. Use as an async context manager."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self.sent = 0
        self._task: asyncio.Task[None] | None = None
        self._sender: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        code = (
            "import sys, celery\n"
            f"app = celery.Celery(broker={self._broker!r})\n"
            "for line in sys.stdin:\n"
            f"    app.send_task('market.bill', (int(line), {TASK_S}))\n"
        )
        self._sender = await asyncio.create_subprocess_exec(
            str(demo_python()), "-c", code, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        self._task = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        assert self._sender is not None
        assert self._sender.stdin is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._sender.stdin.close()
        await self._sender.wait()

    async def _send(self) -> None:
        assert self._sender is not None
        assert self._sender.stdin is not None
        while True:
            self._sender.stdin.write(f"{self.sent}\n".encode())
            self.sent += 1
            await asyncio.sleep(TASK_EVERY_S)


class Deploying:
    """The app, its repository and its programs; everything ends with the stage."""

    def __init__(self, stage: Stage, options: DeployOptions) -> None:
        self.stage = stage
        self._options = options
        self._home = Path(f"/tmp/reflex-demo-app-{os.getpid()}")
        self.base = self._home / APP
        self.repository = self._home / "market.git"
        self.port, self._broker_port = free_port(), free_port()
        self.broker = f"redis://127.0.0.1:{self._broker_port}/0"

    async def __aenter__(self) -> Self:
        self._home.mkdir(mode=0o755)
        redis = shutil.which("redis-server")
        if redis is None:
            raise StageError("redis-server is not installed; run: sudo ./reflex setup --dev")
        command = [redis, "--bind", "127.0.0.1", "--port", str(self._broker_port), "--save", "", "--appendonly", "no"]
        await self.stage.start_program("redis", command, self.stage.folder)
        keeper = self._home / "reflex-keep"
        shutil.copy(ROOT / "agent" / "release" / "keep.py", keeper)
        keeper.chmod(0o755)
        text = SUPERVISOR.format(
            folder=self._home, base=self.base, port=self.port, broker=self.broker, user=USER, keeper=keeper
        )
        (self._home / "supervisord.conf").write_text(text)
        self._git("init", "--quiet", "--initial-branch", "main", ".")
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(OSError):
            os.kill(int((self._home / "supervisord.pid").read_text()), 15)
        for process in reversed(self.stage.programs):
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 30)
        shutil.rmtree(self._home, ignore_errors=True)

    # The repository.

    def commit(self, version: str, *, leak_kb: int = 0, breaks: bool = False) -> str:
        """A new version on main; its commit."""
        for file in SOURCES.iterdir():
            if file.suffix in (".py", ".txt"):
                text = file.read_text().replace('VERSION = "v0"', f'VERSION = "{version}"')
                text = text.replace("LEAK_KB = 0", f"LEAK_KB = {leak_kb}")
                if breaks and file.name == "market.py":
                    text += "\nimport a_module_that_nobody_has_installed\n"
                (self.repository / file.name).write_text(text)
        self._git("add", "--all")
        self._git(
            "-c", "user.name=Demo", "-c", "user.email=demo@localhost", "commit", "--quiet", "-m", f"Release {version}"
        )
        return self._git("rev-parse", "HEAD").strip()

    def _git(self, *words: str) -> str:
        self.repository.mkdir(exist_ok=True)
        done = subprocess.run(["git", *words], cwd=self.repository, capture_output=True, text=True, check=True)
        return done.stdout

    # The app.

    async def take_on(self) -> None:
        """Tells the server of the app."""
        text = FILE.format(
            repository=self.repository,
            host=HOST,
            user=USER,
            base=self.base,
            watch=self._options.watch,
            broker=self.broker,
        )
        await self.stage.put(f"/v1/apps/{APP}", {"text": text})

    async def start_programs(self) -> None:
        """Starts what serves, from the release that `current` names, and waits until it is seen."""
        supervisord = [str(demo_python()), "-m", "supervisor.supervisord", "-c", str(self._home / "supervisord.conf")]
        await self.stage.start_program("supervisord", supervisord, self._home)
        control = [str(demo_python()), "-m", "supervisor.supervisorctl", "-c", str(self._home / "supervisord.conf")]

        async def started() -> bool:
            done = await asyncio.create_subprocess_exec(
                *control, "start", "all", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            output, _ = await done.communicate()
            return output.count(b": started") == 2

        await self.stage.until(started, "supervisord does not answer")
        await self.stage.until(lambda: self._is_ready("market-web"), "market-web is not seen", within_s=60)
        await self.stage.until(lambda: self._is_ready("market-jobs"), "market-jobs is not seen", within_s=60)

    async def _is_ready(self, name: str) -> bool:
        statuses = [host["status"] for host in (await self.stage.get("/v1/hosts"))["hosts"]]
        return any(
            service["name"] == name and any(worker["state"] == "ready" for worker in service["workers"])
            for status in statuses
            for service in status.get("services", [])
        )

    async def deploy(self, ref: str = "main", **more: Any) -> dict[str, Any]:
        """Deploys and waits for the end; the deploy as the API has it."""
        begun = await self.begin(ref, **more)

        async def ended() -> dict[str, Any] | None:
            now: dict[str, Any] = await self.stage.get(f"/v1/deploys/{begun['id']}")
            return now if now["stage"] == "done" else None

        found: dict[str, Any] = await self.stage.until(
            ended, f"the deploy of {ref} does not end", within_s=DEPLOY_WITHIN_S
        )
        return found

    async def begin(self, ref: str = "main", **more: Any) -> dict[str, Any]:
        """Begins a deploy; the deploy as the API has it."""
        begun: dict[str, Any] = (await self.stage.post(f"/v1/apps/{APP}/deploy", {"ref": ref, **more}))["deploy"]
        return begun

    async def ran(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """How often each task ran, and how many each version ran."""
        code = (
            f"import json, redis\nr = redis.Redis.from_url({self.broker!r}, decode_responses=True)\n"
            "print(json.dumps([r.hgetall('ran'), r.hgetall('by')]))\n"
        )
        done = await asyncio.create_subprocess_exec(str(demo_python()), "-c", code, stdout=asyncio.subprocess.PIPE)
        output, _ = await done.communicate()
        ran, by = json.loads(output)
        return {key: int(value) for key, value in ran.items()}, {key: int(value) for key, value in by.items()}

    @property
    def policy(self) -> str:
        """What the host's policy has to say."""
        return f'[apps.{APP}]\nuser = "{USER}"\nfolder = "{self.base}"\n'
