"""The shop's background jobs, started for real: a Redis of their own and Celery nodes, each in a memory cgroup."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from dataclasses import dataclass

from demo.cgroup import MemoryGroup
from demo.chain import StoredEvent
from demo.stage import HOST, ROOT, Stage, StageError, demo_python, free_port

FOLDER = ROOT / "demo" / "jobs"
NODE = "shop-jobs"
PASSWORD = "correct-horse"
SEND_WITHIN_S = 60.0
EVENT_WITHIN_S = 150.0
SETTLED_S = 6.0
"""Younger tasks than this are nobody's for certain."""


@dataclass(frozen=True, slots=True)
class JobsOptions:
    """How the jobs are run. `limit_bytes` is the limit of the node's memory cgroup; `supervised`: a supervisor starts it; `agent` are settings of the agent."""

    processes: int = 2
    acks_late: bool = False
    supervised: bool = False
    limit_bytes: int = 512 * 1024 * 1024
    agent: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


class Jobs:
    """A running node and its broker; everything ends with the stage."""

    def __init__(self, stage: Stage, options: JobsOptions) -> None:
        self.stage = stage
        self.service = NODE
        self._options = options
        self._environment: dict[str, str] = {}

    async def start(self) -> MemoryGroup:
        """Starts both; waits until every process of the pool is ready on the timeline."""
        redis = shutil.which("redis-server")
        if redis is None:
            raise StageError("redis-server is not installed; run: sudo ./reflex setup --dev")
        port = free_port()
        command = [redis, "--bind", "127.0.0.1", "--port", str(port), "--requirepass", PASSWORD]
        await self.stage.start_program("redis", [*command, "--save", "", "--appendonly", "no"], self.stage.folder)
        self._environment = {
            **os.environ,
            "SHOP_BROKER_URL": f"redis://:{PASSWORD}@127.0.0.1:{port}/0",
            "SHOP_ACKS_LATE": "1" if self._options.acks_late else "0",
        }
        self._environment.pop("PYTHONPATH", None)
        return await self._start_node()

    async def send(self, name: str, count: int = 1, *arguments: float) -> None:
        """Sends tasks; raises StageError when the broker does not take them."""
        await self._run("send.py", name, str(count), *map(str, arguments))

    async def visit(self) -> bool:
        """Everyday traffic: one small task; whether the broker took it."""
        try:
            await self.send("shop.mail")
        except (StageError, TimeoutError):
            return False
        return True

    async def first(self, kind: str) -> StoredEvent:
        """The first event of a kind about this node; raises StageError when none comes."""

        async def look() -> StoredEvent | None:
            return next(iter(await self.stage.events(kind=kind, service=self.service)), None)

        found: StoredEvent = await self.stage.until(look, f"no {kind}", within_s=EVENT_WITHIN_S)
        return found

    async def until_busy(self, reserved: int) -> None:
        """Returns once the agent has seen every process with a task, and so many more fetched."""

        async def is_busy() -> bool:
            status = await self.stage.status()
            known = [one["celery"] for one in status["services"] if one["name"] == self.service and one["celery"]]
            return any(
                one["active_count"] == self._options.processes and (one["reserved"] or 0) >= reserved for one in known
            )

        await self.stage.until(is_busy, "the node is not busy", within_s=60)
        await asyncio.sleep(SETTLED_S)

    async def make_deaf(self) -> None:
        """Tells the node to consume its queue no more."""
        await self._run("send.py", "--deaf")

    async def _start_node(self) -> MemoryGroup:
        options = self._options
        if await self.stage.service_is_there(NODE):
            self.service = f"{NODE}-{os.getpid()}"
        group = self.stage.make_group(self.service, options.limit_bytes)
        celery = [str(demo_python()), "-m", "celery", "-A", "jobs", "worker", "-n", f"{self.service}@%h"]
        celery += ["-c", str(options.processes), "--without-mingle", *options.extra]
        launcher = [sys.executable, str(ROOT / "demo" / "cgroup.py"), str(group.procs), *celery]
        if options.supervised:
            launcher = self._supervised(launcher)
        await self.stage.start_program(self.service, launcher, FOLDER, environment=self._environment)
        await self.stage.until(self._all_ready, f"processes of {self.service} do not become ready", within_s=60)
        return group

    def _supervised(self, command: list[str]) -> list[str]:
        """A real supervisor that starts the node, and does not start it again by itself."""
        folder = self.stage.folder
        settings = folder / "supervisord.conf"
        settings.write_text(
            f"[unix_http_server]\nfile={folder}/supervisor.sock\n"
            f"[supervisord]\nnodaemon=true\nlogfile={folder}/supervisord.log\npidfile={folder}/supervisord.pid\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[program:{self.service}]\ncommand={' '.join(command).replace('%', '%%')}\ndirectory={FOLDER}\nautorestart=false\n"
            "startsecs=1\nstopasgroup=true\nkillasgroup=true\nredirect_stderr=true\n"
            f"stdout_logfile={folder}/node.log\n"
        )
        return [str(demo_python()), "-m", "supervisor.supervisord", "-c", str(settings)]

    async def _all_ready(self) -> bool:
        ready = await self.stage.events(service=self.service, kind="worker.ready", host=HOST)
        return len({event["worker"]["pid"] for event in ready}) >= self._options.processes

    async def _run(self, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            str(demo_python()),
            *arguments,
            cwd=FOLDER,
            env=self._environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await asyncio.wait_for(process.communicate(), SEND_WITHIN_S)
        if process.returncode:
            raise StageError(f"{' '.join(arguments)} failed:\n{errors.decode(errors='replace')}")
