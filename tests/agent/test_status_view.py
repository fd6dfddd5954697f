"""How the status reads in a terminal: narrow and wide, with many services, and with names that want to be more than text."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from agent.status_tables import short
from agent.status_view import render

MIB = 1024 * 1024
NOW_US = 1_790_000_000_000_000
SENTENCE = (
    "Worker 2 of shop-web (pid 4121) died after 2 h 3 min: SIGKILL from the kernel's OOM killer; it held 183.0 MiB."
)


def worker(slot: int, **other: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "slot": slot,
        "generation": 1,
        "pid": 4_194_300 + slot,
        "start_ticks": 70,
        "release": "a1b2c3d",
        "state": "idle",
        "age_s": 7440.0,
        "request_age_s": None,
        "cpu_percent": None,
        "memory_bytes": 183 * MIB,
        "memory_of": "pss",
        "uss_bytes": 150 * MIB,
        "leak_bytes_per_s": None,
        "memory_time_left_s": None,
        "snapshot": None,
        "ended_last_hour": 0,
    }
    return values | other


def service(name: str, *workers: dict[str, Any], **other: Any) -> dict[str, Any]:
    names = ("app", "workers", "threads", "worker_class", "timeout_s", "max_requests", "preload")
    values: dict[str, Any] = {
        "name": name,
        "kind": "gunicorn",
        "release": "a1b2c3d",
        "master_pid": 4100,
        "master_age_s": 188_000.0,
        "unit": f"{name}.service",
        "container": None,
        "folder": "/srv/shop",
        "settings": dict.fromkeys(names) | {"workers": 4, "timeout_s": 30.0},
        "listeners": [
            {
                "address": "tcp 127.0.0.1:8000",
                "depth": 0,
                "limit": 2048,
                "arrivals": 31,
                "turned_away": None,
                "blocked": None,
                "saturated": False,
            }
        ],
        "workers": list(workers),
        "celery": None,
    }
    return values | other


def document(*services: dict[str, Any], **other: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "document": 1,
        "source": "agent",
        "host": "web-1",
        "version": "0.1.0",
        "now_us": NOW_US,
        "troubles": [],
        "services": list(services),
        "judgements": 1,
        "deaths": [],
        "events": [],
        "probes": [{"signal": "oom", "state": "attached"}, {"signal": "queue", "state": "degraded"}],
        "server": {"url": "https://r", "connected": True, "trouble": None, "spool_bytes": 0},
    }
    return values | other


def page(status: dict[str, Any], width: int = 80, rows: int | None = None) -> str:
    console = Console(width=width, record=True, color_system=None, file=io.StringIO())
    console.print(render(status, width, rows))
    return console.export_text()


def ill() -> dict[str, Any]:
    leaky = worker(2, leak_bytes_per_s=80_000, memory_time_left_s=720, ended_last_hour=12, memory_of="anon")
    leaky |= {"state": "leaking", "memory_bytes": 99.9 * MIB}
    return document(
        service("shop-web", worker(0, cpu_percent=99.6, state="boot hung", request_age_s=59.6), leaky),
        service("api", worker(0)),
        troubles=[{"service": "shop-web", "text": f"shop-web: {SENTENCE}"}],
        deaths=[{"ts_us": NOW_US, "text": SENTENCE}],
        events=[{"ts_us": NOW_US - 86_400_000_000, "text": "The accept queue is full."}],
    )


@pytest.mark.parametrize("width", [80, 140])
def test_it_fits_narrow_and_wide_terminals_and_cuts_no_figure(width: int) -> None:
    told = page(ill(), width)
    lines = told.splitlines()
    assert all(len(line) <= width for line in lines)
    assert "\N{HORIZONTAL ELLIPSIS}" not in told
    assert lines[0].startswith("web-1")
    assert lines[2].startswith("! shop-web: Worker 2")
    assert "1m00s" in told
    assert "100%" in told
    assert "99.9 MiB anon" in told
    assert ("4.6 MiB" in told) is (width == 140)
    assert ("generation" in told) is (width == 140)


def test_what_is_wrong_comes_before_what_is_not() -> None:
    told = page(ill())
    assert told.index("! shop-web") < told.index("shop-web  gunicorn") < told.index("api  gunicorn")
    assert told.index("api  gunicorn") < told.index("Last deaths") < told.index("Last events")


def test_unknown_is_a_dash_and_never_0() -> None:
    told = page(document(service("api", worker(0, memory_bytes=None, memory_of=None))))
    row = next(line for line in told.splitlines() if line.strip().startswith("0"))
    assert row.split() == ["0", "4194300", "idle", "2h04m", "-", "-", "-"]


def test_columns_that_say_nothing_are_left_out() -> None:
    assert "full in" not in page(document(service("api", worker(0))))
    assert "ends/h" not in page(document(service("api", worker(0))))
    assert all(title in page(ill()) for title in ("full in", "ends/h"))


def test_on_a_full_host_healthy_services_take_one_line() -> None:
    many = [service(f"shop-{number:02}", worker(0), worker(1, state="busy")) for number in range(30)]
    trouble = [{"service": "shop-07", "text": "shop-07: worker 0 is stuck."}]
    told = page(document(*many, troubles=trouble), rows=60)
    assert "shop-07  gunicorn, pid 4100" in told
    assert "shop-08  gunicorn, pid 4100" not in told
    (line,) = [line for line in told.splitlines() if line.strip().startswith("shop-08")]
    assert line.split() == [
        "shop-08",
        "gunicorn",
        "2:",
        "1",
        "busy,",
        "1",
        "idle",
        "0",
        "of",
        "2048",
        "366",
        "MiB",
        "pss",
    ]
    assert len(told.splitlines()) <= 60
    assert "shop-08  gunicorn, pid 4100" in page(document(*many))


def test_only_pss_is_added_up() -> None:
    many = [service(f"shop-{number}", worker(0), worker(1, memory_of="anon")) for number in range(9)]
    line = next(line for line in page(document(*many), rows=20).splitlines() if "shop-8" in line)
    assert line.split()[-1] == "-"


def test_celery_shows_its_queues_and_tasks() -> None:
    queue = {"name": "mail", "length": 312, "oldest_wait_s": 725.0, "backlog": False, "silent": True}
    task = {"name": "shop.mail", "pid": 7, "age_s": 70.0, "stuck": False}
    celery: dict[str, Any] = {
        "broker": "redis://broker/0",
        "trouble": None,
        "answers": False,
        "unacked": 8,
        "queues": [queue],
        "active": [task] * 3 + [task | {"name": "shop.bad", "stuck": True}] + [task] * 4,
        "active_count": 8,
    }
    told = page(document(service("jobs", kind="celery", celery=celery, listeners=[])))
    assert "broker redis://broker/0, 8 not acknowledged, the node has not answered" in told
    assert "queue mail: 312 waiting, the next one for 12m05s  silent" in told
    assert told.index("runs shop.bad in pid 7 for 1m10s") < told.index("runs shop.mail")
    assert "and 3 more tasks" in told
    without = celery | {"broker": None, "trouble": "no broker can be seen from outside"}
    assert "no broker can be seen from outside" in page(document(service("jobs", celery=without)))


def test_an_empty_host_says_what_to_do() -> None:
    told = page(document())
    assert "Nothing is wrong that Reflex can see." in told
    assert "/etc/reflex/services.toml" in told


def test_a_name_that_fits_nothing_says_what_there_is() -> None:
    told = page(document(only="shap", others=["shop", "api"]))
    assert "No service has 'shap' in its name. There are: shop, api." in told


def test_a_look_says_that_it_is_only_one() -> None:
    told = page(
        document(service("api", worker(0)), source="look", probes=[], troubles=[{"service": "x", "text": "X."}])
    )
    assert "One look into /proc, no agent was asked" in told
    assert "Nothing is wrong" not in told
    assert "death" not in told.splitlines()[-1]


def test_before_the_first_answer_of_the_server_nothing_is_claimed() -> None:
    server = {"url": "https://r", "connected": None, "trouble": None, "spool_bytes": 0}
    told = " ".join(page(document(server=server)).split())
    assert "2 of 2 kernel signals heard, by lesser means: queue; has not sent yet to https://r" in told
    assert "; sends to https://r" in page(document())


def test_names_cannot_steer_the_terminal() -> None:
    evil = "shop\x1b]0;owned\x07\x1b[2J\u202e[bold]"
    told = page(document(service(evil, worker(0)), deaths=[{"ts_us": NOW_US, "text": evil}]))
    assert not set(told) & {"\x1b", "\x07", "\u202e"}
    assert "[bold]" in told


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0, "0ms"),
        (-1, "0ms"),
        (0.4, "400ms"),
        (42.4, "42s"),
        (59.6, "1m00s"),
        (192, "3m12s"),
        (7440, "2h04m"),
        (443_000, "5d03h"),
    ],
)
def test_spans_are_short(seconds: float | None, words: str) -> None:
    assert short(seconds) == words
