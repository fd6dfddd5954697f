"""A service that its supervisor starts again, alive or dead, by a real supervisord; and what managers are believed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from agent.identity import Home
from agent.managers import Manager, manager_of, supervisor_of
from demo.stage import Stage, StageError, demo_python

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
    assert "no systemd unit and no supervisor is known that starts" in refused["text"]


async def _stopped(stage: Stage, name: str, times: int) -> bool:
    await asyncio.sleep(0)
    return len(await stage.events(kind="service.stopped", service=name)) >= times
