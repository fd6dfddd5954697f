"""Asks reflex-server (docs/api.md) and turns every way in which that can fail into a CtlError."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import aiohttp
import orjson

from ctl.access import Access, refuse_plain_http
from ctl.entry import mapping
from ctl.errors import HOW_TO_GET_A_TOKEN, ActNotDone, CtlError, Misused, NotAllowed, NothingFound, ServerFailing
from ctl.safe import clean

Params: TypeAlias = Sequence[tuple[str, str]]

CONNECT_S = 10
ANSWER_S = 60
SILENT_STREAM_S = 45
"""A stream is dead after this long without a byte; the server sends a sign of life every 15 s."""

MAX_ERROR_BYTES = 64 * 1024


class Client:
    """One server, for one operator."""

    def __init__(self, session: aiohttp.ClientSession, access: Access) -> None:
        self._session = session
        self._access = access

    @property
    def url(self) -> str:
        return self._access.url

    async def get(self, path: str, params: Params = ()) -> dict[str, Any]:
        """The answer's JSON object; raises CtlError."""
        async with self._request(path, params) as answer:
            return await self._object(path, answer)

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer's JSON object; raises CtlError. Never sent twice."""
        return await self._say("POST", path, body)

    async def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer's JSON object; raises CtlError."""
        return await self._say("PUT", path, body)

    async def delete(self, path: str) -> dict[str, Any]:
        """The answer's JSON object; raises CtlError."""
        async with self._request(path, (), method="DELETE") as answer:
            return await self._object(path, answer)

    async def lines(self, path: str, params: Params = ()) -> AsyncIterator[dict[str, Any]]:
        """Objects of an answer that has one on each line, as they come; raises CtlError."""
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S)
        async with self._request(path, params, timeout=timeout) as answer:
            async for line in answer.content:
                yield dict(mapping(orjson.loads(line), "object"))

    @asynccontextmanager
    async def stream(self, params: Params, last_id: str | None) -> AsyncIterator[AsyncIterator[bytes]]:
        """The pieces of a live stream as they come, for as long as the context is open; raises CtlError."""
        headers = {"Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=SILENT_STREAM_S)
        async with self._request("/v1/stream", params, headers=headers, timeout=timeout) as answer:
            if answer.content_type != "text/event-stream":
                raise ServerFailing(f"{self.url}/v1/stream is no event stream; is it reflex-server?")
            yield answer.content.iter_any()

    async def _say(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        async with self._request(path, (), method=method, json=body) as answer:
            return await self._object(path, answer)

    async def _object(self, path: str, answer: aiohttp.ClientResponse) -> dict[str, Any]:
        try:
            return dict(mapping(orjson.loads(await answer.read()), "object"))
        except orjson.JSONDecodeError:
            raise ServerFailing(f"{self.url}{path} did not answer with JSON; is it reflex-server?") from None

    @asynccontextmanager
    async def _request(
        self, path: str, params: Params, *, method: str = "GET", **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Never follows a redirect: the token is for this server only."""
        try:
            async with self._session.request(
                method, self.url + path, params=params, allow_redirects=False, **options
            ) as answer:
                if answer.status not in (200, 202):
                    raise await self._failure(answer)
                yield answer
        except TimeoutError:
            raise ServerFailing(f"{self.url} does not answer in time") from None
        except aiohttp.ClientError as error:
            raise ServerFailing(f"{self.url} cannot be reached: {_reason(error)}") from None

    async def _failure(self, answer: aiohttp.ClientResponse) -> CtlError:
        said = _message(await answer.content.read(MAX_ERROR_BYTES))
        status = answer.status
        if status in (401, 403):
            return NotAllowed(f"{self.url} does not take the token: {said or f'HTTP {status}'}; {HOW_TO_GET_A_TOKEN}")
        if 300 <= status < 400:
            target = clean(answer.headers.get("Location", "another address"))
            return ServerFailing(f"{self.url} redirects to {target}; give the address that it is really at")
        if said is None:
            return ServerFailing(
                f"{self.url} answers HTTP {status}, and not as reflex-server does; is the address right?"
            )
        if status == 404:
            return NothingFound(said)
        if status == 409:
            return ActNotDone(said)
        if status < 500 and status != 429:
            return Misused(f"the server says: {said}")
        wait = answer.headers.get("Retry-After", "")
        after_s = float(wait) if wait.isascii() and wait.isdigit() and len(wait) < 4 else None
        return ServerFailing(f"the server says: {said} (HTTP {status})", retry_after_s=after_s)


@asynccontextmanager
async def connect(access: Access, *, insecure: bool) -> AsyncIterator[Client]:
    """A client for the server; raises Misused for an address that would give the token away."""
    if not insecure:
        refuse_plain_http(access.url)
    headers = {"Authorization": f"Bearer {access.token}", "User-Agent": "reflexctl"}
    timeout = aiohttp.ClientTimeout(total=ANSWER_S, connect=CONNECT_S)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        yield Client(session, access)


def _message(raw: bytes) -> str | None:
    """The sentence in an error answer of docs/api.md, or None for any other body."""
    try:
        return clean(orjson.loads(raw)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted ({error.certificate_error}); SSL_CERT_FILE names further authorities"
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error.os_error)
    return clean(str(error)) or type(error).__name__
