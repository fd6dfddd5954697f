from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from benchmarks.deploys.clients import A_SECOND, Clients, answer_from_line, line_of
from benchmarks.deploys.counting import (
    Answer,
    Span,
    Turn,
    cells,
    down_s,
    first_alone_s,
    goals_met,
    last_version,
    order_of,
    serves,
    summary,
)
from demo.deploying import SOURCES

DEPLOYS = Path(__file__).parents[2] / "benchmarks" / "deploys"
WAYS = ("reflex", "ansible_restart", "ansible_hup")


def steady(began_s: float, ended_s: float, version: str | None, *, took_s: float = 0.01) -> list[Answer]:
    """An answer each hundredth of a second."""
    count = round((ended_s - began_s) * 100)
    return [Answer(began_s + number / 100, took_s, version) for number in range(count)]


def turn(**more: Any) -> Turn:
    whole: dict[str, Any] = {
        "calm": Span(0, 1), "good": Span(1, 6), "good_code": 0, "broken": Span(6, 12), "broken_code": 2,
        "recovered_by": "a redeploy", "version": "v2",
    }  # fmt: skip
    return Turn(**{**whole, **more})


def test_a_service_that_answers_all_along_is_not_down() -> None:
    assert down_s(steady(0, 10, "v1"), Span(0, 10)) == 0


def test_only_good_answers_count_and_each_gap_counts_whole() -> None:
    answers = [*steady(0, 2, "v1"), *steady(2, 3.5, None), *steady(3.5, 5, "v1"), *steady(6, 8, "v1")]
    assert down_s(answers, Span(0, 8)) == pytest.approx(1.5 + 1.0, abs=0.05)


def test_a_short_wait_is_not_down() -> None:
    assert down_s([*steady(0, 2, "v1"), *steady(2.15, 4, "v1")], Span(0, 4)) == 0


def test_requests_that_wait_mean_down_until_they_are_answered() -> None:
    waited = [Answer(2 + number / 100, 2 - number / 100, "v2") for number in range(200)]
    assert down_s([*steady(0, 2, "v1"), *waited, *steady(4, 5, "v2")], Span(0, 5)) == pytest.approx(2, abs=0.05)


def test_a_service_that_never_answers_is_down_all_the_time() -> None:
    assert down_s(steady(0, 10, None), Span(0, 10)) == 10


def test_the_new_version_is_there_when_nothing_else_answers_any_more() -> None:
    mixed = [*steady(0, 2, "v1"), *steady(1, 5, "v2")]
    assert first_alone_s(mixed, "v2", Span(0.5, 5)) == pytest.approx(1.5, abs=0.03)


def test_failures_put_the_new_version_off() -> None:
    answers = [*steady(0, 2, "v1"), *steady(2, 3, "v2"), *steady(3, 4, None), *steady(4, 6, "v2")]
    assert first_alone_s(answers, "v2", Span(0, 6)) == pytest.approx(4, abs=0.03)


def test_old_code_until_the_end_is_never_new() -> None:
    assert first_alone_s(steady(0, 5, "v1"), "v2", Span(0, 5)) is None
    assert last_version(steady(0, 5, "v1")) == "v1"
    assert last_version(steady(0, 5, None)) is None


@pytest.mark.parametrize(
    ("answers", "is_so"),
    [
        (steady(0, 5, "v2"), True),
        ([*steady(0, 4.5, "v1"), *steady(4.5, 5, "v2")], False),
        ([*steady(0, 4.5, "v2"), *steady(4.5, 4.6, None), *steady(4.6, 5, "v2")], False),
        (steady(0, 4, "v2"), False),
        ([], False),
    ],
)
def test_a_version_serves_when_a_second_of_answers_says_so(answers: Sequence[Answer], *, is_so: bool) -> None:
    assert serves(answers, "v2", 5.0, a_second=100) is is_so


def test_a_turn_that_fails_requests_and_is_down_after_a_broken_release() -> None:
    answers = [
        *steady(0, 2, "v1"), *steady(2, 3, None), *steady(3, 6, "v2", took_s=0.05),
        *steady(6, 7, "v2"), *steady(7, 10, None), *steady(10, 12, "v2"),
    ]  # fmt: skip
    found = cells(turn(), answers)
    assert (found["requests"], found["failed_requests"], found["worst_ms"]) == (500, 100, 50.0)
    assert (found["served_after"], found["wall_s"]) == ("new", pytest.approx(2.05, abs=0.05))
    assert (found["broken_failed_requests"], found["broken_exit_code"]) == (300, 2)
    assert found["broken_down_s"] == pytest.approx(3, abs=0.1)


def test_old_code_after_a_deploy_is_told() -> None:
    found = cells(turn(), steady(0, 12, "v1"))
    assert (found["served_after"], found["wall_s"], found["exit_code"]) == ("old", None, 0)


def test_the_worst_round_counts_beside_medians_and_every_round() -> None:
    rounds = [cells(turn(), steady(0, 12, "v2", took_s=took_s)) for took_s in (0.01, 0.05, 0.02)]
    found = summary(rounds)
    assert (found["rounds"], found["worst_ms"], found["requests"]) == (3, 50.0, 1500)
    assert found["median"] == {
        "failed_requests": 0, "worst_ms": 20.0, "p99_ms": 20.0, "wall_s": pytest.approx(0.02, abs=0.03), "broken_down_s": 0
    }  # fmt: skip
    assert list(found["each"]) == ["round 1", "round 2", "round 3"]  # type: ignore[call-overload]
    assert goals_met(found) == {"failed_requests": True, "worst_ms": True, "broken_down_s": True}


def test_rounds_that_end_in_different_ways_are_told_apart() -> None:
    rounds = [cells(turn(), steady(0, 12, version)) for version in ("v2", "v1", "v2")]
    found = summary(rounds)
    assert found["served_after"] == "new (2), old (1)"
    assert found["wall_s"] is None


@pytest.mark.parametrize("failed", [{"failed_requests": 1}, {"worst_ms": 60.1}, {"broken_down_s": 0.3}])
def test_a_goal_that_is_missed_is_told(failed: dict[str, float]) -> None:
    figures: dict[str, float] = {"failed_requests": 0, "worst_ms": 60.0, "broken_down_s": 0}
    met = goals_met({**figures, **failed})
    assert [name for name, is_met in met.items() if not is_met] == list(failed)


def test_each_way_gets_each_place() -> None:
    orders = [order_of(WAYS, number) for number in range(3)]
    assert [one[0] for one in orders] == list(WAYS)
    assert all(sorted(one) == sorted(WAYS) for one in orders)


@pytest.mark.parametrize(
    "answer", [Answer(1.5, 0.25, "v2"), Answer(1.5, 10.0, None, "TimeoutError()"), Answer(2.0, 0.5, None, "OSError(1, 'a b')")]
)  # fmt: skip
def test_an_answer_as_a_line(answer: Answer) -> None:
    assert answer_from_line(line_of(answer)) == answer


async def test_clients_keep_asking_and_tell_what_failed() -> None:
    told = {"status": b"200 OK"}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + told["status"] + b"\r\nContent-Length: 2\r\n\r\nv7")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Clients(port) as clients:
            began_s = time.monotonic()
            assert await clients.until(lambda _: len(clients.answers) > A_SECOND, 30)
            assert all(one.version == "v7" for one in clients.answers)
            assert time.monotonic() - began_s > 0.9
            told["status"] = b"503 Busy"
            assert await clients.until(lambda _: clients.answers[-1].version is None, 30)
        assert "503 Busy" in clients.answers[-1].trouble


def test_playbooks_need_no_collection() -> None:
    yaml = YAML(typ="safe")
    tasks = [task for file in DEPLOYS.glob("*.yml") for one in yaml.load(file) for task in one.get("tasks", [one])]
    modules = {key for task in tasks for key in task if "." in key}
    assert len(tasks) == 10
    assert all(any(key.startswith("ansible.builtin.") for key in task) for task in tasks)
    assert all(key.startswith("ansible.builtin.") for key in modules)


def test_the_app_has_what_the_benchmark_sets_in_it() -> None:
    text = (SOURCES / "market.py").read_text()
    assert all(text.count(line) == 1 for line in ('VERSION = "v0"', "\nIMPORT_S = 1.5\n", "IMPORT_CPU_S = 0.0\n"))
    assert any(line.startswith("gunicorn") for line in (SOURCES / "requirements.txt").read_text().splitlines())
