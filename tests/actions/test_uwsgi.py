"""Real uWSGI whose number of workers is changed under traffic, and what its settings do not allow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agent import executor
from agent.actions import ACTIONS
from agent.actions.action import CannotAct, Context, ServiceView, WorkerView
from agent.actions.steps import TellMaster, WaitCount
from agent.wire import Target
from agent.workers.settings import ServiceSettings
from agent.workers.uwsgi import read_command
from demo.deploying import Visitors
from demo.stage import Stage

PROGRAM = Path(__file__).parents[2] / ".reflex" / "programs" / "uwsgi-newest" / "bin" / "uwsgi"
SAID = ServiceSettings(workers=4, fifo="/run/shop.fifo", cheaper="manual")
MASTER = Target(100, 1)


class NoFiles:
    """None."""

    def has(self, _path: str) -> bool:
        return False

    def text(self, _path: str) -> str:
        return ""


def steps(said: ServiceSettings, *, owed: int = 0, **params: int) -> tuple[Any, ...]:
    workers = tuple(WorkerView(Target(101 + slot, 1), slot, True) for slot in range(2))
    view = ServiceView("shop", "uwsgi", MASTER, workers, 1000, settings=said, owed=owed)
    return ACTIONS["uwsgi.scale"].steps(Context(view), params)


def test_orders_are_waited_for_one_by_one() -> None:
    more = TellMaster(MASTER, "/run/shop.fifo", "+", "one worker more")
    assert steps(SAID, by=2) == (more, WaitCount(3, 60.0), more, WaitCount(4, 60.0))
    less = TellMaster(MASTER, "/run/shop.fifo", "-", "one worker less", 2)
    assert steps(SAID, to=1) == (less, WaitCount(1, 60.0))
    assert steps(SAID, to=2) == ()


def test_workers_that_have_gone_do_not_count_so_the_last_one_stays() -> None:
    assert steps(SAID, owed=2, to=2) == ()
    with pytest.raises(CannotAct, match="not 0"):
        steps(SAID, owed=2, by=-2)


@pytest.mark.parametrize(
    ("said", "params", "why"),
    [
        (ServiceSettings(workers=4, cheaper="manual"), {"by": 1}, "has no master-fifo"),
        (ServiceSettings(workers=4, fifo="/f"), {"by": 1}, "runs without cheaper, so it always has all its workers"),
        (ServiceSettings(workers=4, fifo="/f", cheaper="spare"), {"by": 1}, "cheaper-algo spare. and would undo it"),
        (SAID, {"to": 5}, "must end with 1 to 4 workers, not 5"),
        (SAID, {"by": -2}, "must end with 1 to 4 workers, not 0"),
        (SAID, {}, "needs either by or to"),
    ],
)
def test_what_would_have_no_effect_is_refused(said: ServiceSettings, params: dict[str, int], why: str) -> None:
    with pytest.raises(CannotAct, match=why):
        steps(said, **params)


@pytest.mark.parametrize(
    ("command", "fifo", "cheaper"),
    [
        ("uwsgi -p 4 --cheaper 2 --cheaper-algo manual --master-fifo /run/a", "/run/a", "manual"),
        ("uwsgi -p 4 --cheaper 2 --master-fifo /run/a --master-fifo /run/b", "/run/a", "spare"),
        ("uwsgi -p 4", None, None),
    ],
)
def test_the_settings_are_read(command: str, fifo: str | None, cheaper: str | None) -> None:
    said = read_command(command.split(), {}, NoFiles()).settings
    assert (said.fifo, said.cheaper, said.workers) == (fifo, cheaper, 4)


def test_an_order_goes_into_a_pipe_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("left alone")
    with pytest.raises(OSError, match="no pipe"):
        executor.tell_pipe(str(tmp_path / "file"), b"+")
    assert (tmp_path / "file").read_text() == "left alone"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):
        executor.tell_pipe(str(tmp_path / "pipe"), b"+")  # nobody reads it


async def start(stage: Stage, site: Any, *more: str, workers: int) -> None:
    if not PROGRAM.exists():
        pytest.skip("uWSGI is not installed; run ./reflex setup --dev")
    site.write_app()
    command = [str(PROGRAM), "--http-socket", f"127.0.0.1:{site.port}", "--master", "--wsgi-file", "site_app.py"]
    command += ["--callable", "app", "--listen", "100", *more]
    site.master = await stage.start_program(site.name, command, site.folder)

    async def found() -> str | None:
        hosts = (await stage.get("/v1/hosts"))["hosts"]
        services = [service for host in hosts for service in host["status"].get("services", [])]
        return next((one["name"] for one in services if one["master_pid"] == site.master.pid), None)

    site.name = await stage.until(found, "uWSGI is not seen", within_s=60)
    await stage.until(lambda: site.ready(workers), "the workers are not ready", within_s=60)


async def test_workers_come_and_go_under_traffic(stage: Stage, site: Any) -> None:
    await start(
        *(stage, site, "-p", "4", "--cheaper", "2", "--cheaper-algo", "manual", "--master-fifo", "site.fifo"), workers=2
    )
    async with Visitors(site.port, a_second=20) as visitors:  # a worker that is never idle ends late
        for params, count in (({"by": 2}, 4), ({"by": -1}, 3), ({"to": 1}, 1), ({"to": 2}, 2)):
            done = await site.act("uwsgi.scale", params=params)
            assert (done["kind"], done["attrs"].get("workers")) == ("action.done", count), done["text"]
        seen = visitors.turn()
    assert seen.served > 20 and seen.failed == 0, seen.troubles[:3]
    refused = await site.act("uwsgi.scale", params={"to": 5})
    assert "must end with 1 to 4 workers" in refused["text"]


async def test_without_a_fifo_it_is_said_what_is_missing(stage: Stage, site: Any) -> None:
    await start(stage, site, "-p", "2", workers=2)
    refused = await site.act("uwsgi.scale", params={"by": 1})
    assert (refused["kind"], refused["attrs"]["reason"]) == ("action.refused", "params")
    assert "has no master-fifo, by which alone uWSGI changes the number of its workers" in refused["text"]
