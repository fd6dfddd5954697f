"""Which release of its code a service runs: the folder below `releases`, else the commit that git has checked out."""

from __future__ import annotations

import re

from agent.naming import release_folder
from agent.procfs import ProcFs

COMMIT_CHARS = 12
_FOLDERS_UP = 3
_COMMIT = re.compile(r"^[0-9a-f]{40}([0-9a-f]{24})?$")
_LONGEST = 200


def release_of(procfs: ProcFs, pid: int, folder: str) -> str | None:
    """The release of a process whose working folder is `folder`; None where nothing tells it.

    A working folder is what a symlink such as `current` led to when the process went there.
    """
    named = release_folder(folder)
    return named if named is not None else _commit(procfs, pid)


def _commit(procfs: ProcFs, pid: int) -> str | None:
    for up in range(_FOLDERS_UP):
        git = "../" * up + ".git"
        head = procfs.file_text(pid, f"{git}/HEAD").strip()
        if not head:  # a worktree has a file there that names the folder
            git = procfs.file_text(pid, git).strip().removeprefix("gitdir: ") or git
            head = procfs.file_text(pid, f"{git}/HEAD").strip()
        if head:
            return _shortened(_resolved(procfs, pid, git, head))
    return None


def _resolved(procfs: ProcFs, pid: int, git: str, head: str) -> str:
    if not head.startswith("ref: "):
        return head
    ref = head.removeprefix("ref: ")
    common = procfs.file_text(pid, f"{git}/commondir").strip()
    places = [git, f"{git}/{common}" if common else git]
    for place in places:
        found = procfs.file_text(pid, f"{place}/{ref}").strip() if ".." not in ref else ""
        if found:
            return found
        for line in procfs.file_text(pid, f"{place}/packed-refs").splitlines():
            commit, _, name = line.partition(" ")
            if name == ref:
                return commit
    return ""


def _shortened(commit: str) -> str | None:
    return commit[:COMMIT_CHARS] if len(commit) < _LONGEST and _COMMIT.match(commit) else None
