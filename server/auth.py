"""Who is asking: host keys of agents, operator tokens, and the page's sessions."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from aiohttp import web

from server.body import read_json
from server.errors import ApiError, bad_request, try_later
from server.secret import hash_of, new_secret
from server.state import State
from server.version import server_version

COOKIE = "reflex_session"
CACHE_S = 3.0
"""How long a good secret is believed without looking again, so that a revoked one stops working this soon."""

MAX_CACHED = 10_000
MAX_FAILURES = 10
FAILURE_WINDOW_S = 60
MAX_LOGIN_BYTES = 4096

WHO = web.RequestKey("who", str)
"""Who asks: what `require_operator` found."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Auth:
    """Checks every request's secret, and answers `/v1/session`."""

    def __init__(self, state: State, *, session_hours: float) -> None:
        self._state = state
        self._session_s = round(session_hours * 3600)
        self._believed: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def operator(self, handler: Handler) -> Handler:
        """The handler behind a check for an operator token or session."""

        async def checked(request: web.Request) -> web.StreamResponse:
            request[WHO] = await self.require_operator(request)
            return await handler(request)

        return checked

    async def require_operator(self, request: web.Request) -> str:
        """Whose token or session it is, in words. Raises ApiError 401 without a good token or session, 403 for a session used from a foreign page."""
        if secret := _bearer(request):
            found = await self._look_up("token", secret, lambda hash_: self._state.operator_of_token(hash_))
        elif secret := request.cookies.get(COOKIE, ""):
            _refuse_foreign_origin(request)
            found = await self._look_up(
                "session", secret, lambda hash_: self._state.operator_of_session(hash_, now_us=_now_us())
            )
        else:
            raise _unauthorized("an operator token is needed: Authorization: Bearer rfx_op_…, or a session cookie")
        if found is None:
            raise _unauthorized("this operator token or session is not known or no longer valid; log in again")
        return f"operator {found}"

    async def require_host(self, request: web.Request) -> str:
        """The host whose key the request carries; raises ApiError 401."""
        secret = _bearer(request)
        host = await self._look_up("host", secret, self._state.host_of_key) if secret else None
        if host is None:
            raise _unauthorized("no such host key; make one on the server with: reflex-server host-key add NAME")
        return host

    async def log_in(self, request: web.Request) -> web.Response:
        """POST /v1/session: an operator token against a session cookie."""
        _refuse_foreign_origin(request)
        address = request.remote or ""
        self._refuse_guessing(address)
        body = await read_json(request, limit=MAX_LOGIN_BYTES)
        token = body.get("token") if isinstance(body, dict) else None
        if not isinstance(token, str) or not token:
            raise bad_request('the body must be {"token": "rfx_op_…"}')
        token_id = await asyncio.to_thread(self._state.operator_of_token, hash_of(token))
        if token_id is None:
            self._note_failure(address)
            raise _unauthorized("this operator token is not known; make one with: reflex-server operator-token new")
        session, now_us = new_secret("session"), _now_us()
        expires_us = now_us + self._session_s * 1_000_000
        await asyncio.to_thread(
            self._state.add_session, hash_of(session), token_id, expires_us=expires_us, now_us=now_us
        )
        answer = _who_am_i()
        answer.set_cookie(
            COOKIE, session, httponly=True, samesite="Strict", max_age=self._session_s, secure=request.secure, path="/"
        )
        return answer

    async def log_out(self, request: web.Request) -> web.Response:
        """DELETE /v1/session: ends the session of the cookie, if there is one."""
        _refuse_foreign_origin(request)
        if session := request.cookies.get(COOKIE):
            self._believed.pop(("session", hash_of(session)), None)
            await asyncio.to_thread(self._state.end_session, hash_of(session))
        answer = web.Response(status=204)
        answer.del_cookie(COOKIE, path="/")
        return answer

    async def who_am_i(self, _request: web.Request) -> web.Response:
        """GET /v1/session, behind `operator`."""
        return _who_am_i()

    async def _look_up(self, kind: str, secret: str, find: Callable[[str], str | int | None]) -> str | None:
        """Whom the secret belongs to, from memory for CACHE_S, else from the state; misses are never remembered."""
        key = (kind, hash_of(secret))
        now_s = time.monotonic()
        until_s, owner = self._believed.get(key, (0.0, ""))
        if now_s < until_s:
            return owner
        found = await asyncio.to_thread(find, key[1])
        if found is None:
            self._believed.pop(key, None)
            return None
        self._believed[key] = (now_s + CACHE_S, str(found))
        self._believed.move_to_end(key)
        if len(self._believed) > MAX_CACHED:
            self._believed.popitem(last=False)
        return str(found)

    def _refuse_guessing(self, address: str) -> None:
        now_s = time.monotonic()
        recent = [at_s for at_s in self._failures.get(address, ()) if at_s > now_s - FAILURE_WINDOW_S]
        if len(recent) >= MAX_FAILURES:
            wait_s = round(recent[0] + FAILURE_WINDOW_S - now_s) + 1
            raise try_later(429, "too_many_attempts", f"too many failed log-ins; wait {wait_s} s", after_s=wait_s)

    def _note_failure(self, address: str) -> None:
        self._failures[address] = [*self._failures.pop(address, [])[-MAX_FAILURES:], time.monotonic()]
        if len(self._failures) > MAX_CACHED:
            self._failures.popitem(last=False)


def host_key_hash(request: web.Request) -> str:
    """The hash of the key that the request carries, which is all that the server keeps of a key."""
    return hash_of(_bearer(request))


def _bearer(request: web.Request) -> str:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _refuse_foreign_origin(request: web.Request) -> None:
    """A browser says in `Origin` which page makes it send; only this server's own page may change anything."""
    origin = request.headers.get("Origin")
    if request.method in _SAFE_METHODS or origin is None:
        return
    if origin.partition("://")[2] != request.host:
        raise ApiError(403, "foreign_origin", f"requests from pages of {origin:.100} are not accepted")


def _who_am_i() -> web.Response:
    return web.json_response({"role": "operator", "server_version": server_version()})


def _unauthorized(message: str) -> ApiError:
    return ApiError(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})


def _now_us() -> int:
    return time.time_ns() // 1000
