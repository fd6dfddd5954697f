"""The virtual environments of releases: built with uv or pip, and used again while the requirements stay the same."""

from __future__ import annotations

import hashlib
import shutil

from agent.release.failure import ReleaseFailed
from agent.release.words import SYSTEM_PATH
from agent.release.workshop import SHORT_S, Workshop, is_there

COMPLETE = ".reflex-complete"
LOCKS = (
    "requirements*.txt",
    "requirements/*",
    "constraints*.txt",
    "uv.lock",
    "pyproject.toml",
    "setup.py",
    "setup.cfg",
)


class Venvs:
    """Of one app. All of it raises ReleaseFailed, and RunnerTrouble where there is no runner."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop

    async def make(self, commit: str) -> None:
        """Links the release to an environment with what it requires: one of before where that is the same."""
        kind, file = self._requirements()
        key = await self._key(kind, commit)
        venv, folder = f"{self._shop.layout.venvs}/{key}", self._shop.folder
        if is_there(f"{venv}/{COMPLETE}"):
            self._shop.say(f"the requirements are those of before: {venv} is used again")
        else:
            await self._shop.must("venv", ["rm", "-rf", "--", venv], folder)
            await self._make_new(venv, kind, file)
        await self._shop.must("venv", ["ln", "-s", f"../../venvs/{key}", "venv"], folder)

    async def _make_new(self, venv: str, kind: str, file: str) -> None:
        folder, uv, python = self._shop.folder, _uv(), self._shop.app.build.python
        within_s = self._shop.app.build.within_s
        make = [uv, "venv", "--quiet", "--python", python, venv] if uv else [python, "-m", "venv", venv]
        await self._shop.must("venv", make, folder, seconds=within_s)
        into = f"{venv}/bin/python"
        if kind == "lock":
            if not uv:
                raise ReleaseFailed("venv", "the requirements are in uv.lock, and there is no uv on this host")
            other = {"UV_PROJECT_ENVIRONMENT": venv}
            sync = [uv, "sync", "--frozen", "--no-dev", "--no-install-project"]
            await self._shop.must("venv", sync, folder, seconds=within_s, other=other)
        elif kind:
            pip = [uv, "pip", "install", "--python", into] if uv else [into, "-m", "pip", "install", "--quiet"]
            await self._shop.must(
                "venv", [*pip, *(["-r", file] if kind == "file" else ["."])], folder, seconds=within_s
            )
        await self._shop.must("venv", ["touch", f"{venv}/{COMPLETE}"], folder)

    def _requirements(self) -> tuple[str, str]:
        """What the requirements are in: a `file`, uv's `lock`, the `project` itself, or nothing; and the file's name."""
        folder, named = self._shop.folder, self._shop.app.build.requirements
        if named:
            if not is_there(f"{folder}/{named}"):
                raise ReleaseFailed("venv", f"there is no {named} in this commit")
            return "lock" if named == "uv.lock" else "file", named
        for kind, file in (("lock", "uv.lock"), ("file", "requirements.txt"), ("project", "pyproject.toml")):
            if is_there(f"{folder}/{file}"):
                return kind, file
        return "", ""

    async def _key(self, kind: str, commit: str) -> str:
        """The same for releases that want the same: the interpreter, and all files that may say what is wanted."""
        version = await self._shop.must("venv", [self._shop.app.build.python, "-VV"], self._shop.layout.folder)
        files: list[str] = []
        listed = ["git", "ls-tree", "-r", commit, "--", *LOCKS, *filter(None, [self._shop.app.build.requirements])]
        await self._shop.runner.run(
            listed, self._shop.layout.mirror, self._shop.git, seconds=SHORT_S, on_line=files.append
        )
        whole = commit if kind == "project" else ""
        return hashlib.sha256("\n".join([*version.last, *files, kind, whole]).encode()).hexdigest()[:16]


def _uv() -> str:
    return shutil.which("uv", path=SYSTEM_PATH) or ""
