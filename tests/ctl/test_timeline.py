"""`reflexctl timeline` against a real server."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., dict[str, Any]]
SECOND_US = 1_000_000


@pytest.fixture
def story(agent: Any, event: Make) -> list[dict[str, Any]]:
    """Three events of the last minutes, oldest first."""
    now_us = time.time_ns() // 1000
    told = [
        event(ts_us=now_us - 7200 * SECOND_US, kind="service.started", text="shop-web started", service="shop-web"),
        event(ts_us=now_us - 60 * SECOND_US, kind="worker.oom_killed", severity="critical", text="worker 1 was killed"),
        event(ts_us=now_us - 30 * SECOND_US, kind="worker.ready", text="worker 2 is READY", service="shop-web"),
    ]
    agent.tell(*told)
    return told


def test_events_come_oldest_first_one_a_line(ctl: Any, agent: Any, story: Any) -> None:
    done = ctl("timeline", "--host", agent.host)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert [line.split(agent.host)[1].split(None, 1) for line in lines] == [[e["kind"], e["text"]] for e in story]
    assert [line.split()[3] for line in lines] == ["info", "critical", "info"]
    assert [line.split()[4] for line in lines] == [e["id"] for e in story]
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d ", lines[0])


def test_json_is_one_event_of_the_api_a_line(ctl: Any, agent: Any, story: Any) -> None:
    done = ctl("timeline", "--host", agent.host, "--json")
    assert done.code == 0
    assert [e["id"] for e in done.events] == [e["id"] for e in story]
    assert {*story[0], "ts", "host", "cause", "worker", "evidence", "attrs"} <= done.events[0].keys()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--since", "1h"], [1, 2]),
        (["--since", "-1h"], [1, 2]),
        (["--since=-1h"], [1, 2]),
        (["--until", "1h"], [0]),
        (["--since", "3h", "--until", "-45s"], [0, 1]),
        (["--kind", "worker.*"], [1, 2]),
        (["--kind", "worker.ready", "--kind", "service.started"], [0, 2]),
        (["--service", "shop-web"], [0, 2]),
        (["--severity", "warning"], [1]),
        (["--search", "is ready"], [2]),
        (["--since", "2020-01-01"], [0, 1, 2]),
        (["--since", "2020-01-01T00:00:00Z", "--limit", "3"], [0, 1, 2]),
    ],
)
def test_options_filter(ctl: Any, agent: Any, story: Any, options: list[str], kept: list[int]) -> None:
    done = ctl("timeline", "--host", agent.host, "--json", *options)
    assert [e["id"] for e in done.events] == [story[index]["id"] for index in kept]


def test_limit_keeps_the_newest_and_says_that_there_are_more(ctl: Any, agent: Any, story: Any) -> None:
    done = ctl("timeline", "--host", agent.host, "--limit", "2", "--json")
    assert [e["id"] for e in done.events] == [e["id"] for e in story[1:]]
    assert "these are the newest 2; older ones match too" in done.err


def test_a_limit_beyond_one_page_takes_several(ctl: Any, agent: Any, event: Make) -> None:
    now_us = time.time_ns() // 1000
    told = [event(ts_us=now_us - 1200 + index) for index in range(1200)]
    agent.tell(*told)
    done = ctl("timeline", "--host", agent.host, "--limit", "1100", "--json")
    assert [e["id"] for e in done.events] == [e["id"] for e in told[100:]]


def test_nothing_found_is_1_and_says_what_to_try(ctl: Any) -> None:
    done = ctl("timeline", "--host", "no-such-host")
    assert (done.code, done.out) == (1, "")
    assert "no event matches; --since" in done.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--since", "yesterday"], "is no time; write how far back"),
        (["--limit", "0"], "whole number from 1"),
        (["--severity", "bad"], "invalid choice"),
        (["--follow", "--until", "1h"], "cannot have --until"),
        (["--kind", "worker.exploded"], "unknown kind 'worker.exploded'"),
        (["--sin", "1h"], "unrecognized arguments"),
    ],
)
def test_wrong_usage_is_2(ctl: Any, options: list[str], said: str) -> None:
    done = ctl("timeline", *options)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_a_terminal_gets_colours_short_ids_days_and_wrapped_lines(on_terminal: Any, agent: Any, event: Make) -> None:
    told = event(severity="critical", text="worker 4121 ended " + "because of this " * 20 + "\x1b[31mRED\x07")
    agent.tell(told)
    done = on_terminal("timeline", "--host", agent.host, columns=120)
    assert done.code == 0
    day, first, *rest = done.out.splitlines()
    assert re.search(r"day, \d{4}-\d\d-\d\d", day)
    assert told["id"][-8:] in first and told["id"] not in first
    assert "\x1b[1;31m✖\x1b[0m" in first
    assert len(rest) > 3
    assert all(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) <= 120 for line in (first, *rest))
    assert "\x1b[31mRED" not in done.out and "\x07" not in done.out and "[31mRED" in done.out


def test_no_color_switches_colours_off(on_terminal: Any, agent: Any, story: Any) -> None:
    done = on_terminal("timeline", "--host", agent.host, NO_COLOR="1")
    assert "✖" in done.out and "\x1b" not in done.out


def test_a_reader_that_has_enough_ends_it_quietly(start_ctl: Any, agent: Any, event: Make) -> None:
    agent.tell(*(event(text="x" * 2000) for _ in range(300)))
    running = start_ctl("timeline", "--host", agent.host, "--limit", "300")
    running.wait_for("x" * 100)
    running.close_stdout()
    done = running.end()
    assert (done.code, done.err) == (0, "")


def test_help_shows_examples_of_every_command(ctl: Any) -> None:
    for command in ("timeline", "chain", "hosts", "login", "logout"):
        done = ctl(command, "--help")
        assert done.code == 0
        assert done.out.count(f"  reflexctl {command}") >= 1
        assert "exit codes: 0 ok" in done.out
    assert ctl().code == 2
    assert "reflexctl login https://" in ctl("--help").out
