"""Which releases are there; removes those that are not kept any more, and virtual environments that none of the kept uses.

Only what Reflex has made is counted and removed: releases and virtual environments of others stay until a person removes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from agent.release.hired import Runner
from agent.release.layout import FOREIGN, RELEASE, VENV, Layout
from agent.release.words import SYSTEM_PATH, git_environment

REMOVE_S = 300.0


def releases_of(layout: Layout) -> list[str]:
    """The releases that Reflex has made, oldest first."""
    return [name for name in _listed(layout.releases) if RELEASE.fullmatch(name)]


def foreign_of(layout: Layout) -> list[str]:
    """The releases that others have made."""
    names = (name for name in _listed(layout.releases) if FOREIGN.fullmatch(name) and not RELEASE.fullmatch(name))
    return [name for name in names if os.path.isdir(layout.release(name))]


def serving(layout: Layout) -> str | None:
    """The release that `current` leads to, whoever made it; None where it leads to none. The app's user can write what it wants there."""
    place = os.path.realpath(layout.current)
    name, is_inside = os.path.basename(place), os.path.dirname(place) == os.path.realpath(layout.releases)
    return name if is_inside and os.path.isdir(place) and FOREIGN.fullmatch(name) else None


async def tidy(
    layout: Layout, runner: Runner, *, keep: int, besides: Collection[str], say: Callable[[str], None]
) -> None:
    """Leaves the `keep` youngest releases and those of `besides`. Raises RunnerTrouble."""
    there = releases_of(layout)
    for name in there[: max(len(there) - keep, 0)]:
        if name in besides:
            continue
        say(f"release {name} is removed: {keep} are kept")
        remove = ["git", "worktree", "remove", "--force", layout.release(name)]
        await runner.run(remove, layout.mirror, git_environment(layout, ""), seconds=REMOVE_S)
        await runner.run(
            ["rm", "-rf", "--", layout.release(name)], layout.folder, {"PATH": SYSTEM_PATH}, seconds=REMOVE_S
        )
    others = foreign_of(layout)
    if others:
        say(
            f"{len(others)} releases that Reflex has not made are left alone; the oldest is {layout.release(others[0])}"
        )
    used = {_venv_of(layout, name) for name in [*releases_of(layout), *others]}
    for name in _listed(layout.venvs):
        if name not in used and VENV.fullmatch(name):
            say(f"virtual environment {name} is removed: no release uses it")
            remove = ["rm", "-rf", "--", f"{layout.venvs}/{name}"]
            await runner.run(remove, layout.folder, {"PATH": SYSTEM_PATH}, seconds=REMOVE_S)


def _venv_of(layout: Layout, release: str) -> str:
    return os.path.basename(os.path.realpath(f"{layout.release(release)}/venv"))


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
