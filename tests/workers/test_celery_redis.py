"""Celery on a real Redis: what is seen from outside, what is concluded, and what is not."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from agent.brokers.common import Address
from agent.brokers.redis import RedisBroker
from agent.celery import remote
from agent.wire import KINDS, METRICS, event_from_json, event_to_json
from tests.workers.celery_stage import (
    PASSWORD,
    Eyes,
    RedisServer,
    celery_node,
    celery_python,
    eyes,
    free_port,
    redis_server,
)

SHOP = f"shop{os.getpid()}"
"""A name that no other service of this host has: two of one name are told apart by more than that."""

FAST = {"busy_s": 1.0, "quiet_s": 1.0}


@pytest.fixture(scope="module")
def python() -> Path:
    return celery_python()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(autouse=True)
def _empty(redis: RedisServer) -> None:
    redis.client().flushall()


@pytest.fixture(autouse=True)
def _logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No password in any log, however much is logged, by whomever."""
    caplog.set_level(logging.DEBUG)
    yield
    assert PASSWORD not in "".join(
        record.getMessage() for when in ("setup", "call") for record in caplog.get_records(when)
    )


def _is_known(status: list[dict[str, object]]) -> bool:
    return bool(status) and all(one["active"] is not None and one["queues"] for one in status)


def _assert_sound(seen: Eyes) -> None:
    """Every event is valid, every metric known, and no password is in anything that was told."""
    for event in seen.recorder.told:
        assert event.kind in KINDS
        assert event_from_json(event_to_json(event)) == event
    assert {row[0] for row in seen.recorder.rows} <= set(METRICS)
    assert PASSWORD not in repr((seen.recorder.told, seen.recorder.rows, seen.beat.status()))


async def test_queues_tasks_and_ages(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    with celery_node(python, tmp_path, redis.url(3), "-c", "2", "-n", f"{SHOP}@%h") as node:
        async with eyes(tmp_path, **FAST) as seen:
            before = (await seen.until_known(_is_known))[0]
            assert (before["service"], before["broker"]) == (SHOP, f"redis://127.0.0.1:{redis.port}/3")
            assert before["node"].startswith(f"{SHOP}@")
            assert [queue["name"] for queue in before["queues"]] == ["celery"]
            node.send("late", 60, times=14)
            node.send("late", 60, times=3, priority=9)
            busy = (await seen.until_known(lambda status: status[0]["queues"][0]["length"] == 9))[0]
            assert len(busy["active"]) == 2
            assert {task["name"] for task in busy["active"]} == {"jobs.late"}
            assert {task["acknowledged"] for task in busy["active"]} == {False}
            assert {task["pid"] for task in busy["active"]} <= set(next(iter(seen.services.services.values())).workers)
            assert (busy["reserved"], busy["unacked"]) == (6, 8)
            assert sum(busy["queues"][0]["priorities"].values()) == 9
            await seen.beats(3)
            assert seen.beat.status()[0]["queues"][0]["oldest_wait_s"] >= 2
            assert seen.recorder.told == []
            _assert_sound(seen)
    metrics = {row[0] for row in seen.recorder.rows}
    assert metrics == {name for name in METRICS if name.startswith("celery.")}


async def test_priorities_have_lists_of_their_own(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    with celery_node(python, tmp_path, redis.url(4), "-c", "1", "--prefetch-multiplier", "1") as node:
        async with eyes(tmp_path, **FAST) as seen:
            node.send("late", 60)
            await seen.until_known(lambda status: _is_known(status) and status[0]["unacked"] == 1)
            node.send("nap", 1, times=4)
            node.send("nap", 1, times=3, priority=9)
            status = await seen.until_known(lambda status: status[0]["queues"][0]["length"] == 7)
            assert status[0]["queues"][0]["priorities"] == {"0": 4, "9": 3}
            subjects = {row[3] for row in seen.recorder.rows if row[0] == "celery.queue_length"}
            assert {"celery", "celery priority 9"} <= subjects


async def test_a_task_cut_off_in_its_process(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    with celery_node(python, tmp_path, redis.url(5), "-c", "2", "-n", f"{SHOP}@%h") as node:
        async with eyes(tmp_path, **FAST) as seen:
            await seen.until_known(_is_known)
            node.send("nap", 60)
            node.send("again", 60)
            status = await seen.until_known(lambda status: len(status[0]["active"]) == 2)
            for task in status[0]["active"]:
                os.kill(task["pid"], signal.SIGKILL)
            await seen.until("celery.task_lost", count=2)
            lost = {event.attrs["task"]: event for event in seen.told("celery.task_lost")}
            causes = {event.cause for event in lost.values()}
            assert [event.kind for event in seen.seen if event.id in causes] == ["worker.exited"] * 2
            assert lost["jobs.nap"].attrs["fate"] == "lost"
            assert "acknowledged when it began" in lost["jobs.nap"].text
            assert lost["jobs.again"].attrs["fate"] == "runs_again"
            assert lost["jobs.again"].attrs["acknowledged"] is False
            await seen.until_known(lambda status: [task["name"] for task in status[0]["active"]] == ["jobs.again"])
            _assert_sound(seen)


async def test_an_idle_process_that_dies_loses_nothing(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    with celery_node(python, tmp_path, redis.url(5), "-c", "2") as node:
        async with eyes(tmp_path, **FAST) as seen:
            await seen.until_known(_is_known)
            node.send("nap", 0.1, times=4)
            await seen.beats(4)
            pids = set(next(iter(seen.services.services.values())).workers)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            await seen.beats(5)
            assert not next(iter(seen.services.services.values())).workers.keys() & pids
            assert seen.recorder.told == []


async def test_a_task_that_kills_again_and_again(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    with celery_node(python, tmp_path, redis.url(6), "-c", "1", "-n", f"{SHOP}@%h") as node:
        async with eyes(tmp_path, **FAST) as seen:
            await seen.until_known(_is_known)
            node.send("die", 4, times=5)  # more and longer than it takes: one that ends between two looks is not seen
            poison = await seen.until("celery.task_poisonous", 60)
            lost = seen.told("celery.task_lost")
            assert poison.cause == lost[2].id
            assert [item.fact.split()[1].rstrip(":") for item in poison.evidence] == [event.id for event in lost[:3]]
            assert poison.text.startswith(f"Tasks jobs.die of {SHOP} kill their processes: 3 died within")


async def test_a_dead_node_leaves_tasks_in_unacked(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    environment = {"JOBS_VISIBILITY": "7200"}
    with celery_node(python, tmp_path, redis.url(7), "-c", "2", "-n", f"{SHOP}@%h", environment=environment) as node:
        async with eyes(tmp_path, **FAST) as seen:
            await seen.until_known(_is_known)
            node.send("nap", 60)
            node.send("late", 60, times=12)
            await seen.until_known(lambda status: len(status[0]["active"]) == 2 and status[0]["reserved"] == 7)
            node.kill()
            stranded = await seen.until("celery.tasks_stranded")
            assert [event.kind for event in seen.seen if event.id == stranded.cause] == ["service.stopped"]
            assert stranded.attrs["tasks"] == redis.client(7).hlen("unacked") == 8
            assert stranded.attrs["visibility_timeout_s"] == 7200
            fates = {event.attrs["task"]: event.attrs["fate"] for event in seen.told("celery.task_lost")}
            assert fates == {"jobs.nap": "lost", "jobs.late": "waits"}
            _assert_sound(seen)


async def test_a_node_that_was_told_not_to_consume(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    with celery_node(python, tmp_path, redis.url(8), "-c", "2", "-Q", "celery,mail", "-n", f"{SHOP}@%h") as node:
        async with eyes(tmp_path, **FAST) as seen:
            await seen.until_known(_is_known)
            node.control("cancel_consumer", "mail")
            node.send("nap", 0.1, times=30, queue="mail")
            silent = await seen.until("celery.consumer_silent", 60)
            assert (silent.attrs["queue"], silent.attrs["why"], silent.attrs["length"]) == ("mail", "told_to", 30)
            node.control("add_consumer", "mail")
            back = await seen.until("celery.consumer_back", 30)
            assert back.cause == silent.id
            assert {event.kind for event in seen.recorder.told} == {"celery.consumer_silent", "celery.consumer_back"}


async def test_a_node_that_has_stopped_asking(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    (tmp_path / "deaf").touch()
    with celery_node(python, tmp_path, redis.url(9), "-c", "2", "-n", f"{SHOP}@%h") as node:
        async with eyes(tmp_path, **FAST) as seen:
            await seen.until_known(_is_known)
            (tmp_path / "deaf now").touch()
            node.send("nap", 0.1)
            began_s = time.monotonic()
            await seen.until_known(lambda status: not status[0]["active"])
            node.send("nap", 0.1, times=20)
            silent = await seen.until("celery.consumer_silent", 60)
            print(f"a silent consumer was told {time.monotonic() - began_s:.1f} s after it fell silent")
            assert silent.attrs["why"] == "no_blocked_pop"
            assert "CLIENT LIST" in {item.source for item in silent.evidence}
            assert silent.severity == "critical"


async def test_a_node_that_does_not_answer_is_unknown(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    """A stopped master pops nothing and says nothing: that alone must not be called silent."""
    with celery_node(python, tmp_path, redis.url(10), "-c", "2") as node:
        async with eyes(tmp_path, **FAST) as seen:
            await seen.until_known(_is_known)
            os.kill(node.pid, signal.SIGSTOP)
            node.send("nap", 0.1, times=20)
            await seen.beats(25)
            assert seen.beat.status()[0]["answers"] is False
            assert seen.beat.status()[0]["queues"][0]["length"] >= 19
            assert seen.told("celery.consumer_silent") == []


async def test_stuck_and_merely_long(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    with celery_node(python, tmp_path, redis.url(11), "-c", "3", "-n", f"{SHOP}@%h") as node:
        async with eyes(tmp_path, stuck_after_s=5, **FAST) as seen:
            await seen.until_known(_is_known)
            node.send("nap", 45)
            node.send("spin", 45)
            node.send("program", 45)
            stuck = await seen.until("celery.task_stuck", 60)
            assert stuck.attrs["task"] == "jobs.nap"
            assert stuck.attrs["has_stack"] is True
            assert "nap (" in stuck.text and "jobs.py:" in stuck.text
            over = await seen.until("celery.task_unstuck", 60)
            assert (over.cause, over.attrs["ended"]) == (stuck.id, True)
            await seen.beats(2)
            assert len(seen.told("celery.task_stuck")) == 1
            _assert_sound(seen)


async def test_without_py_spy_more_is_demanded(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    with celery_node(python, tmp_path, redis.url(11), "-c", "1") as node:
        async with eyes(tmp_path, py_spy=tmp_path / "no such program", stuck_after_s=5, **FAST) as seen:
            await seen.until_known(_is_known)
            node.send("nap", 100)
            stuck = await seen.until("celery.task_stuck", 90)
            assert stuck.attrs["has_stack"] is False
            assert float(stuck.attrs["flat_s"]) >= 60
            assert "its stack cannot be had" in stuck.text


async def test_a_backlog_grows_and_is_worked_off(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    with celery_node(python, tmp_path, redis.url(12), "-c", "1", "-n", f"{SHOP}@%h") as node:
        async with eyes(tmp_path, backlog_window_s=15, **FAST) as seen:
            await seen.until_known(_is_known)
            for _ in range(40):
                node.send("nap", 1, times=6)
                await seen.beats(0.8)
                if seen.told("celery.backlog"):
                    break
            backlog = await seen.until("celery.backlog", 1)
            assert backlog.attrs["queue"] == "celery"
            assert float(backlog.attrs["growth_per_s"]) > 1
            node.control("pool_grow", "2")
            redis.client(12).ltrim("celery", 0, 3)
            over = await seen.until("celery.backlog_over", 40)
            assert over.cause == backlog.id


async def test_a_broker_that_stops_answering_is_told_once_and_blocks_nobody(python: Path, tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    with (
        redis_server(tmp_path / "redis") as own,
        celery_node(python, tmp_path, own.url(), "-c", "1", "-n", f"{SHOP}@%h"),
    ):
        async with eyes(tmp_path, **FAST) as seen:
            await seen.until_known(_is_known)
            os.kill(own.process.pid, signal.SIGSTOP)
            longest_s, ends = 0.0, time.monotonic() + 20
            beats = asyncio.create_task(seen.beats(20))
            while time.monotonic() < ends and not beats.done():
                began_s = time.monotonic()
                await asyncio.sleep(0.01)
                longest_s = max(longest_s, time.monotonic() - began_s)
            await beats
            print(f"the longest pause of the agent was {longest_s * 1000:.0f} ms")
            assert longest_s < 1
            gone = seen.told("celery.broker_unreachable")
            assert len(gone) == 1
            assert gone[0].text.startswith(
                f"The broker redis://127.0.0.1:{own.port}/0 of {SHOP} does not answer within 2 s"
            )
            assert seen.beat.status()[0]["trouble"] == "does not answer within 2 s"
            os.kill(own.process.pid, signal.SIGCONT)
            back = await seen.until("celery.broker_back", 60)
            assert back.cause == gone[0].id
            await seen.until_known(lambda status: status[0]["answers"])
            assert {event.kind for event in seen.recorder.told} == {"celery.broker_unreachable", "celery.broker_back"}
            _assert_sound(seen)


async def test_a_wrong_password_is_said_without_it(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    wrong = f"redis://:{PASSWORD}-wrong@127.0.0.1:{redis.port}/0"
    environment = {"REDIS_URL": wrong}
    with celery_node(python, tmp_path, redis.url(), "-c", "1", environment=environment, hides_broker=True):
        async with eyes(tmp_path, **FAST) as seen:
            told = await seen.until("celery.broker_unreachable", 30)
            assert "does not accept the credentials" in told.text
            _assert_sound(seen)


async def test_a_unix_socket(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    with celery_node(python, tmp_path, redis.unix_url(2), "-c", "1") as node:
        async with eyes(tmp_path, **FAST) as seen:
            node.send("late", 60, times=7)
            status = await seen.until_known(lambda status: _is_known(status) and status[0]["unacked"] == 4)
            assert status[0]["broker"] == f"redis+socket://{redis.folder}/redis.sock"
            assert status[0]["queues"][0]["length"] == 3


async def test_a_broker_of_which_nothing_is_to_be_seen(python: Path, tmp_path: Path) -> None:
    """Its address is in a file that the application reads: its connections and CLIENT LIST show it."""
    (tmp_path / "redis").mkdir()
    port = free_port(range(6379, 6400))
    with (
        redis_server(tmp_path / "redis", password=None, port=port) as own,
        celery_node(python, tmp_path, own.url(6), "-c", "1", hides_broker=True) as node,
    ):
        async with eyes(tmp_path, **FAST) as seen:
            node.send("nap", 60)
            status = await seen.until_known(lambda status: _is_known(status) and status[0]["active"])
            assert status[0]["broker"] == f"redis://127.0.0.1:{port}/6"


async def test_a_broker_that_wants_a_password_nobody_shows(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    with celery_node(python, tmp_path, redis.url(), "-c", "1", hides_broker=True):
        async with eyes(tmp_path, **FAST) as seen:
            await seen.beats(4)
            assert seen.beat.status()[0]["trouble"] == "no broker can be seen from outside"
            assert seen.recorder.told == []


@pytest.mark.parametrize("pool", ["threads", "solo"])
async def test_pools_without_processes(redis: RedisServer, python: Path, tmp_path: Path, pool: str) -> None:
    with celery_node(python, tmp_path, redis.url(13), "-P", pool, "-c", "2", "-n", f"{SHOP}@%h") as node:
        async with eyes(tmp_path, stuck_after_s=2, **FAST) as seen:
            status = await seen.until_known(_is_known)
            assert status[0]["node"].startswith(f"{SHOP}@")
            node.send("nap", 12)
            await seen.until_known(
                lambda status: status[0]["active"] if pool == "threads" else not status[0]["answers"]
            )
            await seen.beats(4)
            await seen.until_known(lambda status: status[0]["answers"] and status[0]["active"] == [])
            assert seen.recorder.told == []


async def test_two_nodes_two_brokers_one_host(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    shop, mail = ("-c", "1", "-n", f"{SHOP}@%h", "-Q", "orders"), ("-c", "1", "-n", f"{SHOP}mail@%h", "-Q", "mails")
    other = ("-c", "1", "-n", f"{SHOP}books@%h", "-Q", "orders")
    with (
        celery_node(python, tmp_path, redis.url(14), *shop) as one,
        celery_node(python, tmp_path, redis.url(14), *mail),
        celery_node(python, tmp_path, redis.url(15), *other),
    ):
        async with eyes(tmp_path, **FAST) as seen:
            one.send("nap", 60, times=3, queue="orders")
            status = await seen.until_known(
                lambda status: len(status) == 3 and _is_known(status) and any(one["active"] for one in status)
            )
            by_name = {one["service"]: one for one in status}
            assert {name: len(one["active"]) for name, one in by_name.items()} == {
                SHOP: 1,
                f"{SHOP}mail": 0,
                f"{SHOP}books": 0,
            }
            assert [queue["name"] for queue in by_name[f"{SHOP}mail"]["queues"]] == ["mails"]
            assert by_name[f"{SHOP}books"]["queues"][0]["length"] == 0


async def test_nothing_is_left_behind(
    redis: RedisServer, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that the agent names on a broker, by marks of its own: other agents may look at this Redis, too."""
    numbers = count()
    monkeypatch.setattr(remote, "uuid4", lambda: f"mark-{SHOP}-{next(numbers)}")

    def marked() -> list[bytes]:
        client = redis.client(1)
        found = [*client.scan_iter(), *client.smembers("_kombu.binding.reply.celery.pidbox")]
        return [name for name in found if SHOP.encode() in name]

    with celery_node(python, tmp_path, redis.url(1), "-c", "1"):
        async with eyes(tmp_path, **FAST) as seen:
            await seen.until_known(_is_known)
            assert marked()
        assert not marked()


def test_names_of_queues_from_the_bindings(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    with celery_node(python, tmp_path, redis.url(2), "-c", "1", "-Q", "orders,mails"):
        broker = RedisBroker(Address(redis.url(2)))
        assert broker.queue_names() == ("mails", "orders")
        broker.close()


async def test_an_address_that_is_not_the_brokers(redis: RedisServer, python: Path, tmp_path: Path) -> None:
    """The environment has two that may be it: the node is looked for on the one, found on the other."""
    environment = {"OTHER_BROKER": redis.url(4), "REDIS_URL": redis.url(5)}
    with celery_node(python, tmp_path, redis.url(5), "-c", "1", environment=environment, hides_broker=True):
        async with eyes(tmp_path, **FAST) as seen:
            status = await seen.until_known(_is_known, 60)
            assert status[0]["broker"] == f"redis://127.0.0.1:{redis.port}/5"
            assert seen.recorder.told == []
