"""Tells forges what became of commits: beside the deploys, which never wait for that and never fail by it.

What is to be told is a row that is written down with the state of the deploy, and goes when the forge has taken it; a
later state of the same deploy takes its place. So a restart of the server forgets none.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

from server.errors import StoreError
from server.pipeline.forges import News, Status, call_of, is_hopeless, is_told

WAITS_S = (1.0, 5.0, 30.0, 120.0, 600.0)
"""How long after each failed try the next one comes; after the last it is given up."""

CALL_S = 10.0
MOST_ANSWER_BYTES = 64 * 1024
MOST_WAITING = 500

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    """One row, and when it is tried next (monotonic)."""

    news: News
    tries: int = 0
    due_s: float = 0.0


class Statuses:
    """Sends the status of commits, one after the other."""

    def __init__(
        self,
        where: Callable[[str], tuple[Status | None, str | None]],
        forget: Callable[[str], Awaitable[None]],
        *,
        public_url: str = "",
        waits_s: tuple[float, ...] = WAITS_S,
    ) -> None:
        """`where` gives an app's settings and token, `forget` removes the row of a deploy."""
        self._where = where
        self._forget = forget
        self._public_url = public_url
        self._waits_s = waits_s
        self._waiting: dict[str, _Waiting] = {}
        self._woken = asyncio.Event()

    def is_wanted(self, app: str) -> bool:
        """Whether anybody is to be told of the app."""
        status, token = self._where(app)
        return status is not None and token is not None

    def put(self, deploy: str, news: News) -> None:
        """It is written down and may be sent. Of too many that wait the oldest is left out."""
        self._waiting.pop(deploy, None)
        self._waiting[deploy] = _Waiting(news)
        while len(self._waiting) > MOST_WAITING:
            self._waiting.pop(next(iter(self._waiting)))
        self._woken.set()

    async def run(self) -> None:
        """Sends what waits, until cancelled."""
        timeout = aiohttp.ClientTimeout(total=CALL_S)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                self._woken.clear()
                now_s = time.monotonic()
                for deploy, one in [(id_, one) for id_, one in self._waiting.items() if one.due_s <= now_s]:
                    await self._try(session, deploy, one)
                await self._until_next()

    async def _until_next(self) -> None:
        next_s = min((one.due_s for one in self._waiting.values()), default=None)
        left_s = None if next_s is None else max(next_s - time.monotonic(), 0.0)
        with suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                await self._woken.wait()

    async def _try(self, session: aiohttp.ClientSession, deploy: str, one: _Waiting) -> None:
        status, token = self._where(one.news.app)
        why = ""
        if status is not None and token is not None:
            why, is_over = await _send(session, status, one.news, token, self._public_url)
            one.tries += 1
            if why and not is_over and one.tries <= len(self._waits_s):
                one.due_s = time.monotonic() + self._waits_s[one.tries - 1]
                return
        if why:
            log.warning(
                "the status of commit %s of %s is not told to its forge (%s): %s",
                one.news.commit[:12], one.news.app, one.news.state, why,
            )  # fmt: skip
        if self._waiting.get(deploy) is one:  # else a later state has come meanwhile
            del self._waiting[deploy]
            try:
                await self._forget(deploy)
            except StoreError as error:
                log.warning("the status of a commit may be told again, its row cannot be removed: %s", error)


async def _send(
    session: aiohttp.ClientSession, status: Status, news: News, token: str, public_url: str
) -> tuple[str, bool]:
    """Why it was not taken, empty if it was; and whether another try is vain."""
    call = call_of(status, news, token, public_url)
    try:
        async with session.post(
            call.url, json=dict(call.body), headers=dict(call.headers), allow_redirects=False
        ) as answer:
            text = (await answer.content.read(MOST_ANSWER_BYTES)).decode(errors="replace")
            if is_told(status, answer.status, text):
                return "", True
            return f"it answered {answer.status}", is_hopeless(answer.status)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return f"it cannot be reached: {type(error).__name__}", False


def news_to_json(news: News) -> Mapping[str, Any]:
    """The row."""
    return {name: getattr(news, name) for name in News.__slots__}
