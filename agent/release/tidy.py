"""Removes releases that are not kept any more, and virtual environments that none of the kept uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from agent.release.hired import Runner
from agent.release.layout import NAMED, RELEASE, Layout
from agent.release.words import SYSTEM_PATH, git_environment

REMOVE_S = 300.0


def releases_of(layout: Layout) -> list[str]:
    """The releases that are there, oldest first."""
    try:
        return sorted(name for name in os.listdir(layout.releases) if RELEASE.fullmatch(name))
    except OSError:
        return []


def current_of(layout: Layout) -> str | None:
    """The release that the link names, where the app's user can write what it wants; None where it names none."""
    try:
        name = os.path.basename(os.readlink(layout.current))
    except OSError:
        return None
    return name if NAMED.fullmatch(name) else None


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
    used = {_venv_of(layout, name) for name in releases_of(layout)}
    for name in _listed(layout.venvs):
        if name not in used:
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
