"""Where the library's playbooks are tried: programs of their own, each with a fault, a real Redis, and people who are told."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aiohttp import web

from demo.chain import Link, check_chain
from demo.stage import ROOT, Stage, StageError, free_port
from tests.e2e.faulty import JOBS, WEB

PROGRAMS = ROOT / ".reflex" / "programs"
MARK = f"library-{os.getpid()}"
"""What the names of all services of this scene have: others may be watched on this host, and are left alone."""

POLICY = f'allow = []\n[services."*{MARK}*"]\nallow = ["*"]\n'
WITHIN_S = 150.0
ENDS = ("playbook.verified", "playbook.escalated", "playbook.cancelled")

StoredEvent = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Program:
    """One that runs: the name and kind by which Reflex knows it, its folder, its port if it has one, and its master."""

    service: str
    kind: str
    folder: Path
    port: int
    master: asyncio.subprocess.Process

    def children(self) -> list[int]:
        """The pids of the master's children now."""
        pid = self.master.pid
        return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


class Scene:
    """Use `open_scene`. What happens is heard as it becomes visible; what people are told, `people` has."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.people: list[str] = []
        self._events: list[StoredEvent] = []
        self._news = asyncio.Condition()
        self._redis_port = free_port()
        self._starting = asyncio.Lock()

    async def gunicorn(self, name: str, *words: str, app: str = "app", workers: int = 2) -> Program:
        """A Gunicorn; returns when its workers are ready."""
        command = [python("gunicorn-newest"), "-m", "gunicorn", "-b", "127.0.0.1:{port}", "-n", f"{MARK}-{name}"]
        command += ["-w", str(workers), "--graceful-timeout", "5", *words, f"{app}:application"]
        return await self._start(name, command, workers)

    async def uwsgi(self, name: str, *words: str, workers: int = 2, limit_bytes: int | None = None) -> Program:
        """A uWSGI with a master; returns when its workers are ready."""
        venv = PROGRAMS / "uwsgi-newest"
        command = [str(venv / "bin" / "uwsgi"), "--home", str(venv), "--http-socket", "127.0.0.1:{port}", "--master"]
        command += ["--die-on-term", "--wsgi-file", "app.py", "--processes", str(workers), *words]
        return await self._start(name, command, workers, limit_bytes)

    async def node(
        self, name: str, database: int, *words: str, workers: int = 1, limit_bytes: int | None = None
    ) -> Program:
        """A Celery node at a database of the scene's Redis; returns when its processes are ready."""
        command = [python("celery-newest"), "-m", "celery", "-A", "jobs", "worker", "-n", f"{MARK}-{name}@%h"]
        command += ["-c", str(workers), "--without-mingle", *words]
        return await self._start(name, command, workers, limit_bytes, self._broker(database))

    async def send(self, folder: Path, database: int, code: str) -> None:
        """Runs a line of Python beside the application, as whoever sends tasks does."""
        command = [python("celery-newest"), "-c", f"import jobs, time; {code}"]
        process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=self._broker(database))
        assert await process.wait() == 0, code

    async def first(self, holds: Callable[[StoredEvent], bool], what: str) -> StoredEvent:
        """The first event of which that is true; AssertionError when none comes."""

        def found() -> StoredEvent | None:
            return next((event for event in self._events if holds(event)), None)

        event = await self.until(found, what)
        assert event is not None
        return event

    async def told(self, program: Program, *kinds: str) -> StoredEvent:
        """The first event of one of these kinds about a program."""

        def is_it(event: StoredEvent) -> bool:
            return event["service"] == program.service and event["kind"] in kinds

        return await self.first(is_it, f"{' or '.join(kinds)} of {program.service} is not told")

    def count(self, program: Program, kind: str) -> int:
        """How many events of a kind there are about a program so far."""
        return sum((event["service"], event["kind"]) == (program.service, kind) for event in self._events)

    async def until(self, ask: Callable[[], Any], what: str) -> Any:
        """The first true answer, asked whenever something has happened; AssertionError when the time is up."""
        async with self._news:
            try:
                async with asyncio.timeout(WITHIN_S):
                    await self._news.wait_for(ask)
            except TimeoutError:
                raise AssertionError(f"{what} within {WITHIN_S:g} s\n{self._story()}") from None
            return ask()

    async def end_of(self, program: Program, playbook: str) -> StoredEvent:
        """How the run of a playbook ends."""

        def is_it(event: StoredEvent) -> bool:
            about = (event["service"], event["attrs"].get("playbook"))
            return event["kind"] in ENDS and about == (program.service, playbook)

        return await self.first(is_it, f"{playbook} does not end for {program.service}")

    async def until_busy(self, node: Program) -> None:
        """Returns once the agent has seen what a node holds."""

        async def is_seen() -> bool:
            services = (await self.stage.status())["services"]
            known = [one["celery"] for one in services if one["name"] == node.service and one["celery"]]
            return any(one["reserved"] for one in known)

        await self.stage.until(is_seen, f"{node.service} is not seen at work", within_s=60)

    async def approve(self, program: Program) -> None:
        """Somebody says yes to the run that waits."""
        waiting = await self.told(program, "playbook.waiting")
        await self.stage.post(f"/v1/runs/{waiting['attrs']['run']}/approve", {})

    async def shows(self, end: StoredEvent, *links: Link) -> None:
        """Whether the timeline has the whole chain of a run that has ended."""
        chain = await self.stage.get(f"/v1/chain/{end['id']}")
        missing = [verdict for verdict in check_chain(chain["events"], links) if not verdict.ok]
        assert not missing, f"{missing}\n{end['text']}"

    @asynccontextmanager
    async def visitors(self, program: Program, path: str, per_s: float) -> AsyncIterator[list[str]]:
        """Visits at a steady rate, however slow the answers are; those that failed."""
        failed: list[str] = []

        async def visit() -> None:
            answer = await visited(program.port, path)
            if not answer.startswith("HTTP/1.1 200"):
                failed.append(answer)

        async def come() -> None:
            async with asyncio.TaskGroup() as group:
                while True:
                    group.create_task(visit())
                    await asyncio.sleep(1 / per_s)

        coming = asyncio.create_task(come())
        try:
            yield failed
        finally:
            coming.cancel()
            with suppress(asyncio.CancelledError):
                await coming

    async def hear(self) -> None:
        """Follows the timeline for ever."""
        async with self.stage.follow() as stream:
            async for event in stream:
                async with self._news:
                    self._events.append(event)
                    self._news.notify_all()

    @property
    def ran(self) -> Path:
        """The file that has the ids of tasks `late` that have ended, one a line."""
        return self.stage.folder / "ran"

    async def start_redis(self) -> None:
        """The broker of all nodes."""
        program = shutil.which("redis-server")
        if program is None:
            raise StageError("redis-server is not installed: ./reflex setup --dev installs it")
        command = [program, "--bind", "127.0.0.1", "--port", str(self._redis_port), "--save", "", "--appendonly", "no"]
        await self.stage.start_program("redis", command, self.stage.folder)

    async def _start(
        self,
        name: str,
        command: list[str],
        workers: int,
        limit_bytes: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Program:
        folder, port = self.stage.folder / f"{MARK}-{name}", free_port()
        folder.mkdir()
        for file, text in {**WEB, "jobs.py": JOBS}.items():
            (folder / file).write_text(text)
        command = [word.replace("{port}", str(port)) for word in command]
        if limit_bytes is not None:
            group = self.stage.make_group(f"{MARK}-{name}", limit_bytes)
            command = [sys.executable, str(ROOT / "demo" / "cgroup.py"), str(group.procs), *command]
        async with self._starting:  # one at a time: a dozen at once would take each other's CPU
            master = await self.stage.start_program(f"{MARK}-{name}", command, folder, environment=environment)
            return await self._ready(Program("", "", folder, port, master), workers)

    async def _ready(self, program: Program, workers: int) -> Program:
        """The program with its name, once its workers are ready."""

        def is_its(event: StoredEvent) -> bool:
            return event["kind"] == "service.started" and event["attrs"]["master_pid"] == program.master.pid

        found = await self.first(is_its, f"{program.folder.name} is not found")
        named = replace(program, service=found["service"], kind=found["attrs"]["kind"])
        await self.until(lambda: self.count(named, "worker.ready") >= workers, f"{named.service} is not ready")
        return named

    def _broker(self, database: int) -> dict[str, str]:
        broker = f"redis://127.0.0.1:{self._redis_port}/{database}"
        return {**os.environ, "CELERY_BROKER_URL": broker, "RAN": str(self.ran)}

    def _story(self) -> str:
        told = [f"{event['kind']}: {event['text']}" for event in self._events if MARK in (event["service"] or "")]
        return "\n".join((*told[-60:], self.stage.last_lines()))


@asynccontextmanager
async def open_scene(
    *playbooks: Mapping[str, str], agent: Sequence[str] = (), agent_launcher: Sequence[str] = ()
) -> AsyncIterator[Scene]:
    """A stage with these playbooks armed, on which only what is the scene's own may be acted upon."""
    files = {f"{name}.yaml": text for playbook in playbooks for name, text in playbook.items()}
    stage = Stage(agent=agent, agent_launcher=agent_launcher, playbooks=files)
    scene = Scene(stage)
    (stage.folder / "policy.toml").write_text(POLICY)
    async with people(scene.people) as url:
        (stage.folder / "channels.toml").write_text(f'[ops]\nurl = "{url}"\n')
        async with stage:
            hearing = asyncio.create_task(scene.hear())
            try:
                await scene.start_redis()
                yield scene
            finally:
                hearing.cancel()
                await asyncio.gather(hearing, return_exceptions=True)


@asynccontextmanager
async def people(heard: list[str]) -> AsyncIterator[str]:
    """Whom `notify` reaches: the address of a channel, whose messages are kept."""

    async def hear(request: web.Request) -> web.Response:
        heard.append((await request.json())["message"])
        return web.Response()

    app = web.Application()
    app.router.add_post("/", hear)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"json://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def visited(port: int, path: str) -> str:
    """The first line of the answer, or what went wrong."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /{path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    except OSError as error:
        return repr(error)
    return answer.partition(b"\r\n")[0].decode()


def python(venv: str) -> str:
    """The interpreter of one of the programs that tests are run on."""
    return str(PROGRAMS / venv / "bin" / "python")


def are_there() -> bool:
    """Whether these programs are installed."""
    return all(
        (PROGRAMS / name / "installed").exists() for name in ("gunicorn-newest", "uwsgi-newest", "celery-newest")
    )
