"""A copy of the tree for the VMs to read: every kernel sees the same files, whatever is edited meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

# Hidden folders are caches, git's, and the environments, which the VM gets from where they are.
_LEFT_OUT = shutil.ignore_patterns(".*", "node_modules", "*.egg-info")
# Folders of the tree that are read in place. The copy has an empty folder, or the same link, at each.
READ_IN_PLACE = (".venv", ".reflex")


def take_snapshot(tree: Path, into: Path) -> None:
    """Copies sources, compiled files and built programs of `tree` to the new folder `into`; some 30 MB."""
    shutil.copytree(tree, into, ignore=_LEFT_OUT, symlinks=True)
    for name in READ_IN_PLACE:
        place = tree / name
        if place.is_symlink():
            (into / name).symlink_to(place.readlink())
        elif place.is_dir():
            (into / name).mkdir()


def folders_beside(tree: Path, pythons: list[Path]) -> list[Path]:
    """What else tests read: the folders in place, and homes of these interpreters that lie elsewhere (not in /usr)."""
    in_place = [tree / name for name in READ_IN_PLACE if (tree / name).is_dir() and not (tree / name).is_symlink()]
    homes = [home for python in pythons for home in (python.parent.parent.resolve(), python.resolve().parent.parent)]
    visible = [Path("/usr"), *in_place]
    elsewhere = [home for home in homes if home.is_dir() and not any(map(home.is_relative_to, visible))]
    return [*in_place, *dict.fromkeys(elsewhere)]
