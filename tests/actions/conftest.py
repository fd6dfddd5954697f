"""A server and an agent that watches a real Gunicorn with a few workers, and an operator who asks for acts."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from demo.stage import HOST, Stage, free_port

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / ".reflex" / "programs"
WITHIN_S = 60.0
LEAST_SERVED = 101
"""Requests of one test's traffic; on a busy machine it goes on until they are served."""

OUTCOMES = ("action.done", "action.failed", "action.refused", "action.planned")
APP = """
import time
def app(environ, start_response):
    time.sleep(0.005)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]
async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"].endswith("shutdown"):
                return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})
"""


class Site:
    """A Gunicorn of its own on the stage, and what an operator does to it."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage = stage
        self.folder = folder
        self.port = free_port()
        self.name = f"site-{self.port}"
        self.master: asyncio.subprocess.Process | None = None

    def write_app(self) -> None:
        """The application's file."""
        (self.folder / "site_app.py").write_text(APP)

    def command(
        self, *extra: str, app: str = "site_app:app", workers: int = 3, venv: str = "gunicorn-newest"
    ) -> list[str]:
        """The command line of the master; skips where the program is not installed."""
        python = PROGRAMS / venv / "bin" / "python"
        if not python.exists():
            pytest.skip(f"{venv} is not installed; run ./reflex setup --dev")
        command = [str(python), "-m", "gunicorn", "-b", f"127.0.0.1:{self.port}", "-w", str(workers), "-n", self.name]
        return [*command, *extra, app]

    async def start(
        self, *extra: str, app: str = "site_app:app", workers: int = 3, venv: str = "gunicorn-newest"
    ) -> None:
        """Returns when the agent sees all workers ready."""
        self.write_app()
        command = self.command(*extra, app=app, workers=workers, venv=venv)
        self.master = await self.stage.start_program(self.name, command, self.folder)
        await self.stage.until(lambda: self.ready(workers), "the workers are not ready")

    async def workers(self) -> list[dict[str, Any]]:
        """As the server knows them, oldest first."""
        hosts = (await self.stage.get("/v1/hosts"))["hosts"]
        services = [s for host in hosts for s in host["status"].get("services", []) if s["name"] == self.name]
        return sorted((w for s in services for w in s["workers"]), key=lambda w: (w["start_ticks"], w["pid"]))

    async def ready(self, count: int) -> bool:
        """Whether there are so many workers, all ready."""
        found = await self.workers()
        return len(found) == count and all(worker["state"] == "ready" for worker in found)

    def children(self) -> list[int]:
        """The pids of the master's children now, oldest first."""
        assert self.master is not None
        pid = self.master.pid
        return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    async def has(self, count: int) -> bool:
        """Whether the master has so many children now."""
        return len(self.children()) == count

    async def ask(self, action: str, **body: Any) -> Mapping[str, Any]:
        """Asks for an act upon the site; the answer of the API."""
        headers = {"Authorization": f"Bearer {self.stage.token}"}
        url = f"{self.stage.url}/v1/hosts/{HOST}/act"
        body = {"action": action, "service": self.name, **body}
        async with aiohttp.ClientSession() as http, http.post(url, json=body, headers=headers) as answer:
            assert answer.status == 202, await answer.text()
            return dict(await answer.json())

    async def outcome(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The outcome event of what was asked for."""

        async def told() -> dict[str, Any] | None:
            found = [event for kind in OUTCOMES for event in await self.stage.events(kind=kind)]
            return next((e for e in found if e["attrs"].get("command") == asked["command"]), None)

        event: dict[str, Any] = await self.stage.until(told, "no outcome is told", within_s=WITHIN_S)
        assert event["cause"] == asked["asked"]
        return event

    async def act(self, action: str, **body: Any) -> dict[str, Any]:
        """The outcome of one act."""
        return await self.outcome(await self.ask(action, **body))

    async def fire(self, done: asyncio.Event) -> tuple[int, list[str]]:
        """New connections from four clients until `done` and LEAST_SERVED; how many were served, and what went wrong."""
        served, wrong = 0, []

        async def client() -> None:
            nonlocal served
            while (not done.is_set() or served < LEAST_SERVED) and len(wrong) < LEAST_SERVED:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    said = await reader.read()
                    writer.close()
                    if not said.startswith(b"HTTP/1.1 200") or not said.endswith(b"hello"):
                        wrong.append(repr(said[:80]))
                except OSError as error:
                    wrong.append(repr(error))
                served += 1

        await asyncio.gather(*(client() for _ in range(4)))
        return served, wrong


@pytest.fixture
def playbooks() -> Mapping[str, str]:
    """Texts of the operator's playbooks by the names of their files."""
    return {}


@pytest.fixture
async def stage(playbooks: Mapping[str, str]) -> AsyncIterator[Stage]:
    """A running server and agent."""
    if os.geteuid() != 0:
        pytest.skip("needs root: BPF programs can be loaded by root only")
    async with Stage(agent=("--policy-file", "/nonexistent/policy.toml"), playbooks=playbooks) as made:
        yield made


@pytest.fixture
def site(stage: Stage, tmp_path: Path) -> Site:
    """Not started yet."""
    sys.path_importer_cache.pop(str(tmp_path), None)
    return Site(stage, tmp_path)
