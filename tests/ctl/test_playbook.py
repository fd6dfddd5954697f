"""`reflexctl playbook …` against a real server with playbooks of an operator's own."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ctl.conftest import SERVER_SIDE

BOOK = """\
name: after-oom
title: replace all workers after an OOM kill
on:
  - event: worker.oom_killed
if: service.kind == "gunicorn"
steps:
  - action: gunicorn.rotate
verify:
  within: 30s
  expect:
    - event: worker.ready
approval: {within: 10m}
limits: {cooldown: 1s, per_hour: 2, fleet_per_hour: 100}
mode: armed
"""
WORKER = {"slot": 0, "generation": 1, "pid": 4121, "start_ticks": 81234}
SERVICES = [{"name": "shop-web", "kind": "gunicorn", "master_pid": 4100, "workers": [WORKER]}]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server with one playbook beside the library."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "playbooks").mkdir()
    (folder / "playbooks" / "after-oom.yaml").write_text(BOOK)
    process = SERVER_SIDE.ServerProcess(
        folder / "state", "--silent-after-s", "3600", "--playbooks", str(folder / "playbooks")
    )
    process.start()
    yield process
    process.kill()


@pytest.fixture
def operator(own: Any, ctl: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """reflexctl playbook, as an operator of that server."""
    monkeypatch.setenv("REFLEX_URL", own.base)
    monkeypatch.setenv("REFLEX_TOKEN", own.token)
    return lambda *words: ctl("playbook", *words)


@pytest.fixture
def host(own: Any, agent_of: Any) -> Any:
    """An agent that has told what runs on its host."""
    agent = agent_of(own)
    agent.tell(status={"services": SERVICES})
    return agent


def test_list_show_and_modes(operator: Any) -> None:
    listed = operator("list")
    assert (listed.code, listed.err) == (0, "")
    assert "armed   after-oom" in listed.out
    assert "shadow  gunicorn-leak-surge" in listed.out
    shown = operator("show", "after-oom")
    assert "armed (its file says armed), of your own" in shown.out
    assert shown.out.endswith(BOOK)
    assert operator("show", "nothing").code == 1
    assert operator("arm", "celery-backlog", "gunicorn-leak-surge").out == (
        "celery-backlog is armed: it acts by itself.\ngunicorn-leak-surge is armed: it acts by itself.\n"
    )
    assert json.loads(operator("shadow", "celery-backlog", "--json").out)["mode"] == "shadow"
    assert "off" in operator("off", "celery-backlog").out
    assert "in shadow mode" in operator("reset", "gunicorn-leak-surge").out


def test_lint_says_file_line_and_column(operator: Any, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(BOOK)
    bad.write_text(BOOK.replace("worker.oom_killed", "worker.oom_kiled").replace("within: 30s", "within: soon"))
    done = operator("lint", str(good), str(bad))
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0] == f"{good}: after-oom can be used"
    assert lines[1].startswith(f"{bad}:4:12: 'event' is 'worker.oom_kiled'; did you mean 'worker.oom_killed'?")
    assert lines[2].startswith(f"{bad}:9:11: 'within': 'soon' is no span of time")
    assert operator("lint", str(good)).code == 0
    missing = operator("lint", str(tmp_path / "none.yaml"))
    assert (missing.code, "cannot be read: No such file" in missing.err) == (2, True)


def kinds_once_told(operator: Any, last: str) -> list[str]:
    """The kinds of after-oom's history, once it tells of `last`: what a run does reaches the timeline just after it."""
    deadline = time.monotonic() + 10
    while True:
        history = operator("history", "after-oom", "--since", "1h")
        kinds = [line.split()[6] for line in history.out.splitlines()]
        if last in kinds or time.monotonic() > deadline:
            return kinds
        time.sleep(0.05)


def test_a_run_is_tested_asked_for_approved_and_told(operator: Any, host: Any, event: Any) -> None:
    now_us = time.time_ns() // 1000
    old = [
        event(kind="worker.oom_killed", service="shop-web", worker=WORKER, ts_us=now_us - minutes * 60_000_000)
        for minutes in (50, 40, 30)
    ]
    host.tell(*old)
    tested = operator("test", "after-oom", "--since", "1h", "--host", host.host)
    assert tested.code == 0
    assert [line.split()[6] for line in tested.out.splitlines()[:3]] == [
        "playbook.would_run",
        "playbook.would_run",
        "playbook.skipped",
    ]
    count = re.search(r"after-oom was tested with (\d+) events", tested.out)
    assert count is not None
    assert int(count[1]) >= len(old)  # what the engine tells of them, as too late to act on, may be there by now
    nothing = operator("test", "celery-backlog", "--since", "1h", "--host", host.host)
    assert (nothing.code, "it would have done nothing" in nothing.err) == (1, True)

    run = operator("run", "after-oom", "--host", host.host, "--service", "shop-web")
    assert run.code == 0
    assert "asked for it." in run.out
    run_id = json.loads(operator("runs", "--json").out)["runs"][0]["id"]
    assert f"{run_id}  approval  after-oom for shop-web on {host.host}" in operator("runs").out
    again = operator("run", "after-oom", "--host", host.host, "--service", "shop-web")
    assert (again.code, "a run of it is at work" in again.err) == (5, True)
    approved = operator("approve", run_id)
    assert " approved that after-oom repairs shop-web" in approved.out
    assert operator("reject", run_id).code == 5
    stopped = operator("stop")
    assert "All playbooks are stopped" in stopped.out
    assert operator("list").out.startswith("operator ")
    assert operator("runs").code == 1
    assert operator("resume").out == "Playbooks go on.\n"
    kinds = kinds_once_told(operator, "playbook.cancelled")
    began = len(kinds) - kinds[::-1].index("playbook.started") - 1
    assert kinds[began:] == [
        "playbook.started",
        "playbook.waiting",
        "playbook.skipped",
        "playbook.step",
        "playbook.step",
        "playbook.cancelled",
    ]


def test_wrong_usage_says_what_is_right(operator: Any) -> None:
    assert operator("run", "after-oom", "--service", "nothing").code == 1
    assert operator("approve", "nothing").code == 1
    wrong = operator("explode")
    assert (wrong.code, "invalid choice" in wrong.err) == (2, True)
    assert "reflexctl playbook arm gunicorn-leak-surge" in operator("--help").out
