"""Playbooks in a real server: a host's fact in, a signed command out, its outcome in; over kill -9, approvals and the kill switch."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from agent.wire import Command, command_from_json, is_signed

HOST, SERVICE = "web-1", "shop-web"
WITHIN_S = 20
WORKER = {"slot": 0, "generation": 1, "pid": 4121, "start_ticks": 81234}
STATUS = {
    "services": [
        {"name": SERVICE, "kind": "gunicorn", "master_pid": 4100, "workers": [{"pid": 4121, "start_ticks": 81234}]}
    ]
}
BOOK = """
name: after-oom
title: replace all workers after an OOM kill
on:
  - event: worker.oom_killed
if: service.kind == "gunicorn"
steps:
  - action: gunicorn.rotate
    timeout: 30s
verify:
  within: 30s
  expect:
    - event: worker.ready
else:
  - action: notify
    with: {text: "{{ service.name }} is not well. {{ run.trouble }}"}
limits: {cooldown: 1s, per_hour: 100, fleet_per_hour: 100}
mode: armed
"""
Make = Callable[..., dict[str, Any]]


class Channel:
    """The agent's WebSocket: what comes over it, checked as an agent does."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, key: str) -> None:
        self._socket = socket
        self._hash = hashlib.sha256(key.encode()).hexdigest()

    async def command(self, within_s: float = WITHIN_S) -> Command:
        """The next one."""
        said = orjson.loads((await self._socket.receive(timeout=within_s)).data)
        command = command_from_json(said["command"])
        assert is_signed(command, said["signature"], self._hash)
        return command


@asynccontextmanager
async def channel(agent: Any) -> AsyncIterator[Channel]:
    """Listens for commands as the agent of its host."""
    headers = {"Authorization": f"Bearer {agent.key}"}
    async with agent.http.ws_connect(f"{agent.base}/v1/commands", headers=headers) as socket:
        yield Channel(socket, agent.key)


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """The operator's folder of playbooks."""
    folder = tmp_path / "playbooks"
    folder.mkdir()
    (folder / "after-oom.yaml").write_text(BOOK)
    return folder


@pytest.fixture
async def place(own_server: Any, connect: Any, books: Path, tmp_path: Path) -> tuple[Any, Any, Any]:
    """A server with the playbooks, its operator, and an agent that has told what runs on its host."""
    server = own_server("--playbooks", str(books), "--channels", str(tmp_path / "channels.toml"))
    api, agent = connect(server, HOST)
    assert (await agent.post(agent.batch(status=STATUS)))[0] == 200
    return server, api, agent


async def say(api: Any, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    async with api.http.request(method, api.base + path, json=body, headers=api.headers) as answer:
        return answer.status, await answer.json()


async def told(api: Any, kind: str) -> dict[str, Any]:
    """The first event of a kind, apart from what the library's playbooks would have done."""
    ends_s = time.monotonic() + WITHIN_S
    while time.monotonic() < ends_s:
        found = [one for one in (await api.timeline(kind=kind))["events"] if _is_own(one)]
        if found:
            return dict(found[-1])
        await asyncio.sleep(0.05)
    raise AssertionError(f"no {kind}; there is {[one['text'] for one in (await api.timeline())['events']]}")


def _is_own(event: dict[str, Any]) -> bool:
    return not event["attrs"].get("playbook", "").startswith(("gunicorn-", "celery-", "uwsgi-"))


def fact(make_event: Make, kind: str = "worker.oom_killed", **other: Any) -> dict[str, Any]:
    return make_event(kind=kind, service=SERVICE, worker=WORKER, **other)


def outcome(make_event: Make, command: Command, kind: str = "action.done", **attrs: Any) -> dict[str, Any]:
    attrs = {"command": command.id, "run": command.run, "action": command.action, "took_ms": 5.0, **attrs}
    return make_event(kind=kind, service=SERVICE, cause=command.cause, attrs=attrs, text=f"{command.action} {kind}.")


async def test_a_fact_becomes_a_command_and_its_outcome_a_recovery(place: Any, make_event: Make) -> None:
    _, api, agent = place
    killed = fact(make_event)
    async with channel(agent) as commands:
        await agent.send(killed)
        command = await commands.command()
        assert (command.action, command.host, command.service) == ("gunicorn.rotate", HOST, SERVICE)
        done = outcome(make_event, command)
        await agent.send(done)
        await agent.send(fact(make_event, "worker.ready"))
        verified = await told(api, "playbook.verified")
    chain = (await api.get(f"/v1/chain/{killed['id']}"))[1]
    kinds = [event["kind"] for event in chain["events"] if _is_own(event)]
    assert kinds == ["worker.oom_killed", "playbook.started", "playbook.step", "action.done", "playbook.verified"]
    assert verified["cause"] == done["id"]
    assert verified["attrs"]["took_ms"] < 10_000
    assert all(event["evidence"] for event in chain["events"] if event["kind"].startswith("playbook."))


async def test_a_run_goes_on_after_kill_9_and_no_command_is_another(place: Any, make_event: Make) -> None:
    server, api, agent = place
    await agent.send(fact(make_event))
    async with channel(agent) as commands:
        first = await commands.command()
    for _ in range(3):
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        agent.base = api.base = server.base
        async with channel(agent) as commands:
            assert await commands.command() == first
    await agent.send(outcome(make_event, first))
    await agent.send(fact(make_event, "worker.ready"))
    await told(api, "playbook.verified")
    await told(api, "playbook.started")
    await told(api, "playbook.step")
    assert len((await api.timeline(kind="playbook.started"))["events"]) == 1
    assert len((await api.timeline(kind="playbook.step"))["events"]) == 1
    assert (await api.get("/v1/runs"))[1] == {"runs": []}


async def test_what_came_while_no_brain_was_there_is_answered_once(place: Any, make_event: Make) -> None:
    """The batch is acknowledged, so it must count, whenever the server was killed after that."""
    server, api, agent = place
    for round_ in range(4):
        await agent.send(fact(make_event))
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        agent.base = api.base = server.base
        async with channel(agent) as commands:
            command = await commands.command()
            await agent.send(outcome(make_event, command))
            await agent.send(fact(make_event, "worker.ready"))
            ends_s = time.monotonic() + WITHIN_S
            while len((await api.timeline(kind="playbook.verified"))["events"]) <= round_:
                assert time.monotonic() < ends_s
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.1)  # the cooldown
    assert len((await api.timeline(kind="playbook.started"))["events"]) == 4


async def test_shadow_says_and_arming_is_kept_over_a_restart(place: Any, make_event: Make) -> None:
    server, api, agent = place
    status, answer = await say(api, "PUT", "/v1/playbooks/after-oom/mode", {"mode": "shadow"})
    assert (status, answer["mode"], answer["file_mode"]) == (200, "shadow", "armed")
    assert server.stop() == 0
    await asyncio.to_thread(server.start)
    agent.base = api.base = server.base
    await agent.send(fact(make_event))
    would = await told(api, "playbook.would_run")
    assert "it would have done gunicorn.rotate" in would["text"]
    assert (await say(api, "PUT", "/v1/playbooks/after-oom/mode", {"mode": "loud"}))[0] == 400
    assert (await say(api, "PUT", "/v1/playbooks/nothing/mode", {"mode": "off"}))[0] == 404
    assert (await say(api, "PUT", "/v1/playbooks/after-oom/mode", {"mode": None}))[1]["mode"] == "armed"


async def test_the_kill_switch_cancels_and_holds_back(place: Any, make_event: Make) -> None:
    _, api, agent = place
    await agent.send(fact(make_event))
    await told(api, "playbook.step")
    status, answer = await say(api, "PUT", "/v1/stop", {"stop": True})
    assert (status, [one["kind"] for one in answer["told"]]) == (200, ["playbook.cancelled"])
    assert answer["stopped_by"].startswith("operator ")
    await agent.send(fact(make_event))
    assert (await told(api, "playbook.skipped"))["attrs"]["reason"] == "killed"
    status, answer = await say(api, "POST", "/v1/playbooks/after-oom/run", {"host": HOST, "service": SERVICE})
    assert status == 409
    assert "has stopped all playbooks" in answer["error"]["message"]
    assert (await say(api, "PUT", "/v1/stop", {"stop": False}))[1]["stopped_by"] is None


async def test_a_run_waits_for_its_approval(place: Any, books: Path, make_event: Make) -> None:
    _, api, agent = place
    (books / "asking.yaml").write_text(
        BOOK.replace("after-oom", "asking").replace("worker.oom_killed", "worker.stuck") + "approval: {within: 10m}\n"
    )
    await until_known(api, "asking")
    await agent.send(fact(make_event, "worker.stuck"))
    waiting = await told(api, "playbook.waiting")
    run = waiting["attrs"]["run"]
    assert f"reflexctl playbook approve {run}" in waiting["text"]
    async with channel(agent) as commands:
        status, answer = await say(api, "POST", f"/v1/runs/{run}/approve")
        assert (status, [one["kind"] for one in answer["told"]]) == (200, ["playbook.step", "playbook.step"])
        assert (await commands.command()).run == run
    assert (await say(api, "POST", f"/v1/runs/{run}/approve"))[0] == 409
    assert (await say(api, "POST", "/v1/runs/nothing/reject"))[0] == 404


async def until_known(api: Any, name: str, *, broken: bool = False) -> Any:
    """The answer about all playbooks once one of that name, or a broken file, is there."""
    ends_s = time.monotonic() + WITHIN_S
    while time.monotonic() < ends_s:
        answer = (await api.get("/v1/playbooks"))[1]
        if (broken and answer["broken"]) or (not broken and any(one["name"] == name for one in answer["playbooks"])):
            return answer
        await asyncio.sleep(0.1)
    raise AssertionError(f"{name} is never known")


async def test_a_file_that_breaks_leaves_the_playbook_as_it_was(place: Any, books: Path) -> None:
    _, api, _ = place
    await until_known(api, "after-oom")
    (books / "after-oom.yaml").write_text(BOOK.replace("gunicorn.rotate", "gunicorn.rotat"))
    answer = await until_known(api, "", broken=True)
    (broken,) = answer["broken"]
    assert broken["in_use"] is True
    (problem,) = broken["problems"]
    assert (problem["line"], problem["column"]) == (8, 13)
    assert "did you mean 'gunicorn.rotate'?" in problem["text"]
    kept = next(one for one in answer["playbooks"] if one["name"] == "after-oom")
    assert kept["acts"] == ["gunicorn.rotate"]
    library = next(one for one in answer["playbooks"] if one["name"] == "gunicorn-worker-oom")
    assert (library["mode"], library["own"]) == ("shadow", False)


async def test_a_text_is_checked_and_tested_with_what_has_happened(place: Any, make_event: Make) -> None:
    _, api, agent = place
    status, answer = await say(api, "POST", "/v1/playbooks/check", {"file": "x.yaml", "text": "name: X\n"})
    assert status == 200
    assert {"line": 1, "column": 7, "text": "'X' is no name: small letters, digits and -"} in answer["problems"]
    now_us = time.time_ns() // 1000
    await agent.send(*(fact(make_event, ts_us=now_us - 3_600_000_000 + place * 600_000_000) for place in range(4)))
    limited = BOOK.replace("per_hour: 100", "per_hour: 2")
    status, answer = await say(api, "POST", "/v1/playbooks/test", {"text": limited, "from": "-2h"})
    assert status == 200
    assert [one["kind"] for one in answer["would"]] == ["playbook.would_run"] * 2 + ["playbook.skipped"] * 2
    assert answer["would"][2]["attrs"]["reason"] == "per_hour"
    assert (await api.timeline(kind="playbook.would_run"))["events"] == [], "a test leaves nothing behind"
    assert (await say(api, "POST", "/v1/playbooks/test", {"text": "name: X\n"}))[0] == 400
    assert (await say(api, "POST", "/v1/playbooks/test", {"name": "nothing"}))[0] == 404


async def test_what_is_old_begins_nothing(place: Any, make_event: Make) -> None:
    _, api, agent = place
    await agent.send(fact(make_event, ts_us=time.time_ns() // 1000 - 900_000_000))
    assert (await told(api, "playbook.skipped"))["attrs"]["reason"] == "late"


async def test_people_are_told_by_their_channel_and_its_address_is_told_nobody(
    place: Any, tmp_path: Path, make_event: Make
) -> None:
    server, api, agent = place
    heard: list[Any] = []

    async def hook(request: web.Request) -> web.Response:
        heard.append(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/hush-hush", hook)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    (tmp_path / "channels.toml").write_text(
        f'[ops]\nurl = "json://127.0.0.1:{port}/hush-hush"\n[broken]\nurl = "json://127.0.0.1:1/hush-hush"\n'
    )
    async with channel(agent) as commands:
        await agent.send(fact(make_event))
        command = await commands.command()
        await agent.send(outcome(make_event, command, "action.refused", reason="policy"))
        escalated = await told(api, "playbook.escalated")
    assert "Not recovered: after-oom did not repair shop-web on web-1" in escalated["text"]
    ((message),) = heard
    assert message["message"].startswith("shop-web is not well. gunicorn.rotate action.refused.")
    failed = (await api.timeline(kind="action.failed"))["events"]
    assert [one["text"] for one in failed] == ["notify for shop-web (web-1) failed: broken did not take it."]
    assert "hush-hush" not in orjson.dumps((await api.timeline())["events"]).decode() + server.log()
    await runner.cleanup()
