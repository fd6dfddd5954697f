"""Celery on a real RabbitMQ: what is seen from outside, with the management API and without."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.brokers import rabbitmq
from agent.brokers.common import Address, BrokerTrouble
from agent.brokers.rabbitmq import RabbitBroker
from tests.workers.celery_stage import (
    PASSWORD,
    RabbitServer,
    celery_node,
    celery_python,
    eyes,
    rabbit_server,
    wait_until,
)

FAST = {"busy_s": 1.0, "quiet_s": 1.0}


@pytest.fixture(scope="module")
def python() -> Path:
    return celery_python()


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    with rabbit_server(tmp_path_factory.mktemp("rabbit")) as server:
        yield server


@pytest.fixture
def vhost(rabbit: RabbitServer, tmp_path: Path) -> Iterator[str]:
    """A virtual host for one test."""
    name = tmp_path.name
    rabbit.ctl("add_vhost", name)
    rabbit.ctl("set_permissions", "-p", name, "shop", ".*", ".*", ".*")
    yield name
    rabbit.ctl("delete_vhost", name)


def _is_known(status: list[dict[str, object]]) -> bool:
    return bool(status) and all(one["active"] is not None and one["queues"] for one in status)


async def test_queues_tasks_and_a_dead_node(rabbit: RabbitServer, vhost: str, python: Path, tmp_path: Path) -> None:
    with celery_node(python, tmp_path, rabbit.url(vhost), "-c", "2", "-n", "shop@%h") as node:
        async with eyes(tmp_path, **FAST) as seen:
            await seen.until_known(_is_known)
            node.send("late", 60, times=20)
            busy = (await seen.until_known(lambda status: status[0]["queues"][0]["length"] == 12))[0]
            assert busy["broker"] == f"amqp://127.0.0.1:{rabbit.port}/{vhost}"
            assert (len(busy["active"]), busy["reserved"], busy["queues"][0]["consumers"]) == (2, 6, 1)
            if rabbit.has_management:
                await seen.until_known(lambda status: status[0]["queues"][0]["unacked"] == 8)
            node.kill()
            stranded = await seen.until("celery.tasks_stranded")
            assert stranded.attrs["tasks"] == 8
            assert stranded.text.endswith("hands them to other nodes at once.")
            assert {event.attrs["fate"] for event in seen.told("celery.task_lost")} == {"runs_again"}
            assert PASSWORD not in repr((seen.recorder.told, seen.recorder.rows, seen.beat.status()))


async def test_a_task_cut_off(rabbit: RabbitServer, vhost: str, python: Path, tmp_path: Path) -> None:
    with celery_node(python, tmp_path, rabbit.url(vhost), "-c", "1", "-n", "shop@%h") as node:
        async with eyes(tmp_path, **FAST) as seen:
            await seen.until_known(_is_known)
            node.send("nap", 60)
            status = await seen.until_known(lambda status: status[0]["active"])
            os.kill(status[0]["active"][0]["pid"], signal.SIGKILL)
            lost = await seen.until("celery.task_lost")
            assert lost.attrs["fate"] == "lost"


async def test_a_queue_without_a_reader(rabbit: RabbitServer, vhost: str, python: Path, tmp_path: Path) -> None:
    with celery_node(python, tmp_path, rabbit.url(vhost), "-c", "1", "-Q", "celery,mail", "-n", "shop@%h") as node:
        async with eyes(tmp_path, **FAST) as seen:
            await seen.until_known(_is_known)
            node.control("cancel_consumer", "mail")
            node.send("nap", 0.1, times=9, queue="mail")
            silent = await seen.until("celery.consumer_silent", 60)
            assert "mail has 0 consumers" in {item.fact for item in silent.evidence}
            node.control("add_consumer", "mail")
            back = await seen.until("celery.consumer_back", 30)
            assert back.cause == silent.id


def test_the_management_api_lists_queues(rabbit: RabbitServer, vhost: str, python: Path, tmp_path: Path) -> None:
    if not rabbit.has_management:
        pytest.skip("its port is taken")
    with celery_node(python, tmp_path, rabbit.url(vhost), "-c", "1", "-Q", "orders,mails"):
        broker = RabbitBroker(Address(rabbit.url(vhost)))
        assert broker.queue_names() == ("mails", "orders")
        broker.close()


def test_without_the_management_api(
    rabbit: RabbitServer, vhost: str, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq, "_MANAGEMENT_PORT", 9)
    with celery_node(python, tmp_path, rabbit.url(vhost), "-c", "1") as node:
        node.send("late", 60, times=7)
        broker = RabbitBroker(Address(rabbit.url(vhost)))
        wait_until(lambda: broker.look(["celery"]).queues["celery"].length == 3, "three tasks that wait")
        look = broker.look(["celery", "there is no such queue"])
        assert set(look.queues) == {"celery"}
        assert (look.queues["celery"].consumers, look.queues["celery"].unacked, look.unacked) == (1, None, None)
        assert broker.queue_names() == ()
        broker.close()


def test_a_wrong_password(rabbit: RabbitServer) -> None:
    with pytest.raises(BrokerTrouble, match="does not accept the credentials") as found:
        RabbitBroker(Address(rabbit.url().replace(PASSWORD, f"{PASSWORD}-wrong")))
    assert PASSWORD not in repr(found.value)
    with pytest.raises(BrokerTrouble, match="does not accept the credentials, or not for this virtual host"):
        RabbitBroker(Address(rabbit.url("nobody-has-made-this")))
