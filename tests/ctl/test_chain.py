"""`reflexctl chain` against a real server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from agent.wire import uuid7


@pytest.fixture
def story(agent: Any, event: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
    """A kill, the death that it brought, and the replacement: each the cause of the next."""
    now_us = time.time_ns() // 1000
    evidence = [{"source": "tp_btf/mark_victim", "fact": "oom score 900 for pid 4121"}]
    killed = event(
        ts_us=now_us - 1_700_000,
        kind="worker.oom_killed",
        severity="critical",
        text="worker 4121 was killed",
        evidence=evidence,
    )
    exited = event(ts_us=now_us - 1_698_200, cause=killed["id"], text="worker 4121 ended")
    started = event(ts_us=now_us, cause=exited["id"], kind="worker.started", text="worker 4130 started")
    agent.tell(killed, exited, started)
    return [killed, exited, started]


def test_the_chain_is_a_tree_with_gaps_and_evidence(ctl: Any, story: Any, agent: Any) -> None:
    done = ctl("chain", story[1]["id"])
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith(f"✖ worker.oom_killed {agent.host} ")
    assert lines[1:3] == ["│ worker 4121 was killed", "│ · tp_btf/mark_victim: oom score 900 for pid 4121"]
    assert lines[3].startswith("└─ +1.8 ms ● worker.exited ") and lines[3].endswith(f"{story[1]['id']} ◀ asked for")
    assert lines[4] == "   │ worker 4121 ended"
    assert lines[5].startswith("   └─ +1.7 s ● worker.started ")
    assert lines[6:] == ["        worker 4130 started"]


def test_json_is_the_answer_of_the_api(ctl: Any, story: Any) -> None:
    done = ctl("chain", story[2]["id"], "--json")
    (answer,) = done.events
    assert (answer["id"], answer["root"]) == (story[2]["id"], story[0]["id"])
    assert [link["gap_us"] for link in answer["links"]] == [1800, 1_698_200]


@pytest.mark.parametrize("part", [lambda id_: id_[-8:], lambda id_: id_[-8:].upper(), lambda id_: id_[:-1]])
def test_a_part_of_a_recent_id_is_enough(ctl: Any, story: Any, part: Callable[[str], str]) -> None:
    (answer,) = ctl("chain", part(story[0]["id"]), "--json").events
    assert answer["id"] == story[0]["id"]


def test_a_part_that_fits_several_names_them(ctl: Any, agent: Any, event: Any) -> None:
    ts_us = time.time_ns() // 1000
    ids = [uuid7(ts_us, 0xABCDE00000 + number) for number in (1, 2)]
    agent.tell(*(event(id=id_, ts_us=ts_us) for id_ in ids))
    done = ctl("chain", ids[0][:-1])
    assert done.code == 2
    assert all(id_ in done.err for id_ in ids)
    assert "give more digits" in done.err


def test_a_missing_cause_is_said(ctl: Any, agent: Any, event: Any) -> None:
    gone = event()["id"]
    told = event(cause=gone)
    agent.tell(told)
    done = ctl("chain", told["id"])
    assert done.code == 0
    assert done.out.splitlines()[0] == f"? its cause {gone} is not stored (yet)"


@pytest.mark.parametrize(
    ("wanted", "code", "said"),
    [
        ("019a1b2c-0000-7000-8000-0000deadbeef", 1, "no event 019a1b2c"),
        ("dead0000beef", 1, "older events need the whole id"),
        ("no-id", 2, "is no event id"),
        ("abc", 2, "at least 4"),
    ],
)
def test_what_is_not_found_says_why(ctl: Any, story: Any, wanted: str, code: int, said: str) -> None:
    done = ctl("chain", wanted)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
