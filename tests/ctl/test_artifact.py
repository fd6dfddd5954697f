"""`reflexctl artifact` against a real server, and against answers of which parts are missing or hostile."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any
from uuid import uuid4

import pytest

from ctl.artifact import draw
from ctl.screen import Screen

CONTENT = {
    "why": "the memory limit of cgroup /shop (256.0 MiB) is 86% used",
    "threads": [
        {"name": "MainThread", "id": 7, "is_active": True, "has_gil": True, "calls": ["report (shop/app.py:40)"]},
        {"name": "pool", "id": 8, "is_active": False, "has_gil": False, "calls": [], "calls_left_out": 3},
    ],
    "memory": {
        "rss_bytes": 215728128,
        "bytes_by_kind": {"heap": 6254592},
        "largest": [{"name": "[heap]", "kind": "heap", "rss_bytes": 6254592}],
    },
    "process": {"open_files": 8},
    "sockets": {
        "open": 2,
        "by_state": {"close-wait": 1},
        "connections": [
            {
                "own": "10.0.0.2:4001",
                "far": "10.0.0.9:5432",
                "state": "close-wait",
                "unsent_bytes": 0,
                "unread_bytes": 2048,
            }
        ],
    },
    "not_had": ["which line of code allocated"],
}


@pytest.fixture
def snapshot(agent: Any, event: Any) -> dict[str, Any]:
    """A snapshot with its event, and the kill that names it."""
    taken = event(kind="worker.snapshot", text="a snapshot was kept")
    taken["attrs"] = {"artifact": taken["id"]}
    killed = event(kind="worker.oom_killed", severity="critical", text="killed", cause=taken["id"])
    killed["attrs"] = {"artifact": taken["id"]}
    worker = {"slot": 2, "generation": 1, "pid": 991, "start_ticks": 5}
    ts_us = time.time_ns() // 1000
    artifact = {"id": taken["id"], "ts_us": ts_us, "kind": "snapshot", "service": "shop", "worker": worker}
    send(agent, {"seq": 1, "artifact": {**artifact, "content": CONTENT}})
    agent.tell(taken, killed)
    return {"taken": taken, "killed": killed}


def send(agent: Any, record: dict[str, Any]) -> None:
    body = {"v": 1, "spool": str(uuid4()), "status": {}, "events": [], "samples": [], "artifacts": [record]}
    request = urllib.request.Request(
        f"{agent.base}/v1/ingest",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {agent.key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert json.load(answer)["rejected"] == []


@pytest.mark.parametrize("which", ["taken", "killed"])
@pytest.mark.parametrize("short", [True, False])
def test_by_its_own_id_and_by_that_of_an_event_that_names_it(ctl: Any, snapshot: Any, which: str, short: bool) -> None:
    id_ = snapshot[which]["id"]
    done = ctl("artifact", id_[-8:] if short else id_)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[1] == f"worker 2 of shop (pid 991), kept because {CONTENT['why']}"
    assert lines[3:5] == ["MainThread (id 7), runs, holds the GIL", "  report (shop/app.py:40)"]
    assert "  and 3 outer calls that did not fit" in lines
    assert "      6.0 MiB  heap          [heap]" in lines[8:]
    assert "  process.open_files: 8" in lines
    assert "  close-wait    10.0.0.2:4001 -> 10.0.0.9:5432, 2.0 KiB unread" in lines
    assert "  sockets.by_state.close-wait: 1" in lines
    assert lines[-1] == "cannot be had from outside: which line of code allocated"


def test_json_is_the_answer_of_the_api(ctl: Any, snapshot: Any) -> None:
    (answer,) = ctl("artifact", snapshot["killed"]["id"], "--json").events
    assert (answer["id"], answer["content"]) == (snapshot["taken"]["id"], CONTENT)


def test_an_event_without_one_and_no_event_at_all(ctl: Any, agent: Any, event: Any) -> None:
    plain = event()
    agent.tell(plain)
    assert ctl("artifact", plain["id"]).code == 1
    assert ctl("artifact", str(uuid4())).code == 1
    assert ctl("artifact", "no id").code == 2


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"threads": None, "no_stacks_because": "py-spy: \x1b[31mno\x07"},
        {"threads": [7, {"calls": 7}], "memory": {"largest": [7, {"rss_bytes": "x"}]}, "not_had": 7},
        {"threads": [{"name": "\x1b]0;x\x07", "calls": ["\x1b[2J"]}], "process": {"\x1b": 1, "b": True, "c": None}},
    ],
)
def test_whatever_is_in_it_is_drawn_without_harm(content: dict[str, Any]) -> None:
    lines = list(draw({"content": content, "worker": 7, "ts_us": "x"}, Screen()))
    assert not any("\x1b" in line or "\x07" in line for line in lines)


def test_the_log_of_a_release_is_its_lines(ctl: Any, agent: Any, event: Any) -> None:
    told = event(kind="release.prepared", text="built")
    ts_us = time.time_ns() // 1000
    content = {"first": [[ts_us, "$ pip \x1b[31minstall"]], "left_out": 3, "last": [[ts_us, "done"]]}
    send(agent, {"seq": 2, "artifact": {"id": told["id"], "ts_us": ts_us, "kind": "release_log", "content": content}})
    done = ctl("artifact", told["id"])
    assert (done.code, done.err) == (0, "")
    first, between, last = done.out.splitlines()[1:]
    assert first.endswith("  $ pip [31minstall")
    assert between == "3 lines between these were too many to be kept"
    assert last.endswith("  done")


def test_a_log_that_is_none_is_drawn_without_harm() -> None:
    content = {"first": [7, [1], ["x", "y"], [1, 2]], "last": 7, "left_out": "x"}
    assert len(list(draw({"kind": "release_log", "content": content}, Screen()))) == 1
