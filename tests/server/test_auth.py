"""Who may do what: tokens, keys, sessions, foreign pages, guessing."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

OPERATOR_PATHS = ["/v1/timeline", "/v1/hosts", "/v1/session", "/v1/stream", "/v1/chain/x", "/v1/events/x"]


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize("path", OPERATOR_PATHS)
@pytest.mark.parametrize("who", ["nobody", "agent", "wrong", "basic"])
async def test_reading_needs_an_operator(server: Any, agent: Any, http: Any, path: str, who: str) -> None:
    headers = {
        "nobody": {},
        "agent": bearer(agent.key),
        "wrong": bearer("rfx_op_wrong"),
        "basic": {"Authorization": f"Basic {server.token}"},
    }[who]
    async with http.get(server.base + path, headers=headers) as answer:
        assert answer.status == 401
        assert (await answer.json())["error"]["code"] == "unauthorized"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("who", ["nobody", "operator", "wrong"])
async def test_sending_needs_a_host_key(server: Any, agent: Any, http: Any, who: str) -> None:
    headers = {"nobody": {}, "operator": bearer(server.token), "wrong": bearer("rfx_host_wrong")}[who]
    async with http.post(server.base + "/v1/ingest", json=agent.batch(), headers=headers) as answer:
        assert answer.status == 401


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/icon.svg"])
async def test_anybody_may_see_the_page_and_the_health(server: Any, http: Any, path: str) -> None:
    async with http.get(server.base + path) as answer:
        assert answer.status == 200


async def test_a_revoked_host_key_stops_within_seconds(server: Any, agent: Any) -> None:
    assert (await agent.post(agent.batch()))[0] == 200
    server.revoke_key(agent.host)
    async with asyncio.timeout(30):
        while (await agent.post(agent.batch()))[0] != 401:
            await asyncio.sleep(0.1)


async def test_a_session_lives_from_log_in_to_log_out(server: Any) -> None:
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as browser:
        url = server.base + "/v1/session"
        async with browser.post(url, json={"token": server.token}) as answer:
            assert (answer.status, (await answer.json())["role"]) == (200, "operator")
            cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        kept = next(iter(jar)).value
        async with browser.get(server.base + "/v1/timeline") as answer:
            assert answer.status == 200
        async with browser.delete(url) as answer:
            assert answer.status == 204
        async with browser.get(url, headers={"Cookie": f"reflex_session={kept}"}) as answer:
            assert answer.status == 401


async def test_foreign_pages_change_nothing(server: Any) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        url, body = server.base + "/v1/session", {"token": server.token}
        async with browser.post(url, json=body, headers={"Origin": "https://evil.example"}) as answer:
            assert answer.status == 403
        async with browser.post(url, json=body, headers={"Origin": server.base}) as answer:
            assert answer.status == 200
        async with browser.delete(url, headers={"Origin": "null"}) as answer:
            assert answer.status == 403
        async with browser.get(url) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("body", [b"", b"{}", b'{"token": 1}', b"[]"])
async def test_a_log_in_without_a_token_is_400(server: Any, http: Any, body: bytes) -> None:
    async with http.post(server.base + "/v1/session", data=body) as answer:
        assert answer.status == 400


async def test_a_huge_log_in_is_413(server: Any, http: Any) -> None:
    async with http.post(server.base + "/v1/session", data=b" " * 5000) as answer:
        assert answer.status == 413


async def test_guessing_is_slowed_down(own_server: Any, http: Any) -> None:
    server = own_server()
    url = server.base + "/v1/session"
    for _ in range(10):
        async with http.post(url, json={"token": "rfx_op_guess"}) as answer:
            assert answer.status == 401
    async with http.post(url, json={"token": server.token}) as answer:
        assert answer.status == 429
        assert 0 < int(answer.headers["Retry-After"]) <= 61
