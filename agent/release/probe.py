"""Asks a release whether it is well, as a client would: the request of its health check."""

from __future__ import annotations

import time
from dataclasses import dataclass

import aiohttp

from agent.wire.app import Health

MOST_BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request. `trouble` says why it counts as bad, as a sentence's end; empty for a good one."""

    status: int
    took_ms: float
    trouble: str = ""


async def ask(health: Health, address: str) -> Answer:
    """One request to `HOST:PORT` or to a unix socket's path."""
    connector = aiohttp.UnixConnector(address) if address.startswith("/") else None
    base = "http://localhost" if connector else f"http://{address}"
    timeout = aiohttp.ClientTimeout(total=health.within_s)
    headers = {"Host": health.host} if health.host else {}
    began = time.monotonic()

    def since_ms() -> float:
        return round((time.monotonic() - began) * 1000, 1)

    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(base + health.path, headers=headers, allow_redirects=False) as answer,
        ):
            body = await answer.content.read(MOST_BODY_BYTES)
            return Answer(answer.status, since_ms(), _trouble(health, answer.status, body))
    except TimeoutError:
        return Answer(0, since_ms(), f"did not answer {health.path} within {health.within_s:g} s")
    except (aiohttp.ClientError, OSError) as error:
        return Answer(0, since_ms(), f"could not be asked for {health.path}: {str(error) or type(error).__name__}")


def _trouble(health: Health, status: int, body: bytes) -> str:
    if status != health.status:
        return f"answered {health.path} with {status} instead of {health.status}"
    if health.contains and health.contains.encode() not in body:
        return f"answered {health.path} without the words {health.contains[:60]!r}"
    return ""
