"""Tasks put aside and given back on a real Redis with real nodes: none lost, none twice, and nothing where something is not known."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.brokers.common import Address
from agent.celery.beat import CeleryBeat, Place
from agent.celery.hands import CannotAsk, CeleryHands
from tests.workers.celery_stage import CeleryNode, RedisServer, celery_node, celery_python, redis_server, wait_until

SETTLED_S = 5.5


def hands(redis: RedisServer, node: str, *queues: str) -> CeleryHands:
    """Hands that know one place."""
    place = Place(Address(redis.url()), node, queues or ("celery",))
    return CeleryHands(cast(CeleryBeat, SimpleNamespace(place_of=lambda _service: place)))


def fetches(redis: RedisServer, count: int) -> None:
    wait_until(lambda: redis.client().hlen("unacked") == count, f"{count} are fetched")


async def test_what_a_dead_node_had_fetched_goes_back_once_and_what_a_living_one_holds_stays(tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis:
        words = ("-c", "1", "--prefetch-multiplier", "3", "--without-mingle", "--without-gossip")
        with celery_node(celery_python(), tmp_path, redis.url(), *words, "-n", "alive@box") as alive:
            alive.send("late", 600, times=3)
            fetches(redis, 3)
            with celery_node(celery_python(), tmp_path, redis.url(), *words, "-n", "dead@box") as dead:
                dead.send("late", 600, times=3)
                fetches(redis, 6)
                dead.kill()
                await asyncio.sleep(SETTLED_S)
            before = redis.client().hlen("unacked")
            assert before == 6
            work = hands(redis, "dead@box")
            said = await asyncio.gather(
                work.give_back("jobs", is_alive=False), work.give_back("jobs", is_alive=False), return_exceptions=True
            )
            assert sum(str(one).startswith("3 tasks") for one in said) >= 1, said
            assert redis.client().llen("celery") == 3
            assert redis.client().hlen("unacked") == 3
            assert "0 tasks" in await work.give_back("jobs", is_alive=False)


async def test_nothing_is_given_back_while_a_node_does_not_answer(tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis:
        words = ("-c", "1", "--prefetch-multiplier", "2", "--without-mingle", "--without-gossip")
        with (
            celery_node(celery_python(), tmp_path, redis.url(), *words, "-n", "mute@box") as mute,
            celery_node(celery_python(), tmp_path, redis.url(), *words, "-n", "dead@box") as dead,
        ):
            dead.send("late", 600, times=4)
            fetches(redis, 4)
            with pytest.raises(CannotAsk, match="dead@box answers, so it is alive"):
                await hands(redis, "dead@box").give_back("jobs", is_alive=False)
            os.kill(mute.pid, signal.SIGSTOP)
            dead.kill()
            await asyncio.sleep(SETTLED_S)
            with pytest.raises(CannotAsk, match="mute@box is known to the broker and does not answer"):
                await hands(redis, "dead@box").give_back("jobs", is_alive=False)
            assert (redis.client().hlen("unacked"), redis.client().llen("celery")) == (4, 0)
            os.kill(mute.pid, signal.SIGCONT)


def _waiting(redis: RedisServer) -> dict[str, int]:
    names = ("celery", "reflex.quarantine.celery")
    return {name: redis.client().llen(name) for name in names}


async def test_tasks_of_a_name_are_put_aside_and_others_stay(tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis:
        words = ("-c", "1", "--prefetch-multiplier", "2", "--without-mingle", "-n", "one@box")
        with celery_node(celery_python(), tmp_path, redis.url(), *words) as node:
            node.send("late", 20)
            fetches(redis, 1)
            node.send("die", 1)  # fetched and not begun
            fetches(redis, 2)
            node.send("die", 1, times=700)
            node.send("nap", 0, times=30)
            assert _waiting(redis)["celery"] == 730
            said = await hands(redis, "one@box").put_aside("jobs", "jobs.die")
            assert said.startswith("700 waiting tasks named jobs.die were put aside")
            assert "and 1 that one@box had fetched and not begun" in said
            assert _waiting(redis) == {"celery": 30, "reflex.quarantine.celery": 701}
            assert "0 waiting tasks" in await hands(redis, "one@box").put_aside("jobs", "jobs.die")
            wait_until(lambda: _is_idle(redis), "the others are done", seconds=60)
            assert _died(node) == 0, "what was fetched was dropped before it began"


def _is_idle(redis: RedisServer) -> Any:
    return redis.client().hlen("unacked") == 0 and redis.client().llen("celery") == 0


def _died(node: CeleryNode) -> int:
    return node.log.read_text().count("exited prematurely")


async def test_a_node_that_was_never_seen_cannot_be_asked() -> None:
    work = CeleryHands(cast(CeleryBeat, SimpleNamespace(place_of=lambda _service: None)))
    with pytest.raises(CannotAsk, match="the node of jobs has not answered its broker yet"):
        await work.give_back("jobs", is_alive=False)
