"""What shedding does and says: a real spool, and costs as a test wants them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent.budget import LEVELS, MIB, Cost, Limits
from agent.clock import Clock
from agent.reporter import Reporter
from agent.shedding import IDLE_READINGS_S, SheddableReporter, Shedding
from agent.spool import Spool

CALM = Cost(0.3, 45 * MIB)
BUSY = Cost(9.0, 45 * MIB)
SWOLLEN = Cost(0.3, 150 * MIB)


@dataclass(slots=True)
class Beat:
    """Stands for the readings of processes."""

    period_s: float = 1.0


class Told:
    """An agent that costs what a test says, and what is in its spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._reporter = Reporter(spool, Clock())
        self.shedding = Shedding(Limits(3.0, 128 * MIB), self._reporter, "web-3")
        self.readings = SheddableReporter(spool, Clock(), self.shedding.wants_readings)
        self.queues = SheddableReporter(spool, Clock(), self.shedding.wants_queues)
        self.beat = Beat()
        self._at_s = 0.0

    def spends(self, cost: Cost, seconds: float) -> None:
        """A look every ten seconds."""
        until_s = self._at_s + seconds
        while self._at_s < until_s:
            self._at_s += 10
            self.shedding.look(self._at_s, cost, self.beat)

    def events(self) -> list[dict[str, Any]]:
        """The events in the spool, oldest first."""
        return [orjson.loads(payload) for _, payload in self._spool.next_batch(1000, 10**6).events]

    def metrics(self) -> set[str]:
        """Of what there are samples in the spool; they are forgotten then."""
        samples = self._spool.next_batch(1000, 10**6).samples
        self._spool.ack(events=None, samples=samples[-1][0] if samples else None)
        return {orjson.loads(payload)["metric"] for _, payload in samples}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Told]:
    spool = Spool.open(tmp_path / "spool", 10**8)
    yield Told(spool)
    spool.close()


def test_each_level_sets_the_readings_and_lets_samples_through_or_not(agent: Told) -> None:
    for number, level in enumerate(LEVELS):
        assert agent.shedding.status()["level"] == number
        agent.spends(BUSY if number else CALM, 10 if number else 20)
        assert agent.beat.period_s == (level.readings_s or IDLE_READINGS_S)
        agent.metrics()
        agent.readings.sample("worker.threads", 1)
        agent.queues.sample("queue.limit", 1)
        wanted = {"worker.threads"} if level.readings_s else set()
        assert agent.metrics() == wanted | ({"queue.limit"} if level.queues else set())
        agent.spends(BUSY, 30 if not number else 20)


def test_the_level_is_sampled_even_when_nothing_else_is(agent: Told) -> None:
    agent.spends(BUSY, 400)
    agent.metrics()
    agent.spends(BUSY, 10)
    assert agent.metrics() == {"agent.shed_level"}


def test_events_go_on_every_level(agent: Told) -> None:
    agent.spends(BUSY, 400)
    agent.readings.about_agent("agent.started", "The agent started.")
    assert agent.events()[-1]["kind"] == "agent.started"


def test_the_way_down_and_back_is_one_story(agent: Told) -> None:
    agent.spends(BUSY, 70)
    agent.spends(CALM, 400)
    first, second, better, ended = agent.events()
    assert first["text"] == (
        "The agent on web-3 is over its own budget (9 % of a core, 3 % allowed; 45 MiB of memory, 128 allowed) and samples "
        "less: accept queues, and processes every 2 s. Events go on."
    )
    assert second["text"].endswith("samples less: accept queues, and processes every 5 s. Events go on.")
    assert better["text"] == (
        "The agent on web-3 was well within its own budget for 120 s (0.3 % of a core, 3 % allowed; 45 MiB of memory, 128 "
        "allowed) and samples more again: accept queues, and processes every 2 s."
    )
    assert ended["text"].endswith("and samples everything again.")
    assert [event["kind"] for event in (first, second, better, ended)] == [
        *["agent.shedding"] * 3,
        "agent.shedding_ended",
    ]
    assert [event["severity"] for event in (first, second, better, ended)] == ["warning", "warning", "info", "info"]
    assert [event["cause"] for event in (first, second, better, ended)] == [None, *[first["id"]] * 3]
    assert second["attrs"] == {
        "level": 2,
        "level_before": 1,
        "samples": "accept queues, and processes every 5 s",
        "over": "cpu",
        "cpu_percent": 9.0,
        "cpu_budget_percent": 3.0,
        "rss_bytes": 45 * MIB,
        "memory_budget_bytes": 128 * MIB,
    }


def test_memory_that_stays_over_the_budget_is_critical(agent: Told) -> None:
    agent.spends(SWOLLEN, 1000)
    (alarm,) = [event for event in agent.events() if event["kind"] == "agent.over_budget"]
    assert alarm["severity"] == "critical"
    assert "over its own budget for 300 s" in alarm["text"]
    assert alarm["text"].endswith("restart the agent: its spool keeps what is not sent.")
    assert alarm["cause"] == agent.events()[0]["id"]


def test_free_memory_is_given_back_once(agent: Told) -> None:
    agent.spends(SWOLLEN, 100)
    assert [event["text"].endswith("It gave free memory back to the system.") for event in agent.events()] == [
        True,
        False,
        False,
    ]


def test_cpu_that_stays_over_the_budget_is_a_warning(agent: Told) -> None:
    agent.spends(BUSY, 1000)
    (alarm,) = [event for event in agent.events() if event["kind"] == "agent.over_budget"]
    assert (alarm["severity"], alarm["attrs"]["samples"]) == ("warning", "nothing but its own cost")


def test_the_status_has_the_budget(agent: Told) -> None:
    agent.spends(BUSY, 40)
    assert agent.shedding.status() == {
        "level": 1,
        "samples": "accept queues, and processes every 2 s",
        "cpu_percent": 3.0,
        "mean_cpu_percent": 9.0,
        "rss_bytes": 128 * MIB,
    }
