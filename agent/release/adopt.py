"""What is in the folder of an app before a release is made: who may write there, which release serves, and its commit.

A folder that Capistrano, Ansible or Fabric have deployed into is taken as it is (docs/migrating.md). What serves there can be
gone back to: its commit is read, and a virtual environment under another name gets the name that releases have.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.release.failure import ReleaseFailed
from agent.release.hired import Runner
from agent.release.layout import RELEASE, Layout
from agent.release.tidy import serving
from agent.release.words import SYSTEM_PATH

LOOK_S = 60.0
USUAL_VENVS = (".venv", "env", ".env", "virtualenv")
UNWRITABLE = 'for one; do [ ! -e "$one" ] || [ -w "$one" ] || echo "$one"; done'
"""For sh: those of its arguments that are there, and where its user may not write."""

_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_WHOLE_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_LOGGED = re.compile(r"\(at ([0-9a-f]{7,64})\) deployed as release (\S+) by ")


@dataclass(frozen=True, slots=True)
class Found:
    """The release that serves, and its commit; empty where nothing tells it."""

    release: str
    commit: str


class Survey:
    """Looks around in an app's folder, as the app's user. `say` gets lines of the log; `notes` gets what to know of the release."""

    def __init__(self, layout: Layout, user: str, runner: Runner, say: Callable[[str], None], notes: list[str]) -> None:
        self._layout = layout
        self._user = user
        self._runner = runner
        self._say = say
        self._notes = notes

    async def check(self) -> None:
        """Raises ReleaseFailed when a release could not be made here, or not be switched to, and says what to do."""
        layout = self._layout
        if why := _in_the_way(layout):
            raise ReleaseFailed("folder", why)
        places = [layout.folder, layout.releases, layout.shared, layout.venvs, layout.own, layout.mirror]
        for place in await self._lines(["sh", "-c", UNWRITABLE, "sh", *places]):
            owner = _owner(place)
            raise ReleaseFailed(
                "folder",
                f"{place} belongs to {owner}, and {self._user}, as whom this app is deployed, may not write there; "
                f"run: chown -R {self._user}: {place} (docs/migrating.md)",
            )

    async def look(self, known: Mapping[str, str], venvs: Sequence[str], git: Mapping[str, str]) -> Found | None:
        """The release that serves. One that others have made is told, and made fit to be gone back to."""
        release = serving(self._layout)
        if release is None:
            return None
        if release in known or RELEASE.fullmatch(release):
            return Found(release, known.get(release, ""))
        commit = await self._commit(release, git)
        what = f"commit {commit[:12]}" if commit else "of a commit that nothing here tells"
        self._notes.append(
            f"{release} serves here, {what}; Reflex has not made it, leaves it alone and can go back to it"
        )
        await self._name_venv(release, venvs)
        return Found(release, commit)

    async def _commit(self, release: str, git: Mapping[str, str]) -> str:
        """By the file REVISION, what git has checked out, or Capistrano's log; whole, if the repository knows it."""
        folder = self._layout.release(release)
        told = [line.strip() for line in await self._lines(["head", "-c", "200", "--", f"{folder}/REVISION"])]
        if _is_there(f"{folder}/.git"):
            told += await self._lines(["git", "rev-parse", "--verify", "--quiet", "HEAD"], folder, git)
        log = f"{self._layout.folder}/revisions.log"
        if _is_there(log):
            lines = await self._lines(["grep", "-F", f"deployed as release {release} by ", "--", log])
            told += [found[1] for line in lines[::-1] if (found := _LOGGED.search(line)) and found[2] == release]
        for one in filter(_COMMIT.fullmatch, told):
            wanted = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{one}^{{commit}}"]
            whole = await self._lines(wanted, self._layout.mirror, git)
            if whole or _WHOLE_COMMIT.fullmatch(one):
                return whole[0].strip() if whole else one
        return ""

    async def _name_venv(self, release: str, venvs: Sequence[str]) -> None:
        """Programs are started by `current/venv`: that has to lead somewhere when this release serves again."""
        if _is_there(f"{self._layout.release(release)}/venv"):
            return
        venv = _venv_for(self._layout.release(release), venvs)
        if venv is None:
            text = "a program that is started by current/venv does not start while that release serves"
            self._notes.append(f"no virtual environment of {release} is known: {text}")
            return
        self._say(f"{release} has no venv: it gets a link of that name to {venv}")
        await self._lines(["ln", "-sT", venv, f"{self._layout.release(release)}/venv"])

    async def _lines(
        self, argv: Sequence[str], folder: str = "", environment: Mapping[str, str] | None = None
    ) -> list[str]:
        """What a program says that ends well; nothing of one that does not."""
        lines: list[str] = []
        done = await self._runner.run(
            argv, folder or self._layout.folder, environment or {"PATH": SYSTEM_PATH}, seconds=LOOK_S, is_modest=False,
            on_line=lines.append,
        )  # fmt: skip
        return lines if done.code == 0 else []


def _in_the_way(layout: Layout) -> str:
    """What is at a place where a release puts a link, as a sentence's end with what to do; empty if nothing is."""
    if os.path.isdir(layout.current) and not os.path.islink(layout.current):
        return (
            f"{layout.current} is a folder, and has to be a link to one in {layout.releases}; move it there under a name "
            "such as the day, and link it (docs/migrating.md)"
        )
    if os.path.isdir(layout.current) and serving(layout) is None:
        place = os.path.realpath(layout.current)
        return f"{layout.current} leads to {place}, which is no folder in {layout.releases}; move it there, and link it anew (docs/migrating.md)"
    if os.path.lexists(layout.environment) and not os.path.islink(layout.environment):
        return f"{layout.environment} is there already and no link of Reflex, which keeps variables under that name; rename it"
    return ""


def _is_there(path: str) -> bool:
    return os.path.lexists(path)


def _venv_for(folder: str, venvs: Sequence[str]) -> str | None:
    """The virtual environment of a release: one inside of it, else one that its services run from."""
    for name in USUAL_VENVS:
        if os.path.isfile(f"{folder}/{name}/pyvenv.cfg"):
            return name
    return next((os.path.realpath(one) for one in venvs if os.path.isfile(f"{one}/pyvenv.cfg")), None)


def _owner(path: str) -> str:
    uid = os.stat(path).st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
