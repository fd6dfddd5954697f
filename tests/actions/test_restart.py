"""A service that its supervisor or circus starts again, alive or dead, by real ones; and what managers are believed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from agent import circus
from agent.identity import Home
from agent.managers import Manager, circus_config, circus_endpoint, is_circusd, manager_of, supervisor_of
from demo.stage import Stage, StageError, demo_python, free_port

PROGRAMS = Path(__file__).parents[2] / ".reflex" / "programs"
SUPERVISOR = {
    "SUPERVISOR_SERVER_URL": "unix:///run/supervisor.sock",
    "SUPERVISOR_PROCESS_NAME": "web",
    "SUPERVISOR_GROUP_NAME": "shop",
}
BY_SUPERVISOR = Manager("supervisor", "shop:web", "/run/supervisor.sock")


@pytest.mark.parametrize(
    ("home", "environment", "expected"),
    [
        (Home("shop.service"), {}, Manager("systemd", "shop.service")),
        (Home("supervisor.service"), SUPERVISOR, BY_SUPERVISOR),
        (Home(), SUPERVISOR, BY_SUPERVISOR),
        (Home(), {**SUPERVISOR, "SUPERVISOR_SERVER_URL": "http://10.0.0.1:9001"}, None),
        (Home(), {**SUPERVISOR, "SUPERVISOR_PROCESS_NAME": "web; rm"}, None),
        (Home(container="0123456789ab"), {}, None),
        (Home("web.service", "0123456789ab"), {}, None),
        (Home(), {}, None),
    ],
)
def test_who_starts_it_again(home: Home, environment: dict[str, str], expected: Manager | None) -> None:
    assert manager_of(home, supervisor_of(environment)) == expected


def test_circus_goes_before_what_has_started_it() -> None:
    by_circus = Manager("circus", "web", "tcp://127.0.0.1:5555", 7)
    assert manager_of(Home("circus.service"), supervisor_of(SUPERVISOR), by_circus) == by_circus
    assert manager_of(Home(container="0123456789ab"), None, by_circus) is None


@pytest.mark.parametrize(
    ("command", "config"),
    [
        ("/opt/circus/bin/python /opt/circus/bin/circusd --daemon /etc/circus.ini", "/etc/circus.ini"),
        ("/opt/circus/bin/python /opt/circus/bin/circusd --log-level info circus.ini --pidfile p", "circus.ini"),
        ("python3 -m circus.circusd circus.ini", "circus.ini"),
        ("/usr/bin/circusd circus.ini", "circus.ini"),
        ("circusd", ""),
    ],
)
def test_circusd_is_known_by_its_command_line(command: str, config: str) -> None:
    assert is_circusd(command.split())
    assert circus_config(command.split()) == config


@pytest.mark.parametrize("command", ["", "/srv/shop/venv/bin/python", "vi circusd.ini", "python3 -m circusd_tools"])
def test_what_is_no_circusd(command: str) -> None:
    assert not is_circusd(command.split())


@pytest.mark.parametrize(
    ("config", "endpoint"),
    [
        ("", "tcp://127.0.0.1:5555"),
        ("[circus]\nendpoint = tcp://localhost:5555\n", "tcp://127.0.0.1:5555"),
        ("[circus]\nendpoint = tcp://127.0.0.1:5556\n", ""),
        ("[circus]\nendpoint = tcp://*:7000\n", "tcp://127.0.0.1:7000"),
        ("[circus]\nendpoint = tcp://10.0.0.1:6379\n", ""),
        ("[circus]\nendpoint = ipc:///run/circus.sock\n", "ipc:///run/circus.sock"),
        ("[circus]\nendpoint = ipc:///run/docker.sock\n", ""),
        ("[circus]\nendpoint = tcp://127.0.0.1:$(circus.env.port)\n", ""),
        ("no ini", ""),
    ],
)
def test_circus_is_asked_only_where_it_listens_itself(config: str, endpoint: str) -> None:
    listens = ("tcp 127.0.0.1:5555", "tcp 0.0.0.0:7000", "unix /run/circus.sock")
    assert circus_endpoint(config, listens) == endpoint


@pytest.fixture
def supervisord() -> Path:
    """The interpreter that has supervisor."""
    try:
        python = demo_python()
    except StageError as error:
        pytest.skip(str(error))
    if not list(python.parents[1].glob("lib/python3*/site-packages/supervisor")):
        pytest.skip("supervisor is not installed: ./reflex setup")
    return python


async def test_supervisor_starts_it_again_alive_or_dead(stage: Stage, site: Any, supervisord: Path) -> None:
    (site.folder / "supervisord.conf").write_text(
        f"[unix_http_server]\nfile={site.folder}/s.sock\n"
        f"[supervisord]\nnodaemon=true\nlogfile={site.folder}/s.log\npidfile={site.folder}/s.pid\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        f"[program:site]\ncommand={' '.join(site.command(workers=1))}\ndirectory={site.folder}\nautorestart=false\n"
    )
    site.write_app()
    command = [str(supervisord), "-m", "supervisor.supervisord", "-c", str(site.folder / "supervisord.conf")]
    await stage.start_program("supervisord", command, site.folder)
    await stage.until(lambda: site.ready(1), "the worker is not ready", within_s=60)
    done = await site.act("gunicorn.restart")
    assert done["kind"] == "action.done", done["text"]
    started = await stage.events(kind="service.started", service=site.name)
    assert len(started) == 2
    os.kill(started[0]["attrs"]["master_pid"], signal.SIGKILL)
    await stage.until(lambda: _stopped(stage, site.name, 2), "its end is not told")
    done = await site.act("gunicorn.restart")
    assert done["kind"] == "action.done", done["text"]
    assert "let supervisor restart site:site" in done["evidence"][0]["fact"]
    await stage.until(lambda: site.ready(1), "the worker is not ready", within_s=60)
    refused = await site.act("gunicorn.rotate", params={"ready_s": 1000})
    assert refused["attrs"]["reason"] == "params"


async def test_a_service_without_a_manager_is_not_restarted(stage: Stage, site: Any) -> None:
    await site.start(workers=1)
    refused = await site.act("gunicorn.restart")
    assert (refused["kind"], refused["attrs"]["reason"]) == ("action.refused", "params")
    assert "no systemd unit, no supervisor and no circus is known that starts" in refused["text"]


@pytest.fixture
def circusd() -> Path:
    """The program."""
    program = PROGRAMS / "circus" / "bin" / "circusd"
    if not program.exists():
        pytest.skip("circus is not installed; run ./reflex setup --dev")
    return program


async def start_circus(stage: Stage, site: Any, circusd: Path, endpoint: str, *, more: str = "") -> str:
    """A real circusd with a Gunicorn that it does not start again by itself; what its endpoint is."""
    site.write_app()
    command = " ".join(site.command(workers=1))
    (site.folder / "circus.ini").write_text(
        f"[circus]\nendpoint = {endpoint}\npubsub_endpoint = tcp://127.0.0.1:{free_port()}\n"
        f"[watcher:other]\ncmd = sleep 1000\nnumprocesses = 2\n"
        f"[watcher:Site]\ncmd = {command}\nworking_dir = {site.folder}\ncopy_env = true\nrespawn = false\n{more}"
    )
    program = [str(circusd.with_name("python")), str(circusd), str(site.folder / "circus.ini")]
    await stage.start_program("circusd", program, site.folder)
    await stage.until(lambda: site.ready(1), "the worker is not ready", within_s=60)
    return endpoint


async def test_circus_starts_it_again_alive_or_dead(stage: Stage, site: Any, circusd: Path) -> None:
    endpoint = await start_circus(stage, site, circusd, f"tcp://127.0.0.1:{free_port()}")
    await stage.until(lambda: _can_restart(site), "the watcher's name is not known", within_s=30)
    done = await site.act("gunicorn.restart")
    assert done["kind"] == "action.done", done["text"]
    started = await stage.events(kind="service.started", service=site.name)
    assert len(started) == 2
    await stage.until(lambda: _can_restart(site), "the watcher's name is not known", within_s=30)
    os.kill(started[0]["attrs"]["master_pid"], signal.SIGKILL)
    await stage.until(lambda: _stopped(stage, site.name, 2), "its end is not told")
    done = await site.act("gunicorn.restart")
    assert done["kind"] == "action.done", done["text"]
    assert "let circus restart site" in done["evidence"][0]["fact"]
    await stage.until(lambda: site.ready(1), "the worker is not ready", within_s=60)
    refused = await site.act("circus.restart", service=None, params={"watcher": "site", "endpoint": endpoint})
    assert (refused["kind"], refused["attrs"]["reason"]) == ("action.refused", "policy")
    with pytest.raises(circus.CircusTrouble, match="it has 2 processes"):
        await circus.restart(circus.Watcher(endpoint, "other"), 10)
    with pytest.raises(circus.CircusTrouble, match="pid 1 is no process of it any more"):
        await circus.restart(circus.Watcher(endpoint, "site"), 10, child=1)
    with pytest.raises(circus.CircusTrouble, match="program nobody not found"):
        await circus.restart(circus.Watcher(endpoint, "nobody"), 10)
    await circus.restart(circus.Watcher(endpoint, "other"), 30, with_all=True)
    await circus.restart(circus.Watcher(endpoint, "site"), 30, only_start=True)
    assert len(await stage.events(kind="service.started", service=site.name)) == 3


async def test_circus_with_a_socket_in_a_file_and_a_shell_between(stage: Stage, site: Any, circusd: Path) -> None:
    await start_circus(stage, site, circusd, f"ipc://{site.folder}/c.sock", more="shell = true\n")
    await stage.until(lambda: _can_restart(site), "the watcher's name is not known", within_s=30)
    (started,) = await stage.events(kind="service.started", service=site.name)
    os.kill(started["attrs"]["master_pid"], signal.SIGTERM)  # circus would end the shell only


async def test_who_listens_and_is_no_circus_is_told_so(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(64)
        writer.write(b"-ERR unknown command\r\n" * 4)
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / "redis.sock"):
        with pytest.raises(circus.CircusTrouble, match="is no open ZeroMQ socket"):
            await circus.restart(circus.Watcher(f"ipc://{tmp_path}/redis.sock", "web"), 5)
    with pytest.raises(circus.CircusTrouble, match="cannot be asked"):
        await circus.watcher_of(f"ipc://{tmp_path}/nothing.sock", 7)


async def _can_restart(site: Any) -> bool:
    """Whether the agent knows by now who starts it: the name is asked for beside everything else."""
    planned = await site.act("gunicorn.restart", dry_run=True)
    return planned["kind"] == "action.planned" and "let circus restart site" in planned["text"]


async def _stopped(stage: Stage, name: str, times: int) -> bool:
    await asyncio.sleep(0)
    return len(await stage.events(kind="service.stopped", service=name)) >= times
