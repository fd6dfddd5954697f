"""The link against the real server on the real engine: everything once, also over kill -9 and rejected records."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from agent.link import Link
from agent.spool import Spool
from agent.wire import uuid7

ROOT = Path(__file__).parents[2]
READY = "ready on "
PATIENCE_S = 90
HOST = "web-3"


class RealServer:
    """`python -m server` with a key for one host."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "server"
        self.token_file = folder / "token"
        self.key_file = folder / "host-key"
        self.url = ""
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, port: int = 0) -> None:
        listen = ["--listen", f"127.0.0.1:{port}", "--first-token-file", str(self.token_file)]
        self._process = await self._python("run", *listen)
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while READY not in (line := (await self._process.stdout.readline()).decode()):
                assert self._process.returncode is None and line, "the server ended"
        self.url = line.split(READY)[1].strip()

    async def add_host_key(self) -> str:
        made = await self._python("host-key", "add", HOST, "--out", str(self.key_file))
        assert await made.wait() == 0
        return self.key_file.read_text().strip()

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def events(self) -> list[dict[str, Any]]:
        """All of the host's, newest first."""
        headers = {"Authorization": f"Bearer {self.token_file.read_text().strip()}"}
        found: list[dict[str, Any]] = []
        params = {"host": HOST, "kind": "worker.exited", "limit": "500"}
        async with aiohttp.ClientSession(headers=headers) as http:
            while params.get("cursor") != "":
                async with http.get(f"{self.url}/v1/timeline", params=params) as answer:
                    page = await answer.json()
                found += page["events"]
                params["cursor"] = page["next_cursor"] or ""
        return found

    async def _python(self, *command: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server", *command, "--state", str(self.state)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RealServer]:
    made = RealServer(tmp_path)
    await made.start()
    yield made
    await made.kill()


def event(kind: str = "worker.exited") -> bytes:
    ts_us = time.time_ns() // 1000
    sentence = {"severity": "info", "text": "worker 4121 (shop-web on web-3) ended: exit code 0"}
    return orjson.dumps({"id": uuid7(ts_us, secrets.randbits(62)), "ts_us": ts_us, "kind": kind, **sentence})


async def test_everything_arrives_once_over_kill_9_of_the_server(server: RealServer, tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool", 64 * 1024 * 1024)
    rejected_file = tmp_path / "rejected.jsonl"
    link = Link(server.url, await server.add_host_key(), spool, dict, rejected_file=rejected_file)
    await link.start()
    sent: list[str] = []
    for number in range(600):
        payload = event()
        sent.append(orjson.loads(payload)["id"])
        spool.append_event(payload)
        if number == 100:
            spool.append_event(event("no.such.kind"))
        if number in (200, 400):
            await server.kill()
            await server.start(int(server.url.rpartition(":")[2]))
        await asyncio.sleep(0.002)
    async with asyncio.timeout(PATIENCE_S):
        while spool.waiting:
            await asyncio.sleep(0.02)
    await link.stop(5)
    found = [one["id"] for one in await server.events()]
    assert sorted(found) == sorted(sent)
    (rejected,) = _lines(rejected_file)
    assert rejected["error"].startswith("kind: unknown kind 'no.such.kind'")
    spool.close()


def _lines(file: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in file.read_bytes().splitlines()]
