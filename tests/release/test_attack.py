"""Somebody hostile around a deploy: in the app's folder, in its repository, in its output, or in the server's place."""

from __future__ import annotations

import asyncio
import http.server
import os
import pwd
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from agent import executor
from agent.acting import Performer
from agent.actions import ACTIONS
from agent.actions.action import CannotAct, Context, ServiceView
from agent.celery.hands import CeleryHands
from agent.procfs import ProcFs
from agent.procfs.text import text_of
from agent.release import running
from agent.release.failure import ReleaseFailed
from agent.release.hired import Runner
from agent.release.job import Job, JobRefused
from agent.release.log import Log
from agent.release.prepare import Preparation
from agent.release.switch import Switch
from agent.rollup import Rollup
from agent.service import Service
from agent.slots import Slots
from agent.wire import Order, Target, WireError
from agent.wire.app import App, Jobs, Web, app_from_json, app_to_json

PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
NOBODY, OTHER = pwd.getpwnam("nobody"), pwd.getpwnam("daemon")
RELEASE = "20260101T000000-abcdef0"
SECRET = "Zq8-very-secret-Xw2"
UUID = "019a0000-0000-7000-8000-000000000001"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the runner becomes another user")


def shown_by_ps() -> str:
    """What `ps` shows to everybody on the host."""
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def order_of(home: Path, **app: object) -> Order:
    """An order that the policy of the runner allows."""
    of = App("shop", str(home / "site.git"), "main", "nobody", f"{home}/shop")
    now_us = time.time_ns() // 1000
    return Order(UUID, UUID, "switch", "web-1", now_us, now_us + 60_000_000, UUID, replace(of, **app))  # type: ignore[arg-type]


# Whoever writes into the app's folder.


@pytest.fixture
def hidden(home: Path) -> Path:
    """A folder that everybody might read, in one that nobody but root may go through."""
    inner = home / "hidden" / "inner"
    inner.mkdir(parents=True)
    (inner / "secret").write_text(SECRET)
    (home / "hidden").chmod(0o700)
    return inner


async def test_a_link_leads_a_job_nowhere_that_its_user_may_not_go(runner: Runner, home: Path, hidden: Path) -> None:
    await runner.make_folder()
    (home / "shop" / "way").symlink_to(hidden)
    done = await runner.run(["cat", "secret"], f"{home}/shop/way", PATH, seconds=10)
    assert done.code != 0
    assert SECRET not in "".join(done.last)
    assert any("Permission denied" in line for line in done.last)


async def test_a_check_as_a_services_user_goes_where_that_user_may(hidden: Path) -> None:
    done = await executor.output_of(
        ["cat", "secret"], seconds=10, most_bytes=100, folder=str(hidden), uid=NOBODY.pw_uid, environment=PATH
    )
    assert done.code != 0
    assert SECRET.encode() not in done.text


async def test_a_job_sees_nothing_of_the_agent_and_of_other_apps(runner: Runner, home: Path) -> None:
    await runner.make_folder()
    other = home / "till"
    other.mkdir(mode=0o755)
    (other / "environment").write_text(SECRET)
    (other / "environment").chmod(0o600)
    (home / "host-key").write_text(SECRET)
    (home / "host-key").chmod(0o600)
    lines: list[str] = []
    script = "env; ls /proc/self/fd; cat ../till/environment ../host-key; cat /proc/$PPID/environ; cat ../runner.sock"
    await runner.run(["sh", "-c", script], f"{home}/shop", PATH, seconds=10, on_line=lines.append)
    names = {line.partition("=")[0] for line in lines if "=" in line}
    assert names <= {"PATH", "HOME", "USER", "PWD", "OLDPWD", "SHLVL", "_"}
    assert [line for line in lines if line.isdecimal()] == ["0", "1", "2", "3"], "the fourth is that of ls itself"
    assert sum("Permission denied" in line for line in lines) >= 3
    assert SECRET not in "\n".join(lines)


async def test_a_job_leaves_nothing_running_that_hides_in_a_session_of_its_own(runner: Runner, home: Path) -> None:
    await runner.make_folder()
    marker = f"86391.{os.getpid()}"
    script = f"setsid -f sleep {marker} >/dev/null 2>&1; echo {marker}"
    done = await runner.run(["sh", "-c", script], f"{home}/shop", PATH, seconds=10)
    assert done.last == (marker,)
    assert f"sleep {marker}" not in shown_by_ps()


def test_a_folder_that_is_exchanged_while_it_is_made_is_given_to_nobody(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, base = home / "victim", home / "shop"
    victim.mkdir()
    make = os.mkdir

    def make_and_lose(path: str | Path, mode: int = 0o777, **more: int) -> None:
        make(path, mode, **more)
        os.rename(path, f"{path}.gone")
        os.symlink(victim, path)

    monkeypatch.setattr(os, "mkdir", make_and_lose)
    job = Job(str(base), "nobody", NOBODY.pw_uid, NOBODY.pw_gid, (), makes_folder=True)
    with pytest.raises((JobRefused, OSError)):
        running._make(job)
    assert victim.stat().st_uid == 0


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\nb", b"..", b".environment", b"x" * 200, "\u202eabc".encode()])
def test_a_link_current_that_is_no_releases_is_not_believed(home: Path, name: bytes) -> None:
    (home / "shop").mkdir()
    os.symlink(b"releases/" + name, os.fsencode(home / "shop" / "current"))
    switch = Switch(order_of(home), Runner(home / "none", "shop"), performer_of([]), say=print, stepped=_nothing)
    assert switch.current is None


def test_a_pipe_in_the_place_of_a_file_stops_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "conf.py")
    read = threading.Thread(target=text_of, args=(tmp_path / "conf.py",), daemon=True)
    read.start()
    read.join(10)
    assert not read.is_alive()


# Whoever runs a program on the host.


def test_whose_a_program_is_that_acts_as_root_for_another_user(home: Path) -> None:
    """It has the command line that its user gave it: run by the agent, that would be run as root."""
    program = home / "sleep"
    shutil.copy("/bin/sleep", program)
    program.chmod(0o4755)
    if os.statvfs(home).f_flag & os.ST_NOSUID:
        pytest.skip("no program here can act for another user")
    process = subprocess.Popen([program, "100"], user="nobody", group=NOBODY.pw_gid, extra_groups=[])
    try:
        while b"sleep" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            time.sleep(0.01)
        found = ProcFs().process(process.pid)
        assert found is not None and found.uid == 0
        assert ProcFs().only_user(process.pid) == -1
        ticks = found.start_ticks
        service = Service("web", "gunicorn", process.pid, ticks, None, "", Slots(), argv=("/srv/evil/gunicorn",))
        view = performer_of([service]).view("web", None)
        assert view is not None and view.uid == -1
    finally:
        process.kill()
        process.wait()
    assert ProcFs().only_user(os.getpid()) == 0


def test_a_command_line_of_nobody_known_is_not_run() -> None:
    view = ServiceView("web", "gunicorn", Target(7, 7), (), uid=-1, argv=("/srv/evil/gunicorn", "app"))
    with pytest.raises(CannotAct, match="not known whose web is"):
        ACTIONS["gunicorn.reload"].steps(Context(view), {})


# Whoever sits in the server's place and orders.


def performer_of(services: list[Service]) -> Performer:
    """A real one, for services that are there."""

    class Here:
        def __init__(self) -> None:
            self.services = {one.master_pid: one for one in services}

        def worker(self, _pid: int, _start_ticks: int | None = None) -> None:
            return None

    return Performer(ProcFs(), cast("Rollup", Here()), cast("CeleryHands", None), _no_snapshot)


async def _no_snapshot(_worker: object) -> str:
    raise AssertionError("nobody asks for one")


def _nothing(*_: object) -> None:
    """Hears nothing."""


@pytest.fixture
def bank(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program of another user, beside an app that has one release."""
    (home / "shop" / "releases" / RELEASE).mkdir(parents=True)
    os.chown(home / "shop", NOBODY.pw_uid, NOBODY.pw_gid)
    process = subprocess.Popen(["sleep", "100"], user=OTHER.pw_uid, group=OTHER.pw_gid, cwd="/")
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("kind", ["gunicorn", "celery"])
async def test_an_order_touches_no_service_of_somebody_else(
    runner: Runner, home: Path, bank: subprocess.Popen[bytes], kind: str
) -> None:
    ticks = ProcFs().start_ticks(bank.pid)
    assert ticks is not None
    service = Service("bank", kind, bank.pid, ticks, None, "", Slots(), argv=("sleep", "100"), folder="/")
    named = {"web": (Web("bank", boot_s=2),)} if kind == "gunicorn" else {"jobs": (Jobs("bank", 2, "kill", 2),)}
    switch = Switch(order_of(home, **named), runner, performer_of([service]), say=print, stepped=_nothing)
    with pytest.raises(ReleaseFailed, match="bank is no service of shop: it runs as daemon in /"):
        await switch.to(RELEASE, before="")
    assert bank.poll() is None
    assert switch.current is None, "nothing was begun"


@pytest.mark.parametrize(
    "change",
    [
        {"repository": "ext::sh -c id"},
        {"repository": "ext::sh%20-c%20id"},
        {"repository": "fd::3"},
        {"repository": "--upload-pack=touch /tmp/x"},
        {"repository": "-oProxyCommand=id"},
        {"repository": "https://u:p@git.example/x"},
        {"repository": "git@git.example:x\n--upload-pack=id"},
        {"ref": "--output=/etc/passwd"},
        {"ref": "main..other"},
        {"ref": "main\nother"},
        {"folder": "/srv/shop/../bank"},
        {"folder": "/etc"},
        {"folder": "/srv/sh op"},
        {"user": "root;id"},
        {"name": "../shop"},
        {"shared": ["../../bank"]},
        {"shared": ["/etc"]},
        {"environment": {"LD_PRELOAD\n": "x"}},
        {"environment": {"A": "b\0c"}},
        {"checks": [["a\0b"]]},
        {"web": [{"service": "shop", "health": {"host": "x\r\nEvil: 1"}}]},
        {"web": [{"service": "shop", "health": {"address": "127.0.0.1:80\r\nEvil: 1"}}]},
        {"web": [{"service": "shop", "health": {"path": "/ HTTP/1.1\r\nEvil: 1"}}]},
    ],
)
def test_what_would_be_more_than_a_value_is_refused(change: dict[str, object]) -> None:
    value = app_to_json(App("shop", "git@git.example:shop", "main", "shop", "/srv/shop"))
    app_from_json(value)
    with pytest.raises(WireError):
        app_from_json({**value, **change})


# Whoever writes the repository.


class Heard(http.server.ThreadingHTTPServer):
    """Serves a folder, and keeps who showed which credentials."""

    def __init__(self, folder: Path) -> None:
        heard: list[str | None] = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *given: object) -> None:
                super().__init__(*given, directory=str(folder))  # type: ignore[arg-type]

            def do_GET(self) -> None:
                heard.append(self.headers.get("Authorization"))
                super().do_GET()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.heard = heard
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Heard]]:
    """Makes servers that end with the test."""
    made: list[Heard] = []

    def make(folder: Path) -> Heard:
        made.append(Heard(folder))
        return made[-1]

    yield make
    for one in made:
        one.shutdown()
        one.server_close()


def repository(home: Path, submodule: str) -> None:
    """A bare repository that plain HTTP can serve, whose one commit names a submodule."""
    work = home / "work"
    work.mkdir()

    def git(*words: str, folder: Path = work) -> str:
        own = ("-c", "user.name=E", "-c", "user.email=e@x", "-c", "safe.directory=*")
        return subprocess.run(["git", *own, *words], cwd=folder, check=True, capture_output=True, text=True).stdout

    git("init", "--quiet", "-b", "main")
    (work / ".gitmodules").write_text(f'[submodule "m"]\n\tpath = m\n\turl = {submodule}\n')
    git("add", ".gitmodules")
    git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},m")
    git("commit", "--quiet", "-m", "x")
    git("clone", "--quiet", "--bare", ".", str(home / "site.git"))
    git("update-server-info", folder=home / "site.git")


def preparation(home: Path, runner: Runner, address: str, lines: list[str]) -> Preparation:
    """With a token."""
    order = replace(order_of(home, repository=address), phase="prepare", key="a-deploy-token")
    return Preparation(order, runner, known={}, kinds={}, venvs=(), bad={}, say=lines.append, stepped=_nothing)


async def test_the_token_of_a_repository_goes_to_no_other_host(
    runner: Runner, home: Path, serve: Callable[[Path], Heard]
) -> None:
    ours, evil = serve(home), serve(home / "shop")
    repository(home, f"{evil.address}/m.git")
    with pytest.raises(ReleaseFailed, match="submodule"):
        await preparation(home, runner, f"{ours.address}/site.git", []).run()
    assert ours.heard and all(ours.heard), "the repository itself sees the token"
    assert evil.heard and not any(evil.heard)


@pytest.mark.parametrize("url", ["ext::touch% {home}/shop/pwned", "file://{home}/site.git"])
async def test_a_submodule_runs_nothing_and_reads_no_folder_of_the_host(
    runner: Runner, home: Path, serve: Callable[[Path], Heard], url: str
) -> None:
    ours, lines = serve(home), list[str]()
    repository(home, url.format(home=home))
    with pytest.raises(ReleaseFailed, match="submodule"):
        await preparation(home, runner, f"{ours.address}/site.git", lines).run()
    assert not (home / "shop" / "pwned").exists()
    assert any("not allowed" in line for line in lines), lines


# What leaves the host.


@pytest.mark.parametrize("before", [0, 1_990, 2_000, 65_530], ids=lambda before: f"after {before}")
async def test_no_part_of_a_secret_is_left_where_a_line_is_cut(runner: Runner, home: Path, before: int) -> None:
    await runner.make_folder()
    told: list[str] = []
    log = Log([SECRET], lambda: 0, lambda _at_us, line: told.append(line))
    code = f"import sys; sys.stdout.write('x' * {before} + '{SECRET}' + 'y' * 5000 + '\\nafter\\n')"
    done = await runner.run([sys.executable, "-c", code], f"{home}/shop", PATH, seconds=20, on_line=log.say)
    assert done.code == 0
    assert told[-1] == "after"
    whole = "\n".join(told) + log.artifact(UUID).content.decode()
    assert SECRET[:4] not in whole
    assert SECRET[-4:] not in whole


async def test_what_ends_a_step_is_cleaned_before_it_is_cut(home: Path, runner: Runner) -> None:
    await runner.make_folder()
    log = Log([SECRET], lambda: 0, _nothing)
    clean = Runner(home / "runner.sock", "shop", clean=log.clean)
    code = f"print('x' * 290 + '{SECRET}'); raise SystemExit(1)"
    done = await clean.run([sys.executable, "-c", code], f"{home}/shop", PATH, seconds=20)
    assert SECRET[:4] not in done.last[-1][:300]


async def test_secrets_are_in_no_command_line(runner: Runner, home: Path) -> None:
    await runner.make_folder()
    asked = asyncio.Event()
    environment = {**PATH, "TOKEN": SECRET}
    task: Awaitable[object] = asyncio.ensure_future(
        runner.run(
            ["sh", "-c", "echo on; sleep 1; cat >/dev/null"],
            f"{home}/shop",
            environment,
            seconds=20,
            given=SECRET,
            on_line=lambda _line: asked.set(),
        )
    )
    await asyncio.wait_for(asked.wait(), 20)
    shown = shown_by_ps()
    await task
    assert "sh -c echo on" in shown
    assert SECRET not in shown
