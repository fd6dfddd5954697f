"""Somebody between server and agent: forged, changed, replayed, expired and foreign commands and loans are refused and shown."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from agent.wire import (
    Book,
    Books,
    Command,
    Order,
    books_to_json,
    command_to_json,
    order_to_json,
    sign,
    sign_books,
    sign_order,
    uuid7,
)
from agent.wire.app import App
from demo.stage import HOST, Stage, free_port
from tests.actions.conftest import Site

BOOK = """
name: evil
title: kills everything
on: [{event: worker.started}, {event: worker.exited}]
steps: [{action: gunicorn.scale, with: {to: 1}}]
mode: armed
runs_on: host
"""


class Between:
    """Hands everything on, keeps what the server says to the agent, and can say something itself."""

    def __init__(self, stage: Stage, port: int) -> None:
        self.stage = stage
        self.port = port
        self.heard: list[dict[str, Any]] = []
        self.is_passing = True
        self._to_agent: web.WebSocketResponse | None = None
        self._http: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_get("/v1/commands", self._channel)
        app.router.add_post("/v1/ingest", self._ingest)
        self._http = aiohttp.ClientSession(auto_decompress=False)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        assert self._runner is not None and self._http is not None
        await self._runner.cleanup()
        await self._http.close()

    async def say(self, message: object) -> None:
        """As if the server had said it."""
        assert self._to_agent is not None
        await self._to_agent.send_str(orjson.dumps(message).decode())

    async def _channel(self, request: web.Request) -> web.WebSocketResponse:
        assert self._http is not None
        self._to_agent = to_agent = web.WebSocketResponse()
        await to_agent.prepare(request)
        headers = {"Authorization": request.headers["Authorization"]}
        async with self._http.ws_connect(f"{self.stage.url}/v1/commands", headers=headers) as to_server:

            async def to_the_agent() -> None:
                async for message in to_server:
                    self.heard.append(orjson.loads(message.data))
                    if self.is_passing:
                        await to_agent.send_str(message.data)

            passing = asyncio.create_task(to_the_agent())
            async for message in to_agent:
                await to_server.send_str(message.data)
            passing.cancel()
        return to_agent

    async def _ingest(self, request: web.Request) -> web.Response:
        assert self._http is not None
        headers = {"Authorization": request.headers["Authorization"], "Content-Type": request.content_type}
        async with self._http.post(f"{self.stage.url}/v1/ingest", data=await request.read(), headers=headers) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")


@pytest.fixture
async def between() -> AsyncIterator[Between]:
    """A stage whose agent reaches the server through somebody else."""
    if os.geteuid() != 0:
        pytest.skip("needs root: BPF programs can be loaded by root only")
    port = free_port()
    stage = Stage(agent=("--server-url", f"http://127.0.0.1:{port}"))
    made = Between(stage, port)
    await made.start()
    async with stage:
        yield made
    await made.stop()


@pytest.fixture
async def attacked(between: Between, tmp_path: Path) -> Site:
    """The Gunicorn that must come to no harm."""
    sys.path_importer_cache.pop(str(tmp_path), None)
    site = Site(between.stage, tmp_path)
    await site.start(workers=2)
    return site


async def refused(site: Site, reason: str) -> dict[str, Any]:
    """The refusal as the timeline shows it."""

    async def shown() -> dict[str, Any] | None:
        found = await site.stage.events(kind="action.refused")
        return next((event for event in found if event["attrs"]["reason"] == reason), None)

    event: dict[str, Any] = await site.stage.until(shown, f"{reason} is not shown", within_s=30)
    return event


def hostile(site: Site, **other: Any) -> Command:
    """A command that would take all workers but one away."""
    now_us = time.time_ns() // 1000
    asked = uuid7(now_us, secrets.randbits(62))
    command = Command(
        id=uuid7(now_us, secrets.randbits(62)),
        issued_us=now_us,
        expires_us=now_us + 60_000_000,
        host=HOST,
        run=asked,
        step="evil",
        action="gunicorn.scale",
        cause=asked,
        params={"to": 1},
        service=site.name,
    )
    return replace(command, **other)


async def test_commands_of_somebody_between(between: Between, attacked: Site) -> None:
    key_hash = hashlib.sha256((between.stage.folder / "host-key").read_text().strip().encode()).hexdigest()
    before = attacked.children()
    guessed = hostile(attacked)
    wrong_key = sign(guessed, hashlib.sha256(b"a guess").hexdigest())
    await between.say({"command": command_to_json(guessed), "signature": wrong_key})
    assert "is wrong" in (await refused(attacked, "forged"))["text"]

    done = await attacked.act("gunicorn.scale", params={"by": 1})
    assert done["kind"] == "action.done"
    kept = between.heard[-1]
    changed = {**kept, "command": {**kept["command"], "params": {"to": 1}}}
    await between.say(changed)
    for message in (kept, kept):
        await between.say(message)
    replayed = await refused(attacked, "replayed")
    assert replayed["attrs"]["command"] == kept["command"]["id"]

    between.is_passing = False
    await attacked.ask("gunicorn.scale", params={"to": 1}, expires_s=1)
    await asyncio.sleep(1.2)
    await between.say(between.heard[-1])
    assert "expired" in (await refused(attacked, "expired"))["text"]

    foreign = hostile(attacked, host="web-9")
    await between.say({"command": command_to_json(foreign), "signature": sign(foreign, key_hash)})
    assert "web-9" in (await refused(attacked, "foreign"))["text"]
    for garbage in (
        None,
        7,
        [],
        {"command": 7},
        {"command": {"id": "x" * 10_000}, "signature": "00"},
        {"signature": 1},
    ):
        await between.say(garbage)
    assert len(attacked.children()) == len(before) + 1
    assert set(before) <= set(attacked.children()), "nobody was touched but by the command that was meant"


async def test_loans_of_somebody_between(between: Between, attacked: Site) -> None:
    key_hash = hashlib.sha256((between.stage.folder / "host-key").read_text().strip().encode()).hexdigest()
    now_us = time.time_ns() // 1000
    books = Books(HOST, now_us, now_us + 3_600_000_000, "", (Book("evil", BOOK, 1_000),))
    as_command = sign(hostile(attacked), key_hash)
    for signature in ("", as_command, sign_books(books, hashlib.sha256(b"a guess").hexdigest())):
        await between.say({"books": books_to_json(books), "signature": signature})
    assert "what is lent is wrong" in (await refused(attacked, "forged"))["text"]
    os.kill(attacked.children()[0], 9)
    await between.stage.until(lambda: attacked.ready(2), "the worker is not replaced", within_s=30)
    assert await between.stage.events(kind="playbook.*") == []


async def test_an_old_loan_is_not_taken_again(between: Between, attacked: Site) -> None:
    stage = between.stage
    (stage.playbooks / "evil.yaml").write_text(BOOK.replace("to: 1", "to: 2"))

    async def lends() -> dict[str, Any] | None:
        lent = [message for message in between.heard if message.get("books", {}).get("books")]
        return lent[-1] if lent else None

    loan: dict[str, Any] = await stage.until(lends, "nothing is lent", within_s=30)
    (stage.playbooks / "evil.yaml").unlink()

    async def is_back() -> bool:
        status = (await stage.get("/v1/hosts"))["hosts"][0]["status"]["playbooks"]
        return not status["held"] and between.heard[-1].get("books", {}).get("books") == []

    await stage.until(is_back, "it is not given back", within_s=30)
    await between.say(loan)
    assert "newer things were" in (await refused(attacked, "replayed"))["text"]
    assert not (await stage.get("/v1/hosts"))["hosts"][0]["status"]["playbooks"]["held"]


async def test_who_repeats_what_was_said_does_not_fill_the_timeline(between: Between, attacked: Site) -> None:
    """Somebody who has heard the server, and has no key, says it all again and again, and something of his own."""
    planned = await attacked.act("gunicorn.scale", dry_run=True, params={"by": 1})
    done = await attacked.act("gunicorn.scale", params={"by": 1})
    now_us, before = time.time_ns() // 1000, attacked.children()
    id_ = uuid7(now_us, secrets.randbits(62))
    app = App("shop", "git@git.example:shop", "main", "nobody", "/srv/shop")
    order = Order(id_, id_, "switch", HOST, now_us, now_us + 60_000_000, id_, app)
    forged = {"order": order_to_json(order), "signature": sign_order(order, hashlib.sha256(b"a guess").hexdigest())}
    said = [message for message in between.heard if "command" in message]
    for _ in range(40):
        for message in (*said, forged, {"order": 7}):
            await between.say(message)
    assert (await attacked.act("gunicorn.scale", dry_run=True, params={"by": 2}))["kind"] == "action.planned"
    events = await between.stage.events(kind="action.*")
    again = [
        one for one in events if one["attrs"].get("command") in (planned["attrs"]["command"], done["attrs"]["command"])
    ]
    kinds = sorted(one["kind"] for one in again if one["kind"] != "action.asked")
    assert kinds == ["action.done", "action.planned", "action.refused", "action.refused"]
    refusals = await between.stage.events(kind="release.refused")
    assert len(refusals) == 1, [one["text"] for one in refusals]
    assert attacked.children() == before
