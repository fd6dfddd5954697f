"""reflexctl as its users run it, against a real server with events from a host's agent."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import select
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

from ctl.__main__ import main

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60


def _server_side() -> ModuleType:
    """The server tests' own means of starting a server and making events."""
    spec = importlib.util.spec_from_file_location("reflex_server_tests", ROOT / "tests" / "server" / "conftest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SERVER_SIDE = _server_side()


@dataclass(frozen=True)
class Outcome:
    """How one run of reflexctl ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class FakeAgent:
    """An agent that tells events of one host."""

    base: str
    host: str
    key: str
    spool: str = field(default_factory=lambda: str(uuid4()))
    next_seq: int = 1

    def tell(self, *events: Mapping[str, Any], status: Mapping[str, Any] | None = None) -> None:
        """Returns when the server has stored them."""
        records = [{"seq": self.next_seq + index, "event": event} for index, event in enumerate(events)]
        self.next_seq += len(events)
        batch = {"v": 1, "spool": self.spool, "status": status or {}, "events": records, "samples": []}
        request = urllib.request.Request(
            self.base + "/v1/ingest",
            data=json.dumps(batch).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            assert json.load(answer)["rejected"] == []


class Running:
    """reflexctl in a process of its own; what it has said so far is kept."""

    def __init__(self, *arguments: str, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ctl", *arguments], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._said = {"out": b"", "err": b""}

    def wait_for(self, text: str, *, on: str = "out") -> None:
        """Returns when this text has been printed."""
        assert self._process.stdout is not None and self._process.stderr is not None
        pipes = {self._process.stdout: "out", self._process.stderr: "err"}
        deadline = time.monotonic() + PATIENCE_S
        while text.encode() not in self._said[on]:
            ready, _, _ = select.select(list(pipes), [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} was not printed: {self._said}"
            for pipe in ready:
                piece = os.read(pipe.fileno(), 65536)
                assert piece, f"reflexctl ended without {text!r}: {self._said}"
                self._said[pipes[pipe]] += piece

    @property
    def out(self) -> str:
        return self._said["out"].decode()

    def close_stdout(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> Outcome:
        """Waits for the end, and answers all that was said. One that does not end is killed, and its code says so."""
        assert self._process.stdout is not None and self._process.stderr is not None
        patience = threading.Timer(PATIENCE_S, self._process.kill)
        patience.start()
        if not self._process.stdout.closed:
            self._said["out"] += self._process.stdout.read()
        self._said["err"] += self._process.stderr.read()
        code = self._process.wait()
        patience.cancel()
        return Outcome(code, self._said["out"].decode(), self._said["err"].decode())

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One server for all tests, which keep apart by host names."""
    process = SERVER_SIDE.ServerProcess(tmp_path_factory.mktemp("shared") / "state", "--silent-after-s", "3600")
    process.start()
    yield process
    assert process.stop() == 0, process.log()


@pytest.fixture(scope="module")
def restartable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server of one file of tests, which may end it and start it again on the same port."""
    process = SERVER_SIDE.ServerProcess(tmp_path_factory.mktemp("own") / "state", "--silent-after-s", "3600")
    process.start()
    process.options = (*process.options, "--listen", process.base.removeprefix("http://"))
    yield process
    process.kill()


@pytest.fixture
def agent_of() -> Callable[[Any], FakeAgent]:
    """An agent of a fresh host of that server."""

    def make(server: Any) -> FakeAgent:
        host = f"web-{uuid4().hex[:12]}"
        return FakeAgent(server.base, host, server.new_key(host))

    return make


@pytest.fixture
def agent(server: Any, agent_of: Callable[[Any], FakeAgent]) -> FakeAgent:
    """An agent of a host that no other test uses."""
    return agent_of(server)


@pytest.fixture
def event() -> Callable[..., dict[str, Any]]:
    """An everyday event; a test overrides what matters to it."""
    made: Callable[..., dict[str, Any]] = SERVER_SIDE._make_event
    return made


@pytest.fixture
def env(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of an operator of the shared server, with an empty home."""
    for name in [name for name in os.environ if name.startswith("REFLEX_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for name, value in {"HOME": str(tmp_path), "REFLEX_URL": server.base, "REFLEX_TOKEN": server.token}.items():
        monkeypatch.setenv(name, value)
    return dict(os.environ)


@pytest.fixture
def ctl(env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs reflexctl in this process; its output goes to no terminal."""

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return run


@pytest.fixture
def start_ctl(env: dict[str, str]) -> Iterator[Callable[..., Running]]:
    """Starts reflexctl in a process of its own."""
    started: list[Running] = []

    def start(*arguments: str, **more: str) -> Running:
        started.append(Running(*arguments, env={**env, **more}))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def on_terminal(env: dict[str, str]) -> Callable[..., Outcome]:
    """Runs reflexctl on a terminal of its own; types `typed` once it has asked for something."""

    def run(*arguments: str, typed: str = "", columns: int = 100, **more: str) -> Outcome:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "ctl", *arguments],
            cwd=ROOT,
            env={**env, "TERM": "xterm-256color", "COLUMNS": str(columns), **more},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        said = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break
            said += piece
            if typed and b"not shown" in said:
                os.write(ours, typed.encode())
                typed = ""
        os.close(ours)
        return Outcome(process.wait(PATIENCE_S), said.decode().replace("\r\n", "\n"), "")

    return run


@pytest.fixture
def answering() -> Iterator[Callable[..., str]]:
    """Starts an HTTP server that gives one answer to everything; its address. It stands for whatever is no reflex-server."""
    started: list[ThreadingHTTPServer] = []

    def start(status: int, body: bytes = b"", **headers: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Says nothing."""

        started.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=started[-1].serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()
        return f"http://127.0.0.1:{started[-1].server_port}"

    yield start
    for one in started:
        one.shutdown()
        one.server_close()
