"""Tries a release before it serves: checked, and booted once on a spare port."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping

from agent.release.failure import ReleaseFailed
from agent.release.hired import Done
from agent.release.probe import ask
from agent.release.words import IMPORTS, boot_argv
from agent.release.workshop import SHORT_S, Workshop, is_there, last
from agent.wire.app import Health, Web

BOOT_POLL_S = 0.1


class Trial:
    """Of one release. All of it raises ReleaseFailed, and RunnerTrouble where there is no runner."""

    def __init__(self, shop: Workshop, kinds: Mapping[str, str]) -> None:
        """`kinds` has the kind of each service of the app that runs."""
        self._shop = shop
        self._kinds = kinds
        self._awaits_migration = False

    async def check(self) -> None:
        """What can be known without running it."""
        for web in self._shop.app.web:
            if web.app:
                await self._shop.must_app(
                    "check", ("python", "-c", IMPORTS, web.app), web.boot_s, shown=f"import {web.app}"
                )
        if is_there(f"{self._shop.folder}/manage.py"):
            await self._check_django()
        for command in self._shop.app.checks:
            await self._shop.must_app("check", command, self._shop.app.build.within_s)

    async def _check_django(self) -> None:
        """What Django itself can say of a release; its warnings are in the log, its errors end the deploy."""
        is_left_to_us = not self._shop.app.checks
        if is_left_to_us:
            check = ("python", "manage.py", "check", "--deploy", "--fail-level", "ERROR")
            await self._shop.must_app("check", check, SHORT_S)
            made = await self._shop.as_app(("python", "manage.py", "makemigrations", "--check", "--dry-run"), SHORT_S)
            if made.code == 1:
                self._shop.notes.append("models have changed in ways that no migration has")
        if not is_left_to_us and self._shop.app.migrate is None:
            return
        pending = await self._shop.as_app(("python", "manage.py", "migrate", "--check"), SHORT_S)
        if pending.code == 1 and self._shop.app.migrate is None:
            raise ReleaseFailed(
                "check", "there are migrations to apply, and the app names no command for it (migrate:)"
            )
        if pending.code == 1:
            self._awaits_migration = True
            self._shop.notes.append("there are migrations to apply")

    async def boot(self, web: Web, *, is_first: bool) -> None:
        """One worker on a spare port answers: what does not boot there would not boot under traffic.

        `is_first`: nothing has served before it, so that there may be no tables yet.
        """
        if not web.app:
            self._shop.notes.append(f"{web.service} was not booted beside: its app is not named (web.app)")
            return
        folder, port = self._shop.folder, _spare_port()
        kind = self._kinds.get(web.service, "gunicorn")
        try:
            argv = boot_argv(kind, f"{web.service}-boot", web.app, port, folder)
        except ValueError as error:
            self._shop.notes.append(f"{web.service} was not booted beside: {error}")
            return
        booting = asyncio.ensure_future(
            self._shop.runner.run(
                argv, folder, self._shop.environment(), seconds=web.boot_s + SHORT_S, on_line=self._shop.say
            )
        )
        try:
            await self._until_well(web, port, booting, is_first=is_first)
        finally:
            booting.cancel()
            await asyncio.gather(booting, return_exceptions=True)

    async def _until_well(self, web: Web, port: int, booting: asyncio.Future[Done], *, is_first: bool) -> None:
        ends_s, health = time.monotonic() + web.boot_s, web.health
        while True:
            answer = await ask(health or Health(), f"127.0.0.1:{port}")
            if not answer.trouble or (health is None and 0 < answer.status < 500):
                self._shop.say(f"booted on port {port}: {answer.status} in {answer.took_ms:g} ms")
                return
            if answer.status and is_first and self._awaits_migration:
                self._shop.say(
                    f"booted on port {port}: {answer.status}; nothing has made the tables of the database yet"
                )
                self._shop.notes.append(
                    f"booted beside, {web.service} {answer.trouble}, as may be before the first migration"
                )
                return
            if booting.done():
                raise ReleaseFailed("boot", f"{web.app} did not boot: {last(booting.result())}")
            if time.monotonic() > ends_s:
                raise ReleaseFailed("boot", f"{web.app}, booted on a spare port, {answer.trouble}")
            await asyncio.sleep(BOOT_POLL_S)


def _spare_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
