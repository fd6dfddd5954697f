"""Artifacts over a real server: stored once, read by operators only, bounded, and forgotten when their time is up."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest

from agent.wire import MAX_ARTIFACT_BYTES, Artifact, WorkerRef, uuid7
from server.errors import StoreError
from server.store.artifacts import ArtifactTable
from server.store.database import open_embedded
from server.store.migrate import migrate, read_schema
from server.stored import StoredArtifact

DAY_US = 86_400_000_000
WORKER = {"slot": 2, "generation": 1, "pid": 4121, "start_ticks": 81234}


def make(**other: Any) -> dict[str, Any]:
    ts_us = other.get("ts_us", time.time_ns() // 1000)
    content = {"why": "it is 86 % full", "threads": [{"name": "MainThread", "calls": ["report (shop/app.py:47)"]}]}
    return {
        "id": uuid7(ts_us, secrets.randbits(62)),
        "ts_us": ts_us,
        "kind": "snapshot",
        "service": "shop-web",
        "worker": WORKER,
        "release": "v7",
        "content": content,
        **other,
    }


def numbered(agent: Any, *artifacts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"seq": one["seq"], "artifact": one["event"]} for one in agent.number(artifacts)]


async def test_an_artifact_comes_back_as_it_was_sent(api: Any, agent: Any) -> None:
    artifact = make()
    status, answer = await agent.post(agent.batch(artifacts=numbered(agent, artifact)))
    assert (status, answer["acked"]) == (200, {"events": None, "samples": None, "artifacts": 1})
    status, found = await api.get(f"/v1/artifacts/{artifact['id']}")
    assert status == 200
    assert found.pop("host") == agent.host
    assert found.pop("ts").endswith("Z")
    assert found == artifact


async def test_a_second_sending_changes_nothing(api: Any, agent: Any) -> None:
    artifact = make()
    records = numbered(agent, artifact)
    changed = [{"seq": records[0]["seq"], "artifact": {**artifact, "content": {"why": "another"}}}]
    for body in (agent.batch(artifacts=records), agent.batch(artifacts=records), agent.batch(artifacts=changed)):
        status, answer = await agent.post(body)
        assert (status, answer["rejected"]) == (200, [])
    assert (await api.get(f"/v1/artifacts/{artifact['id']}"))[1]["content"] == artifact["content"]


async def test_it_is_there_when_its_event_is(api: Any, agent: Any, make_event: Any) -> None:
    for _ in range(5):
        artifact = make()
        event = make_event(id=artifact["id"], kind="worker.snapshot", attrs={"artifact": artifact["id"]})
        body = agent.batch(agent.number([event]), artifacts=numbered(agent, artifact))
        sending = asyncio.create_task(agent.post(body))
        while (await api.get(f"/v1/events/{event['id']}"))[0] != 200:
            await asyncio.sleep(0)
        assert (await api.get(f"/v1/artifacts/{artifact['id']}"))[0] == 200
        assert (await sending)[0] == 200


@pytest.mark.parametrize(
    ("other", "error"),
    [
        ({"kind": "heap"}, "kind: unknown kind 'heap'; docs/snapshots.md lists them"),
        ({"content": "text"}, "content: must be an object, not str"),
        ({"content": {"a": "x" * MAX_ARTIFACT_BYTES}}, f"content: has {MAX_ARTIFACT_BYTES + 8} bytes; the limit is"),
        ({"id": "7"}, "id: must be a UUID, not '7'"),
        ({"ts_us": 1}, "ts_us: only times from 31 days back to one day ahead are taken"),
        ({"worker": {"slot": -1}}, "worker.slot: must be a whole number"),
    ],
)
async def test_a_bad_one_is_rejected_alone(api: Any, agent: Any, other: dict[str, Any], error: str) -> None:
    good, bad = make(), {**make(), **other}
    status, answer = await agent.post(agent.batch(artifacts=numbered(agent, bad, good)))
    assert (status, answer["acked"]["artifacts"]) == (200, 2)
    (rejected,) = answer["rejected"]
    assert (rejected["stream"], rejected["seq"]) == ("artifacts", 1)
    assert rejected["error"].startswith(error)
    assert (await api.get(f"/v1/artifacts/{good['id']}"))[0] == 200


async def test_content_that_is_nested_too_deeply(agent: Any) -> None:
    depth = 400
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    plain = orjson.dumps(agent.batch(artifacts=numbered(agent, make(content={"here": 0}))))
    status, answer = await agent.post(plain.replace(b'{"here":0}', deep))
    assert status == 200
    assert answer["rejected"][0]["error"] == "content: is nested too deeply"


async def test_the_largest_that_is_taken(api: Any, agent: Any) -> None:
    content = {"a": "x" * (MAX_ARTIFACT_BYTES - len('{"a":""}'))}
    artifact = make(content=content)
    assert (await agent.post(agent.batch(artifacts=numbered(agent, artifact))))[1]["rejected"] == []
    assert (await api.get(f"/v1/artifacts/{artifact['id']}"))[1]["content"] == content


async def test_who_may_read_and_what_is_not_there(api: Any, agent: Any) -> None:
    artifact = make()
    await agent.post(agent.batch(artifacts=numbered(agent, artifact)))
    async with agent.http.get(f"{api.base}/v1/artifacts/{artifact['id']}") as answer:
        assert answer.status == 401
    host = {"Authorization": f"Bearer {agent.key}"}
    async with agent.http.get(f"{api.base}/v1/artifacts/{artifact['id']}", headers=host) as answer:
        assert answer.status == 401
    status, answer = await api.get(f"/v1/artifacts/{uuid4()}")
    assert (status, answer["error"]["code"]) == (404, "not_found")
    assert "32 days" in answer["error"]["message"]
    assert (await api.get("/v1/artifacts/seven"))[0] == 400


async def test_they_outlive_kill_9(own_server: Any, connect: Any) -> None:
    server = own_server()
    _, agent = connect(server, "web-3")
    artifacts = [make() for _ in range(20)]
    for artifact in artifacts:
        assert (await agent.post(agent.batch(artifacts=numbered(agent, artifact))))[0] == 200
    server.kill()
    server.start()
    agent.base = server.base
    for artifact in artifacts:  # what was not acknowledged is sent again, here with all that was
        assert (await agent.post(agent.batch(artifacts=numbered(agent, artifact))))[0] == 200
    for artifact in artifacts:
        async with agent.http.get(
            f"{server.base}/v1/artifacts/{artifact['id']}", headers={"Authorization": f"Bearer {server.token}"}
        ) as answer:
            assert (await answer.json())["content"] == artifact["content"]


def test_the_store_forgets_them_after_their_time(tmp_path: Path) -> None:
    now_us = time.time_ns() // 1000

    async def live() -> None:
        database = await open_embedded(tmp_path / "store", memory_bytes=1 << 30)
        await migrate(database, read_schema())
        table = ArtifactTable(database)
        old, young = (
            StoredArtifact(
                "web-3", Artifact(str(uuid4()), ts_us, "snapshot", b'{"a":1}', "shop", WorkerRef(0, 1, 2, 3), "v7")
            )
            for ts_us in (now_us - 45 * DAY_US, now_us)
        )
        await table.insert([young])
        with suppress(StoreError):  # it may be gone before it can be read back
            await table.insert([old])
        await database.define("OPTIMIZE TABLE artifacts FINAL")
        assert await table.by_id(old.artifact.id) is None
        assert await table.by_id(young.artifact.id) == young
        assert await table.stored_ids([old.artifact.id, young.artifact.id]) == {young.artifact.id}
        await database.close()

    asyncio.run(live())
