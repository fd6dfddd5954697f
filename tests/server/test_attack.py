"""Somebody with the key of one host, and somebody with no key at all, against a real server."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson
import pytest

from tests.server.test_brain import HOST, SERVICE, STATUS, Make, say, told

SECRET = "a secret of some length"
FILE = f"""
app: till
repository: git@git.example:till.git
ref: main
hosts: [{HOST}]
user: till
folder: /srv/till
web:
  - service: {SERVICE}
"""
PUSH = orjson.dumps({"ref": "refs/heads/other"})


@pytest.fixture
async def place(own_server: Any, connect: Any, tmp_path: Path) -> tuple[Any, Any, Any]:
    """A server with an app, its operator, and an agent of the app's host."""
    (tmp_path / "playbooks").mkdir()
    server = own_server("--playbooks", str(tmp_path / "playbooks"))
    api, agent = connect(server, HOST)
    assert (await agent.post(agent.batch(status=STATUS)))[0] == 200
    assert (await say(api, "PUT", "/v1/apps/till", {"text": FILE}))[0] == 200
    assert (await say(api, "PUT", "/v1/apps/till/secrets/WEBHOOK", {"value": SECRET}))[0] == 200
    return server, api, agent


@pytest.mark.parametrize("action", ["deploy.hold", "deploy.rollback"])
async def test_a_host_that_was_lent_nothing_moves_no_app(place: Any, make_event: Make, action: str) -> None:
    _, api, agent = place
    attrs = {"command": "c", "run": "r", "step": "s", "action": action, "left_to": "server", "text": ""}
    await agent.send(make_event(kind="action.done", service=SERVICE, attrs=attrs))
    refused = await told(api, "action.refused")
    assert "no playbook that is lent to web-1 asks for it" in refused["text"]
    _, app = await say(api, "GET", "/v1/apps/till")
    _, deploys = await say(api, "GET", "/v1/deploys")
    assert (app["hold"], deploys["deploys"]) == (None, [])


async def test_a_host_says_nothing_in_the_log_of_a_deploy_of_others(place: Any, connect: Any) -> None:
    server, api, agent = place
    _, other = connect(server, "db-1")

    async def says(one: Any, deploy: str, line: str) -> None:
        headers = {"Authorization": f"Bearer {one.key}"}
        async with one.http.ws_connect(f"{one.base}/v1/commands", headers=headers) as socket:
            await socket.send_str(orjson.dumps({"log": {"deploy": deploy, "line": line, "ts_us": 1}}).decode())
            await socket.ping()
            await socket.send_str("{}")
            await asyncio.sleep(0)

    headers = {"Authorization": f"Bearer {agent.key}"}
    async with agent.http.ws_connect(f"{agent.base}/v1/commands", headers=headers) as socket:
        await socket.send_str(orjson.dumps({"holding": {}}).decode())
        status, begun = 409, None
        while status == 409:
            status, begun = await say(api, "POST", "/v1/apps/till/deploy", {})
        deploy = begun["deploy"]["id"]
        await says(other, deploy, "forged")
        await socket.send_str(orjson.dumps({"log": {"deploy": deploy, "line": "own", "ts_us": 1}}).decode())
        lines: list[Any] = []
        while not lines:
            async with api.http.get(f"{api.base}/v1/deploys/{deploy}/log", headers=api.headers) as answer:
                lines = [orjson.loads(one) for one in (await answer.read()).splitlines()]
    assert [(one["host"], one["line"]) for one in lines] == [(HOST, "own")]


async def hook(api: Any, signature: str, *, app: str = "till") -> int:
    url, headers = f"{api.base}/v1/hooks/{app}", {"X-Reflex-Signature": signature}
    async with api.http.post(url, data=PUSH, headers=headers) as answer:
        return int(answer.status)


async def test_who_guesses_signatures_is_slowed_down_and_keeps_nobody_else_out(place: Any) -> None:
    _, api, _ = place
    right = hmac.new(SECRET.encode(), PUSH, hashlib.sha256).hexdigest()
    guesses = asyncio.gather(*(hook(api, f"{number:064x}") for number in range(90)))
    good = [await hook(api, right) for _ in range(3)]
    assert not guesses.done(), "a right one does not wait behind wrong ones"
    statuses = Counter(await guesses)
    assert good == [200, 200, 200]
    assert set(statuses) == {401, 429}
    assert statuses[401] <= 64
    assert await hook(api, right, app="nobody") == 401


async def test_github_sends_a_form_unless_it_is_told_otherwise(place: Any) -> None:
    _, api, _ = place

    async def push(body: bytes) -> tuple[int, str]:
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-Hub-Signature-256": signature, "Content-Type": "application/x-www-form-urlencoded"}
        async with api.http.post(f"{api.base}/v1/hooks/till", data=body, headers=headers) as answer:
            return answer.status, await answer.text()

    status, text = await push(urlencode({"payload": PUSH.decode()}).encode())
    assert (status, "other was pushed, and main is deployed" in text) == (200, True)
    assert (await push(PUSH))[0] == 200, "curl -d says of JSON that it is a form"
    for body in (b"", b"payload=", b"payload=1&payload=2", b"payload=%5B%5D", b"\xff", b"&".join([b"a=1"] * 40)):
        status, text = await push(body)
        assert status == 400, (body, text)


async def test_a_secret_that_the_key_of_the_vault_does_not_open_is_not_set(place: Any, connect: Any) -> None:
    """A backup without `vault.key` is restored: a deploy without its secrets would not be what was asked for."""
    server, api, agent = place
    assert (await say(api, "PUT", "/v1/apps/till", {"text": f"{FILE}secrets: [DATABASE_URL]\n"}))[0] == 200
    assert (await say(api, "PUT", "/v1/apps/till/secrets/DATABASE_URL", {"value": "postgresql:///till"}))[0] == 200
    headers = {"Authorization": f"Bearer {agent.key}"}
    async with agent.http.ws_connect(f"{agent.base}/v1/commands", headers=headers) as socket, asyncio.timeout(20):
        await socket.send_str(orjson.dumps({"holding": {}}).decode())
        begun: Any = {"deploy": {"stage": "done"}}
        while begun.get("deploy", {}).get("stage") != "prepare":
            _, begun = await say(api, "POST", "/v1/apps/till/deploy", {})
    server.kill()
    (server.state / "vault.key").unlink()
    server.start()
    api, agent = connect(server, HOST)
    headers = {"Authorization": f"Bearer {agent.key}"}
    async with agent.http.ws_connect(f"{agent.base}/v1/commands", headers=headers) as socket, asyncio.timeout(20):
        await socket.send_str(orjson.dumps({"holding": {}}).decode())
        deploy: Any = {"stage": ""}
        while deploy["stage"] != "done":
            _, deploy = await say(api, "GET", f"/v1/deploys/{begun['deploy']['id']}")
    assert deploy["outcome"] == "failed"
    assert f"The prepare of till on {HOST} failed: secrets of it are not set: DATABASE_URL." in deploy["text"]
    status, said = await say(api, "POST", "/v1/apps/till/deploy", {})
    assert (status, said["error"]["code"]) == (409, "secrets_missing"), said
    assert (await say(api, "GET", "/v1/apps/till"))[1]["secrets"] == []
    assert "secrets cannot be opened by vault.key" in server.log()
    assert "postgresql:" not in server.log()


async def test_a_signature_of_any_bytes_is_wrong_and_no_more(place: Any) -> None:
    server, api, _ = place
    host, port = api.base.removeprefix("http://").split(":")
    for name in (b"X-Hub-Signature-256", b"X-Gitlab-Token"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/hooks/till HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + name + b": \xff\xfe\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(PUSH), PUSH))
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 401"), answer[:200]
    assert "Traceback" not in server.log()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/hooks/till"),
        ("POST", "/v1/session"),
        ("POST", "/v1/playbooks/check"),
        ("POST", "/v1/apps/check"),
    ],
)
async def test_bodies_are_bounded_before_and_after_they_are_inflated(place: Any, method: str, path: str) -> None:
    import gzip

    _, api, _ = place
    bomb = gzip.compress(b"[" * 64_000_000, compresslevel=9)
    for headers in ({}, {"Content-Encoding": "gzip"}):
        body = bomb if headers else b"[" * (5 * 1024 * 1024)
        try:
            async with api.http.request(method, api.base + path, data=body, headers={**api.headers, **headers}) as got:
                assert got.status in (400, 401, 413), got.status
        except aiohttp.ClientError:
            """It was hung up on in the middle of the body."""
    assert (await say(api, "GET", "/v1/apps"))[0] == 200


async def test_a_text_that_grows_when_it_is_read_is_refused(place: Any) -> None:
    _, api, _ = place
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(12)
    )
    deep = "[" * 100_000
    for text in (bomb, deep, "name: " + "[" * 50_000, "if: '" + "(" * 50_000 + "'"):
        for path in ("/v1/playbooks/check", "/v1/apps/check"):
            async with asyncio.timeout(20):
                status, answer = await say(api, "POST", path, {"text": text})
            assert status == 200, answer
            assert answer["problems"]
