"""How real servers come to serve another release under traffic: no request fails and the new code serves, or it is refused."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest

from agent.acting import Performer
from agent.celery.hands import CeleryHands
from agent.procfs import ProcFs
from agent.release.failure import ReleaseFailed
from agent.release.hired import Runner
from agent.release.own import merged
from agent.release.switch import Switch
from agent.release.switched import Switched
from agent.service import Service, Worker
from agent.wire import Order
from agent.wire.app import App, Strategy, Web
from demo.deploying import Visitors
from demo.stage import free_port
from tests.workers.variants import PROGRAMS
from tests.workers.ward import Ward

ROOT = Path(__file__).parents[2]
KEEPER = ("/usr/bin/python3", "-I", str(ROOT / "agent" / "release" / "keep.py"))
PYTHON = "{base}/current/venv/bin/python"
SERVES = ("-b", "127.0.0.1:{port}", "-w", "2", "--graceful-timeout", "5", "served:wsgi")
GUNICORN = (PYTHON, "-m", "gunicorn", *SERVES)
SCRIPT = (PYTHON, "{base}/current/venv/bin/gunicorn", *SERVES)
UVICORN = (PYTHON, "-m", "uvicorn", "--no-access-log", "--log-level", "warning", "served:asgi")
HOLDS = (*KEEPER, "--listen", "127.0.0.1:{port}", "--")
HELD = (*HOLDS, *UVICORN, "--fd", "3")
UWSGI_ON = (
    "uwsgi", "--plugin", "python3", "--master", "--processes", "2", "--need-app", "--disable-logging", "--listen", "1024",
    "--module", "served:wsgi", "--http-socket",
)  # fmt: skip
UWSGI = (*UWSGI_ON, "127.0.0.1:{port}")
FINISHES = ("--hook-master-start", "unix_signal:15 gracefully_kill_them_all")
SERVED = """
import asyncio, time
time.sleep(0.5)
VERSION = "{version}"
def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(VERSION)))])
    return [VERSION.encode()]
async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({{"type": message["type"] + ".complete"}})
            if message["type"].endswith("shutdown"):
                return
    await asyncio.sleep(0.005)
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}})
    await send({{"type": "http.response.body", "body": VERSION.encode()}})
"""
LEAST_AFTER = 50
"""So many requests are served after a switch before it is said what serves."""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the ward loads BPF programs"),
    pytest.mark.skipif(not (PROGRAMS / "uvicorn-newest" / "installed").exists(), reason="run ./reflex setup --dev"),
    pytest.mark.timeout(200),
]


async def never(_worker: Worker) -> str:
    """Takes no snapshot."""
    raise AssertionError("no snapshot is wanted here")


class Host:
    """Two releases of an app, a program that serves it, and what switches it."""

    def __init__(self, ward: Ward, base: Path, socket: Path) -> None:
        self._ward = ward
        self._base = base
        self._socket = socket
        self._performer = Performer(ProcFs(), ward.rollup, cast(CeleryHands, None), never)
        ward.hears.append(self._performer.notice)
        self.port = free_port()
        self.name = ""
        self.first = 0

    def build(self, venv: str = "uvicorn-newest", *, breaks: bool = False) -> None:
        """The releases v1, which is current, and v2."""
        for version in ("v1", "v2"):
            folder = self._base / "releases" / version
            folder.mkdir(parents=True)
            (folder / "served.py").write_text(SERVED.format(version=version))
            (folder / "venv").symlink_to(PROGRAMS / venv)
        if breaks:
            (self._base / "releases" / "v2" / "served.py").write_text("import a_module_that_nobody_has_installed\n")
        (self._base / "current").symlink_to("releases/v1")
        subprocess.run(["chown", "-hR", "nobody:", str(self._base)], check=True)

    async def start(self, *words: str, workers: int, folder: Path | None = None) -> None:
        """Starts the program from the link, as a unit or a supervisor does, and waits until it is seen to serve."""
        filled = [word.format(base=self._base, port=self.port) for word in words]
        self.first = self._ward.begin_in(folder or self._base / "current", filled)
        await self._ward.until(lambda: self._is_ready(workers), 30)

    def services(self) -> list[Service]:
        """The living masters that the program is, or has begun."""
        living = (s for s in self._ward.rollup.services.values() if s.stopped_event is None)
        return [
            s for s in living if self.first in (s.master_pid, ProcFs().parent_pid(s.master_pid)) or s.name == self.name
        ]

    async def serves_only(self, release: str) -> None:
        """Returns when the service is seen to have one master, of that release."""
        await self._ward.until(lambda: [one.release for one in self.services()] == [release], 10)

    def _is_ready(self, workers: int) -> bool:
        found = self.services()
        if not found:
            return False
        self.name = found[0].name
        view = self._performer.of_master(found[0].master_pid)
        ready = sum(worker.ready_us is not None for worker in found[0].workers.values())
        return view is not None and (ready == workers if workers else self._performer.serves(view))

    async def switch(self, strategy: Strategy = "auto", *, boot_s: float = 30.0) -> Switched:
        """Lets the service serve v2."""
        web = Web(self.name, strategy=strategy, boot_s=0.01)  # which its own commit says otherwise
        app = App("market", "/nowhere", "main", "nobody", str(self._base), web=(web,), own_file="reflex.yml")
        order = Order("1", "d", "switch", "host", 0, 1, "c", app, release="v2")
        runner = Runner(self._socket, "market")

        def as_of(app: App, release: str) -> App:
            own = {"web": [{"service": self.name, "boot_s": boot_s}]} if release == "v2" else {}
            return merged(app, own)

        switch = Switch(order, runner, self._performer, say=print, stepped=lambda _step, _seconds: None, as_of=as_of)
        return await switch.to("v2", before="v1")


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder of an app, which everybody can reach."""
    home = Path(f"/tmp/reflex-test-ways-{os.getpid()}")
    home.mkdir(mode=0o755)
    (home / "market").mkdir()
    yield home / "market"
    subprocess.run(["rm", "-rf", str(home)], check=True)


@pytest.fixture
def socket(base: Path) -> Iterator[Path]:
    """Where a runner listens whose policy knows the app."""
    policy, path = base.parent / "policy.toml", base.parent / "runner.sock"
    policy.write_text(f'[apps.market]\nuser = "nobody"\nfolder = "{base}"\n')
    command = [sys.executable, "-m", "agent", "runner", "--socket", str(path), "--policy-file", str(policy)]
    process = subprocess.Popen([*command, "--until-closed", "0"], stdin=subprocess.PIPE, cwd=ROOT)
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.02)
    yield path
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0


@pytest.fixture
async def host(tmp_path: Path, base: Path, socket: Path) -> AsyncIterator[Host]:
    async with Ward(tmp_path) as ward:
        yield Host(ward, base, socket)


async def served_after(visitors: Visitors) -> set[str]:
    """The versions that answer now."""
    visitors.turn()
    while visitors.counts.served + visitors.counts.failed < LEAST_AFTER:
        await asyncio.sleep(0.05)
    seen = visitors.turn()
    assert seen.failed == 0, seen.troubles[:3]
    return set(seen.versions)


@pytest.mark.parametrize(
    ("venv", "command", "workers", "strategy", "way"),
    [
        ("gunicorn-newest", SCRIPT, 2, "auto", "handover"),
        ("gunicorn-newest", (*KEEPER, "--", *GUNICORN), 2, "auto", "handover"),
        ("gunicorn-newest", GUNICORN, 2, "reload", "reload"),
        ("uvicorn-newest", HELD, 0, "auto", "handover"),
        ("uvicorn-newest", (*HELD, "--workers", "2"), 2, "auto", "handover"),
        ("uvicorn-20", (*HELD, "--workers", "2"), 2, "auto", "handover"),
        ("uwsgi-newest", (*HOLDS, *UWSGI_ON, "fd://3", *FINISHES), 2, "auto", "handover"),
        ("uwsgi-newest", (*UWSGI, "--chdir", "{base}/current"), 2, "auto", "reload"),
        ("uwsgi-newest", (*UWSGI, "--chdir", "{base}/current", "--lazy-apps"), 2, "auto", "reload"),
    ],
    ids=[
        "gunicorn", "kept gunicorn", "gunicorn by HUP", "uvicorn", "uvicorn with workers", "uvicorn 0.20", "held uwsgi", "uwsgi", "uwsgi with lazy apps",
    ],
)  # fmt: skip
async def test_no_request_fails_and_the_new_code_serves(
    host: Host, venv: str, command: tuple[str, ...], workers: int, strategy: Strategy, way: str
) -> None:
    host.build(venv)
    await host.start(*command, workers=workers)
    async with Visitors(host.port, a_second=100) as visitors:
        assert await served_after(visitors) == {"v1"}
        done = await host.switch(strategy)
        during = visitors.turn()
        assert await served_after(visitors) == {"v2"}
    assert during.failed == 0, during.troubles[:3]
    assert (done.ways, done.notes) == ({host.name: way}, [])
    await host.serves_only("v2")


@pytest.mark.parametrize(
    ("command", "workers", "strategy", "said"),
    [
        (
            (*UVICORN, "--port", "{port}", "--workers", "2"),
            2,
            "auto",
            "nobody is known who starts",
        ),
        ((*UVICORN, "--port", "{port}"), 0, "handover", "start it by reflex-keep --listen"),
        (UWSGI, 2, "auto", "was reloaded and does not serve v2: its working folder is .*/releases/v1"),
    ],
    ids=["uvicorn", "uvicorn without a keeper", "uwsgi without the link"],
)
async def test_what_would_serve_old_code_or_fail_requests_is_refused(
    host: Host, command: tuple[str, ...], workers: int, strategy: Strategy, said: str
) -> None:
    host.build()
    await host.start(*command, workers=workers)
    async with Visitors(host.port, a_second=100) as visitors:
        assert await served_after(visitors) == {"v1"}
        with pytest.raises(ReleaseFailed, match=said):
            await host.switch(strategy)
        assert await served_after(visitors) == {"v1"}
    await host.serves_only("v1")


async def test_a_release_that_does_not_boot_leaves_the_old_one_as_it_was(host: Host) -> None:
    host.build(breaks=True)
    await host.start(*HELD, workers=0)
    async with Visitors(host.port, a_second=100) as visitors:
        with pytest.raises(
            ReleaseFailed, match="(no new master of .* was seen|the new master of .* ended).*; v1 serves"
        ):
            await host.switch(boot_s=5)
        assert await served_after(visitors) == {"v1"}
    await host.serves_only("v1")


async def test_what_a_handover_left_behind_that_was_cut_off_is_ended(host: Host) -> None:
    host.build()
    await host.start(*HELD, workers=0)
    os.kill(host.first, signal.SIGUSR2)  # as if the agent had been killed in the middle of it
    while len(host.services()) < 2:
        await asyncio.sleep(0.05)
    assert {one.name for one in host.services()} == {host.name}
    async with Visitors(host.port, a_second=100) as visitors:
        await host.switch()
        assert await served_after(visitors) == {"v2"}
    await host.serves_only("v2")


async def test_a_service_of_another_folder_is_left_alone(host: Host, base: Path) -> None:
    host.build()
    other = base.parent / "other"
    other.mkdir()
    (other / "served.py").write_text(SERVED.format(version="v0"))
    await host.start(*HELD, workers=0, folder=other)
    with pytest.raises(ReleaseFailed, match=f"is no service of market: it runs as root in {other}"):
        await host.switch()
    (service,) = host.services()
    assert (service.folder, service.release) == (str(other), None)
