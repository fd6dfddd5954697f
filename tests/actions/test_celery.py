"""Acts upon a real Celery node on a real Redis, asked for by the API, carried out by a real agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.brokers.common import Address
from agent.celery.hands import _ask, _opened
from agent.procfs import ProcFs
from demo.stage import Stage
from tests.workers.celery_stage import PASSWORD, CeleryNode, celery_node, celery_python, redis_server


async def known_as(stage: Stage, node: CeleryNode) -> str:
    """The name under which the server knows the node's service."""

    async def found() -> str | None:
        hosts = (await stage.get("/v1/hosts"))["hosts"]
        services = [s for host in hosts for s in host["status"].get("services", [])]
        return next((s["name"] for s in services if s["master_pid"] == node.pid and s["workers"]), None)

    name: str = await stage.until(found, "the node is not known", within_s=60)
    return name


async def test_a_node_is_asked_by_remote_control_and_shut_down_warmly(stage: Stage, site: Any, tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis:
        words = ("-c", "2", "-Q", "mail,celery", "-n", "acts@box")
        with celery_node(celery_python(), tmp_path, redis.url(3), *words) as node:
            site.name = await known_as(stage, node)
            address = Address(redis.url(3))

            def asked(question: str) -> Any:
                with _opened(address) as broker:
                    return _ask(broker, {question: {}}, ["acts@box"], 5.0)["acts@box"][question]

            def queues() -> set[str]:
                return {queue["name"] for queue in asked("active_queues")}

            async def cancelled() -> dict[str, Any] | None:
                """The agent has to have found the node at its broker first."""
                outcome: dict[str, Any] = await site.act("celery.cancel_consumer", params={"queue": "mail"})
                return outcome if outcome["kind"] == "action.done" else None

            assert await stage.until(cancelled, "the node is never asked", within_s=60)
            assert queues() == {"celery"}
            assert (await site.act("celery.add_consumer", params={"queue": "mail"}))["kind"] == "action.done"
            assert queues() == {"celery", "mail"}
            assert (await site.act("celery.grow", params={"by": 2}))["kind"] == "action.done"
            assert len(asked("stats")["pool"]["processes"]) == 4
            assert (await site.act("celery.shrink", params={"by": 1}))["kind"] == "action.done"

            async def has_three() -> bool:
                """The pool counts a process that has ended until it has waited for it."""
                return len(asked("stats")["pool"]["processes"]) == 3

            assert await stage.until(has_three, "the pool does not come to three processes")
            target = {"pid": node.pid, "start_ticks": ProcFs().start_ticks(node.pid)}
            done = await site.act("celery.warm_shutdown", target=target)
            assert done["kind"] == "action.done", done["text"]
            assert node.process.poll() == 0
            told = [event["text"] for event in await stage.events(kind="action.*")]
            assert PASSWORD not in repr(told)
