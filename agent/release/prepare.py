"""Makes a release beside the one that serves: fetched, built, checked, and booted once on a spare port."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from agent.release.adopt import Found, Survey
from agent.release.failure import ReleaseFailed
from agent.release.hired import Runner, RunnerTrouble
from agent.release.layout import release_name
from agent.release.source import Commit, Source
from agent.release.trial import Trial
from agent.release.venvs import Venvs
from agent.release.words import SYSTEM_PATH, environment_file
from agent.release.workshop import SHORT_S, Workshop
from agent.wire import Order

MIB = 1024 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A release that could serve. `commits` are those since the release that serves, newest first; `found` is that one."""

    release: str
    commit: Commit
    commits: tuple[Commit, ...]
    notes: tuple[str, ...]
    own: Mapping[str, Any]
    """What the repository's own file says, as plain values; nothing where the server says all."""

    found: Found | None = None


class Preparation:
    """Makes one release. `say` gets each line of the log, `stepped` the name of each step that is done and its seconds."""

    def __init__(
        self,
        order: Order,
        runner: Runner,
        *,
        known: Mapping[str, str],
        kinds: Mapping[str, str],
        venvs: Sequence[str],
        bad: Mapping[str, str],
        say: Callable[[str], None],
        stepped: Callable[[str, float], None],
    ) -> None:
        """`known` has the commits of releases, `kinds` the kind of each service of the app that runs, `venvs` what those run from.

        `bad` has why commits are refused.
        """
        self._shop = shop = Workshop(order, runner, say)
        self._source = Source(shop)
        self._venvs = Venvs(shop)
        self._trial = Trial(shop, kinds)
        self._known = known
        self._runs_from = venvs
        self._bad = bad
        self._stepped = stepped

    async def run(self) -> Prepared:
        """Raises ReleaseFailed; then nothing of the release is left but its log."""
        shop, source = self._shop, self._source
        commit: Commit | None = None
        try:
            await self._step("folder", self._make_folder())
            await self._step("fetch", source.fetch())
            found = await self._step("found", self._survey().look(self._known, self._runs_from, shop.git))
            commit = await self._step("commit", source.commit())
            if why := self._bad.get(commit.id):
                raise ReleaseFailed("commit", f"commit {commit.id[:12]} was bad ({why}) and is refused unless forced")
            if shop.app.own_file:
                await self._step("settings", source.read_own(commit.id))
            shop.release = release_name(time.strftime("%Y%m%dT%H%M%S", time.gmtime()), commit.id)
            await self._step("checkout", source.check_out(commit.id))
            await self._step("environment", self._write_environment())
            await self._step("venv", self._venvs.make(commit.id))
            await self._step("build", self._build())
            await self._step("check", self._trial.check())
            for web in shop.app.web:
                await self._step("boot", self._trial.boot(web, is_first=found is None))
            since = await source.since(found, commit.id)
            return Prepared(shop.release, commit, since, tuple(shop.notes), source.own, found)
        except RunnerTrouble as trouble:
            await self._remove()
            raise ReleaseFailed("runner", str(trouble)) from None
        except ReleaseFailed as failed:
            failed.commit = commit.id if commit is not None else ""
            await self._remove()
            raise
        except asyncio.CancelledError:
            await self._remove()
            raise

    async def _step(self, name: str, work: Awaitable[T]) -> T:
        self._shop.say(f"── {name}")
        began = time.monotonic()
        result = await work
        self._stepped(name, time.monotonic() - began)
        return result

    # The steps that are not a part's own.

    async def _make_folder(self) -> None:
        await self._shop.runner.make_folder()
        layout = self._shop.layout
        folders = [layout.releases, layout.venvs, layout.shared, layout.own]
        await self._survey().check()
        await self._shop.must("folder", ["mkdir", "-p", *folders], layout.folder)
        await self._shop.must("folder", ["chmod", "700", layout.own], layout.folder)
        disk = os.statvfs(layout.folder)
        free_mb, least_mb = disk.f_bavail * disk.f_frsize // MIB, self._shop.app.build.least_free_mb
        if free_mb < least_mb:
            raise ReleaseFailed(
                "folder", f"there are {free_mb} MB free at {layout.folder}, and {least_mb} MB are wanted"
            )

    def _survey(self) -> Survey:
        return Survey(self._shop.layout, self._shop.app.user, self._shop.runner, self._shop.say, self._shop.notes)

    async def _write_environment(self) -> None:
        variables = {**self._shop.app.environment, **self._shop.order.secrets}
        await self._shop.write("environment", f"{self._shop.folder}/.environment", environment_file(variables))

    async def _build(self) -> None:
        for command in self._shop.app.build.commands:
            await self._shop.must_app("build", command, self._shop.app.build.within_s)

    async def _remove(self) -> None:
        """Takes a release away that will not serve."""
        if not self._shop.release:
            return
        folder = self._shop.folder
        try:
            remove = ["git", "worktree", "remove", "--force", folder]
            await self._shop.runner.run(remove, self._shop.layout.mirror, self._shop.git, seconds=SHORT_S)
            await self._shop.runner.run(
                ["rm", "-rf", "--", folder], self._shop.layout.folder, {"PATH": SYSTEM_PATH}, seconds=SHORT_S
            )
        except RunnerTrouble as trouble:
            self._shop.say(f"{folder} could not be removed: {trouble}")
