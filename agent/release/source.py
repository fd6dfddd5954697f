"""Where a release comes from: the mirror of its repository, its commit, and that commit's files."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.release.adopt import Found
from agent.release.failure import ReleaseFailed
from agent.release.own import merged, told
from agent.release.own_file import MOST_BYTES, OwnFileWrong, read_own_file
from agent.release.words import GIT_CONFIG, READS, is_private_key
from agent.release.workshop import GIT_S, SHORT_S, Workshop, is_there, last

MOST_COMMITS = 50


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit, as the timeline tells of it."""

    id: str
    author: str
    subject: str


class Source:
    """The repository, as the app's user sees it. All of it raises ReleaseFailed, and RunnerTrouble where there is no runner."""

    def __init__(self, shop: Workshop) -> None:
        """`own` becomes what the repository's own file says, as plain values; it stays empty where the server says all."""
        self._shop = shop
        self.own: Mapping[str, Any] = {}

    async def fetch(self) -> None:
        """Brings the mirror up to date."""
        layout, key = self._shop.layout, self._shop.order.key
        await self._shop.write("fetch", f"{layout.own}/gitconfig", GIT_CONFIG)
        if is_private_key(key):
            await self._shop.write("fetch", layout.key, key.strip() + "\n")
        await self._shop.must("fetch", ["git", "init", "--quiet", "--bare", layout.mirror], layout.folder)
        refs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
        fetch = ["git", "fetch", "--prune", "--force", "--no-write-fetch-head", self._shop.app.repository, *refs]
        await self._shop.must("fetch", fetch, layout.mirror, seconds=GIT_S)

    async def commit(self) -> Commit:
        """The commit that is wanted."""
        ref = self._shop.app.ref
        for named in (f"refs/heads/{ref}", f"refs/tags/{ref}", ref):
            done = await self._shop.git_says(
                "rev-parse", "--verify", "--quiet", "--end-of-options", f"{named}^{{commit}}"
            )
            if done.code == 0:
                return (await self._log("-1", done.last[-1]))[0]
        raise ReleaseFailed("commit", f"{self._shop.app.repository} has no branch, tag or commit {ref}")

    async def since(self, found: Found | None, commit: str) -> tuple[Commit, ...]:
        """The commits after the one that serves, newest first; none where that is not known."""
        current = "" if found is None else found.commit
        if not current or current == commit:
            return ()
        known = await self._shop.git_says("cat-file", "-e", f"{current}^{{commit}}")
        return await self._log(f"-{MOST_COMMITS}", f"{current}..{commit}") if known.code == 0 else ()

    async def _log(self, most: str, what: str) -> tuple[Commit, ...]:
        lines: list[str] = []
        wanted = ["git", "log", most, "--format=%H%x09%an%x09%s", "--end-of-options", what]
        await self._shop.runner.run(
            wanted, self._shop.layout.mirror, self._shop.git, seconds=SHORT_S, is_modest=False, on_line=lines.append
        )
        found = [line.split("\t", 2) for line in lines]
        return tuple(Commit(one[0], one[1][:100], one[2][:200]) for one in found if len(one) == 3)

    async def read_own(self, commit: str) -> None:
        """From here on the app is as its own commit has it, where the server says nothing."""
        file = self._shop.app.own_file
        size = await self._shop.git_says("cat-file", "-s", f"{commit}:{file}")
        if size.code != 0 or not size.last[-1].isdigit():
            raise ReleaseFailed(
                "settings", f"there is no {file} in this commit, and the app has it say how it is built"
            )
        if int(size.last[-1]) > MOST_BYTES:
            raise ReleaseFailed("settings", f"{file} has {size.last[-1]} bytes; at most {MOST_BYTES}")
        lines: list[str] = []
        read = ["sh", "-c", READS, "sh", f"{commit}:{file}"]
        done = await self._shop.runner.run(
            read, self._shop.layout.mirror, self._shop.git, seconds=SHORT_S, on_line=lines.append
        )
        try:
            self.own = await read_own_file(base64.b64decode("".join(lines)), self._shop.app)
            self._shop.app = merged(self._shop.app, self.own)
        except OwnFileWrong as wrong:
            for line in str(wrong).splitlines():
                self._shop.say(line)
            raise ReleaseFailed("settings", str(wrong).replace("\n", "; ")[:1_000]) from None
        except (OSError, ValueError) as error:
            raise ReleaseFailed("settings", f"{file} could not be read: {error} {last(done)}") from None
        self._shop.notes.append(f"{file} of the commit says {told(self.own) or 'nothing'}")

    async def check_out(self, commit: str) -> None:
        """Lays the commit out in the release's folder, with links to what all releases share."""
        layout, folder = self._shop.layout, self._shop.folder
        await self._shop.must("checkout", ["git", "worktree", "prune"], layout.mirror)
        await self._shop.must(
            "checkout", ["git", "worktree", "add", "--quiet", "--detach", folder, commit], layout.mirror, seconds=GIT_S
        )
        if is_there(f"{folder}/.gitmodules"):
            modules = ["git", "submodule", "update", "--init", "--recursive", "--depth", "1"]
            await self._shop.must("checkout", modules, folder, seconds=GIT_S)
        for shared in self._shop.app.shared:
            if not is_there(f"{layout.shared}/{shared}"):  # a file that is there may be shared too
                await self._shop.must("checkout", ["mkdir", "-p", f"{layout.shared}/{shared}"], folder)
            await self._shop.must("checkout", ["mkdir", "-p", os.path.dirname(f"{folder}/{shared}")], folder)
            await self._shop.must("checkout", ["rm", "-rf", "--", f"{folder}/{shared}"], folder)
            await self._shop.must("checkout", ["ln", "-s", f"{layout.shared}/{shared}", f"{folder}/{shared}"], folder)
