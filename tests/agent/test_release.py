"""The release of a running process, read from its folder and from git as it lies on disk."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.procfs import ProcFs
from agent.release.found import release_of

PROCFS = ProcFs(Path("/proc"))
Release = Callable[[Path], str | None]


@pytest.fixture
def release() -> Iterator[Release]:
    """The release of a process that works in a folder."""
    started: list[subprocess.Popen[bytes]] = []

    def of(folder: Path) -> str | None:
        started.append(subprocess.Popen(["sleep", "60"], cwd=folder))
        process = PROCFS.process(started[-1].pid)
        assert process is not None
        return release_of(PROCFS, process.pid, process.folder)

    yield of
    for process in started:
        process.kill()
        process.wait()


def _git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _repository(folder: Path) -> str:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder.mkdir()
    _git(folder, "init", "-q", "-b", "main")
    _git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    return _git(folder, "rev-parse", "HEAD")


def test_what_current_leads_to(tmp_path: Path, release: Release) -> None:
    (tmp_path / "releases" / "v12").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/v12")
    assert release(tmp_path / "current") == "v12"


def test_the_commit_of_a_checkout_and_of_a_folder_in_it(tmp_path: Path, release: Release) -> None:
    commit = _repository(tmp_path / "shop")
    (tmp_path / "shop" / "backend").mkdir()
    assert release(tmp_path / "shop") == commit[:12]
    assert release(tmp_path / "shop" / "backend") == commit[:12]


def test_a_branch_that_git_has_packed_a_detached_head_and_a_worktree(tmp_path: Path, release: Release) -> None:
    commit = _repository(tmp_path / "shop")
    _git(tmp_path / "shop", "worktree", "add", "-q", "-b", "next", str(tmp_path / "tree"))
    _git(tmp_path / "shop", "pack-refs", "--all")
    assert release(tmp_path / "shop") == commit[:12]
    assert release(tmp_path / "tree") == commit[:12]
    _git(tmp_path / "shop", "checkout", "-q", "--detach")
    assert release(tmp_path / "shop") == commit[:12]


def test_without_a_sign_it_is_unknown(tmp_path: Path, release: Release) -> None:
    assert release(tmp_path) is None
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: ../../../etc/passwd\n")
    assert release(tmp_path) is None
