"""`reflexctl hosts` against a real server, and the drawing of one host."""

from __future__ import annotations

import time
from typing import Any

from ctl.hosts import draw_host
from ctl.screen import Screen

NOW_US = 1_800_000_000_000_000


def status(now_us: int) -> dict[str, Any]:
    return {
        "version": "0.1.0",
        "kernel": "6.18.44",
        "started_us": now_us - 7_500_000_000,
        "cpu_percent": 0.25,
        "rss_bytes": 43_000_000,
        "spool_bytes": 0,
        "records": {"fork": 12, "oom": 1},
        "lost": {"fork": 3, "oom": 0},
        "probes": [
            {"signal": "oom", "state": "attached", "rung": "tp_btf/mark_victim", "reason": ""},
            {"signal": "accept", "state": "degraded", "rung": "diag", "reason": "fentry was refused (EPERM)"},
            {"signal": "exec", "state": "off", "rung": "", "reason": "no BTF"},
        ],
        "services": [
            {
                "name": "shop-web",
                "kind": "gunicorn",
                "master_pid": 4100,
                "listeners": ["tcp 127.0.0.1:8000"],
                "workers": [
                    {"slot": 0, "generation": 1, "pid": 4121, "state": "ready", "since_us": now_us - 60_000_000},
                    {"slot": 1, "generation": 2, "pid": 4130, "state": "booting", "since_us": now_us - 1_000_000},
                ],
            }
        ],
    }


def draw(host: dict[str, Any]) -> list[str]:
    return list(draw_host(host, Screen(), now_us=NOW_US))


def test_a_host_with_everything() -> None:
    host = {"name": "web-3", "state": "live", "last_seen_us": NOW_US - 2_000_000, "status": status(NOW_US)}
    assert draw(host) == [
        "● web-3  live, heard 2 s ago",
        "  agent 0.1.0 on Linux 6.18.44, started 2 h 5 min ago",
        "  CPU 0.2 %, RSS 41.0 MiB, spool 0 B, lost records 3 of 16 (3 fork)",
        "  probes",
        "    ● oom     attached  tp_btf/mark_victim",
        "    ▲ accept  degraded  diag",
        "        fentry was refused (EPERM)",
        "    ✖ exec    off",
        "        no BTF",
        "  services",
        "    shop-web  gunicorn, master 4100, tcp 127.0.0.1:8000",
        "      ● slot   0  generation   1  pid    4121  ready for 60 s".replace("60 s", "1 min"),
        "      ▲ slot   1  generation   2  pid    4130  booting for 1 s",
    ]


def test_what_was_not_told_is_unknown_and_never_zero() -> None:
    host = {"name": "web-3", "state": "silent", "last_seen_us": NOW_US - 90_000_000, "status": {"version": "0.1.0"}}
    assert draw(host) == [
        "✖ web-3  silent, last heard 1 min 30 s ago",
        "  agent 0.1.0 on Linux unknown, start unknown; as last told:",
        "  CPU unknown, RSS unknown, spool unknown, lost records unknown",
        "  probes: unknown",
        "  services: unknown",
    ]


def test_a_host_that_told_nothing() -> None:
    host = {"name": "web-3", "state": "live", "last_seen_us": NOW_US + 5, "status": {}}
    assert draw(host) == ["● web-3  live, heard 0 s ago", "  the agent has told nothing about itself yet"]


def test_text_of_an_agent_cannot_steer_the_terminal() -> None:
    host = {
        "name": "web\x1b]0;x\x07",
        "state": "live",
        "last_seen_us": NOW_US,
        "status": {
            "version": "\x9b31m",
            "probes": [{"signal": "o\x1bom", "state": "\x1b[1m", "rung": "\x07", "reason": "\x1b[2J"}],
            "services": [{"name": "a\nb", "kind": "\x1b", "listeners": ["\x1b[H"], "workers": [{"pid": "\x1b"}]}],
            "lost": {"\x1b[5m": 1},
        },
    }
    assert not any(ord(one) < 32 or 127 <= ord(one) < 160 for line in draw(host) for one in line)


def test_all_hosts_of_a_server(ctl: Any, agent: Any) -> None:
    agent.tell(status=status(time.time_ns() // 1000))
    done = ctl("hosts")
    assert (done.code, done.err) == (0, "")
    mine = done.out[done.out.index(agent.host) :]
    assert mine.startswith(f"{agent.host}  live, heard ")
    assert "▲ accept  degraded  diag" in mine


def test_json_is_the_answer_of_the_api(ctl: Any, agent: Any) -> None:
    told = status(time.time_ns() // 1000)
    agent.tell(status=told)
    (answer,) = ctl("hosts", "--json").events
    (mine,) = (host for host in answer["hosts"] if host["name"] == agent.host)
    assert (mine["state"], mine["status"]) == ("live", told)


def test_no_host_at_all_is_1(ctl: Any, answering: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("REFLEX_URL", answering(200, b'{"hosts": []}'))
    done = ctl("hosts", "--json")
    assert (done.code, done.events) == (1, [{"hosts": []}])
    assert "reflex-server host-key add NAME" in done.err
