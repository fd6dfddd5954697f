"""A real server in a process of its own, and an agent and an operator that talk to it.

Starting the embedded store takes a second, so one server serves the whole run; tests keep apart by host names.
"""

from __future__ import annotations

import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import orjson
import pytest

from agent.wire import uuid7
from server.secret import hash_of, new_secret
from server.state import HOST_KEYS, OPERATOR_TOKENS, State

ROOT = Path(__file__).parents[2]
READY_S = 60


class ServerProcess:
    """`python -m server` on a state directory, started and ended as often as a test wants."""

    def __init__(self, state: Path, *options: str) -> None:
        self.state = state
        self.options = options
        self.base = ""
        self.token = ""
        self.said = ""
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when the server says that it is ready."""
        command = [sys.executable, "-m", "server", "run", "--listen", "127.0.0.1:0", "--state", str(self.state)]
        log = (self.state.parent / "server.log").open("a")
        self._process = subprocess.Popen(
            [*command, *self.options], cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self.said, deadline = "", time.monotonic() + READY_S
        while "ready on " not in self.said:
            select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            self.said += self._process.stdout.read() or ""
            assert self._process.poll() is None and time.monotonic() < deadline, self.log()
        self.base = self.said.rsplit("ready on ", 1)[1].strip()
        if not self.token:
            self.token = self.new_token()

    def rss_bytes(self) -> int:
        """Resident memory now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_s(self) -> float:
        """CPU time used so far."""
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        return (self.state.parent / "server.log").read_text()

    def new_token(self) -> str:
        token = new_secret("op")
        self._open(lambda state: state.add_key(OPERATOR_TOKENS, hash=hash_of(token), created_us=0))
        return token

    def new_key(self, host: str) -> str:
        key = new_secret("host")
        self._open(lambda state: state.add_key(HOST_KEYS, host=host, hash=hash_of(key), created_us=0))
        return key

    def revoke_key(self, host: str) -> None:
        self._open(lambda state: state.revoke(HOST_KEYS, HOST_KEYS.c.host == host, now_us=1))

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=30)

    def _open(self, act: Callable[[State], object]) -> None:
        state = State(self.state / "state.db")
        act(state)
        state.close()


@dataclass
class Api:
    """An operator."""

    http: aiohttp.ClientSession
    base: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def get(self, path: str, params: Any = None) -> tuple[int, Any]:
        async with self.http.get(self.base + path, params=params, headers=self.headers) as answer:
            return answer.status, await answer.json()

    async def timeline(self, **params: Any) -> dict[str, Any]:
        pairs = [(key, one) for key, value in params.items() for one in (value if isinstance(value, list) else [value])]
        status, answer = await self.get("/v1/timeline", [(key.rstrip("_"), str(one)) for key, one in pairs])
        assert status == 200, answer
        return dict(answer)

    async def ids(self, **params: Any) -> list[str]:
        return [event["id"] for event in (await self.timeline(**params))["events"]]


@dataclass
class FakeAgent:
    """An agent's side of the wire: it numbers what it sends."""

    http: aiohttp.ClientSession
    base: str
    host: str
    key: str
    spool: str = field(default_factory=lambda: str(uuid4()))
    next_seq: int = 1

    def number(self, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        first, self.next_seq = self.next_seq, self.next_seq + len(events)
        return [{"seq": first + index, "event": event} for index, event in enumerate(events)]

    async def post(self, body: Any, **headers: str) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json", **headers}
        async with self.http.post(self.base + "/v1/ingest", data=data, headers=headers) as answer:
            return answer.status, await answer.json()

    def batch(self, records: Sequence[Mapping[str, Any]] = (), **other: Any) -> dict[str, Any]:
        return {"v": 1, "spool": self.spool, "status": {}, "events": list(records), "samples": [], **other}

    async def send(self, *events: Mapping[str, Any]) -> Any:
        status, answer = await self.post(self.batch(self.number(events)))
        assert status == 200, answer
        return answer


def _make_event(**other: Any) -> dict[str, Any]:
    ts_us = other.get("ts_us", time.time_ns() // 1000)
    return {
        "id": uuid7(ts_us, secrets.randbits(62)),
        "ts_us": ts_us,
        "kind": "worker.exited",
        "severity": "info",
        "text": "worker 4121 (shop-web on web-3) ended: exit code 0",
        **other,
    }


@pytest.fixture(autouse=True)
def own_tempdir(monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedded store that is opened in this process moves its temporary files; other tests are not to follow it."""
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture
def make_event() -> Callable[..., dict[str, Any]]:
    """An everyday event as JSON; a test overrides what matters to it."""
    return _make_event


@pytest.fixture(scope="session")
def page_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built page."""
    directory = tmp_path_factory.mktemp("dist")
    (directory / "assets").mkdir()
    (directory / "index.html").write_text("<!doctype html><title>Reflex</title>")
    (directory / "icon.svg").write_text("<svg/>")
    (directory / "assets" / "index-Ab12_c.js").write_text("export {}")
    return directory


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, page_dir: Path) -> Iterator[ServerProcess]:
    """The shared server; with REFLEX_TEST_CLICKHOUSE set to a URL, on that ClickHouse instead of the embedded one."""
    state = tmp_path_factory.mktemp("shared") / "state"
    options = ["--silent-after-s", "3600", "--page-dir", str(page_dir)]
    if clickhouse := os.environ.get("REFLEX_TEST_CLICKHOUSE"):
        options += ["--clickhouse", clickhouse]
    process = ServerProcess(state, *options)
    process.start()
    yield process
    assert process.stop() == 0, process.log()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Makes a server that one test may kill."""
    made: list[ServerProcess] = []

    def make(*options: str) -> ServerProcess:
        made.append(ServerProcess(tmp_path / "state", *options))
        made[-1].start()
        return made[-1]

    yield make
    for process in made:
        process.kill()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:
        yield session


@pytest.fixture
def api(http: aiohttp.ClientSession, server: ServerProcess) -> Api:
    """An operator of the shared server."""
    return Api(http, server.base, server.token)


@pytest.fixture
def agent(http: aiohttp.ClientSession, server: ServerProcess) -> FakeAgent:
    """An agent of a host that no other test uses."""
    host = f"host-{uuid4()}"
    return FakeAgent(http, server.base, host, server.new_key(host))


@pytest.fixture
def connect(http: aiohttp.ClientSession) -> Callable[[ServerProcess, str], tuple[Api, FakeAgent]]:
    """An operator and an agent of a server that the test started."""

    def to(server: ServerProcess, host: str) -> tuple[Api, FakeAgent]:
        return Api(http, server.base, server.token), FakeAgent(http, server.base, host, server.new_key(host))

    return to
