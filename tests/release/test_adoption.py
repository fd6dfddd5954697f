"""Folders that Capistrano, Ansible and Fabric have deployed into: what is found there, what stays, and the way back to it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.release.adopt import Found, Survey
from agent.release.failure import ReleaseFailed
from agent.release.hired import Runner
from agent.release.layout import Layout
from agent.release.tidy import foreign_of, releases_of, serving, tidy
from agent.release.words import SYSTEM_PATH
from demo.deploying import Visitors
from demo.stage import HOST, ROOT, Stage, StageError, demo_python, free_port

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the runner becomes another user")

OLD, OLDER = "20240102030405", "20231224180000Z"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(slots=True)
class Folder:
    """An app's folder with two releases of others, of which the younger one serves."""

    base: Path
    runner: Runner
    said: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def layout(self) -> Layout:
        return Layout(str(self.base))

    @property
    def release(self) -> Path:
        return self.base / "releases" / OLD

    async def look(self, *venvs: str) -> Found | None:
        survey = Survey(self.layout, "nobody", self.runner, self.said.append, self.notes)
        return await survey.look({}, venvs, {"PATH": SYSTEM_PATH, "GIT_CONFIG_GLOBAL": f"{self.base}/gitconfig"})

    async def check(self) -> None:
        await Survey(self.layout, "nobody", self.runner, self.said.append, self.notes).check()

    def git(self, *words: str) -> str:
        me = ("-c", "user.name=A", "-c", "user.email=a@localhost", "-c", "safe.directory=*")
        return subprocess.run(["git", *me, *words], cwd=self.base, capture_output=True, text=True, check=True).stdout

    def own_all(self) -> None:
        subprocess.run(["chown", "-R", "nobody:", str(self.base)], check=True)


@pytest.fixture
def folder(home: Path, runner: Runner) -> Folder:
    base = home / "shop"
    for name in (OLD, OLDER):
        (base / "releases" / name).mkdir(parents=True)
    (base / "shared").mkdir()
    (base / "gitconfig").write_text("[safe]\n\tdirectory = *\n")
    (base / "current").symlink_to(f"{base}/releases/{OLD}")
    made = Folder(base, runner)
    made.git("init", "--quiet", "--bare", "repo.git")
    made.own_all()
    return made


async def test_capistranos_release_is_known_by_its_revision(folder: Folder) -> None:
    (folder.release / "REVISION").write_text(f"{COMMIT}\n")
    assert await folder.look() == Found(OLD, COMMIT)
    assert f"{OLD} serves here, commit {COMMIT[:12]}; Reflex has not made it" in folder.notes[0]
    assert "no virtual environment" in folder.notes[1]


async def test_a_relative_link_counts_as_an_absolute_one(folder: Folder) -> None:
    (folder.base / "current").unlink()
    (folder.base / "current").symlink_to(f"./releases/{OLDER}")
    assert serving(folder.layout) == OLDER
    assert await folder.look() == Found(OLDER, "")
    assert foreign_of(folder.layout) == [OLDER, OLD]


async def test_a_timestamp_in_the_revision_is_no_commit(folder: Folder) -> None:
    (folder.release / "REVISION").write_text(f"{OLD}\n")
    assert await folder.look() == Found(OLD, "")


async def test_a_clone_in_the_release_tells_its_commit(folder: Folder) -> None:
    clone = str(folder.release)
    folder.git("init", "--quiet", clone)
    folder.git("-C", clone, "commit", "--quiet", "--allow-empty", "--message", "one")
    folder.own_all()
    assert await folder.look() == Found(OLD, folder.git("-C", clone, "rev-parse", "HEAD").strip())


async def test_capistranos_log_tells_a_short_commit_which_the_repository_makes_whole(folder: Folder) -> None:
    tree = folder.git("--git-dir", "repo.git", "hash-object", "-t", "tree", "-w", "/dev/null").strip()
    whole = folder.git("--git-dir", "repo.git", "commit-tree", "-m", "one", tree).strip()
    folder.own_all()
    lines = [f"Branch main (at {whole[:8]}) deployed as release {OLD} by ada"]
    lines.append(f"Branch main (at 1234567) deployed as release {OLDER} by ada")
    (folder.base / "revisions.log").write_text("\n".join(lines) + "\n")
    assert await folder.look() == Found(OLD, whole)


async def test_a_virtual_environment_inside_gets_the_name_that_releases_have(folder: Folder) -> None:
    venv.create(folder.release / ".venv", with_pip=False)
    folder.own_all()
    await folder.look()
    assert os.readlink(folder.release / "venv") == ".venv"
    assert f"{OLD} has no venv: it gets a link of that name to .venv" in folder.said


async def test_a_virtual_environment_outside_is_that_of_its_services(folder: Folder) -> None:
    outside = folder.base / "shared" / "venv"
    venv.create(outside, with_pip=False)
    await folder.look(str(outside))
    assert os.readlink(folder.release / "venv") == str(outside)
    (folder.release / "venv").unlink()
    (folder.release / "venv").symlink_to("mine")
    await folder.look(str(outside))
    assert os.readlink(folder.release / "venv") == "mine"


async def test_what_is_known_already_is_not_looked_for(folder: Folder) -> None:
    own = "20261124T020304-1a2b3c4"
    (folder.base / "releases" / own).mkdir()
    (folder.base / "current").unlink()
    (folder.base / "current").symlink_to(f"releases/{own}")
    assert await folder.look() == Found(own, "")
    assert folder.notes == []


async def test_a_folder_that_is_ready_has_nothing_in_the_way(folder: Folder) -> None:
    await folder.check()


async def test_what_belongs_to_somebody_else_is_told_with_what_to_do(folder: Folder) -> None:
    os.chown(folder.base / "releases", 0, 0)
    with pytest.raises(ReleaseFailed) as failed:
        await folder.check()
    place = f"{folder.base}/releases"
    assert f"{place} belongs to root, and nobody, as whom this app is deployed, may not write there" in str(
        failed.value
    )
    assert f"run: chown -R nobody: {place}" in str(failed.value)


async def test_what_is_in_the_place_of_a_link_is_told(folder: Folder) -> None:
    (folder.base / "environment").write_text("MINE=1\n")
    with pytest.raises(ReleaseFailed, match="environment is there already and no link of Reflex"):
        await folder.check()
    (folder.base / "current").unlink()
    (folder.base / "current").symlink_to("shared")
    with pytest.raises(ReleaseFailed, match=r"current leads to .*/shop/shared, which is no folder in .*/releases"):
        await folder.check()
    (folder.base / "current").unlink()
    (folder.base / "current").mkdir()
    with pytest.raises(ReleaseFailed, match="current is a folder, and has to be a link"):
        await folder.check()
    assert (folder.base / "environment").read_text() == "MINE=1\n"


async def test_tidying_leaves_what_others_have_made(folder: Folder) -> None:
    own = [f"2026112{day}T020304-1a2b3c4" for day in range(4)]
    for name in own:
        (folder.base / "releases" / name).mkdir()
    for name in ("mine", "0123456789abcdef"):
        (folder.base / "venvs" / name).mkdir(parents=True)
    folder.own_all()
    await tidy(folder.layout, folder.runner, keep=2, besides=(own[0],), say=folder.said.append)
    assert releases_of(folder.layout) == [own[0], *own[2:]]
    assert foreign_of(folder.layout) == [OLDER, OLD]
    assert os.listdir(folder.base / "venvs") == ["mine"]
    assert any("2 releases that Reflex has not made are left alone" in line for line in folder.said)


# A folder that serves is taken over for real.

APP = "adopted"
SOURCE = """\
import http.cookies

VERSION = "{version}"


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(VERSION)))])
    return [VERSION.encode()]
"""
FILE = """\
app: adopted
repository: {home}/repository
hosts: [{host}]
user: nobody
folder: {home}/adopted
shared: [media, settings.ini]
web:
  - service: adopted-web
    app: web:app
    health: {{path: /}}
watch: {{for: 3s}}
"""


@dataclass(frozen=True, slots=True)
class Adopted:
    """An app that was deployed by Capistrano, and serves."""

    stage: Stage
    home: Path
    port: int

    @property
    def base(self) -> Path:
        return self.home / APP

    def git(self, *words: str) -> str:
        me = ("-c", "user.name=A", "-c", "user.email=a@localhost")
        done = subprocess.run(
            ["git", *me, *words], cwd=self.home / "repository", capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, version: str) -> str:
        (self.home / "repository" / "web.py").write_text(SOURCE.format(version=version))
        (self.home / "repository" / "requirements.txt").write_text("gunicorn >=23, <24\n")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", version)
        return self.git("rev-parse", "HEAD")

    async def lay_out(self, commit: str) -> None:
        """As Capistrano does: an export of the commit, its REVISION, an absolute link; and a virtual environment inside."""
        release = self.base / "releases" / OLD
        release.mkdir(parents=True)
        shutil.copy(self.home / "repository" / "web.py", release)
        (release / "REVISION").write_text(f"{commit}\n")
        (self.base / "shared" / "media").mkdir(parents=True)
        (self.base / "shared" / "settings.ini").write_text("[shop]\n")
        (self.base / "current").symlink_to(release)
        for command in (
            [str(shutil.which("python3", path=SYSTEM_PATH)), "-m", "venv", str(release / "venv")],
            [str(release / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "gunicorn >=23, <24"],
            ["chown", "-R", "nobody:", str(self.base)],
        ):
            process = await asyncio.create_subprocess_exec(*command)
            assert await process.wait() == 0

    async def serve(self) -> None:
        """By the link, under the keeper, as docs/migrating.md has it."""
        current = self.base / "current"
        gunicorn = [str(current / "venv" / "bin" / "python"), "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}"]
        gunicorn += ["--workers", "2", "--name", "adopted-web", "web:app"]
        keeper = [sys.executable, "-I", str(ROOT / "agent" / "release" / "keep.py"), "--", *gunicorn]
        become = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "env", f"PWD={current}"]
        await self.stage.start_program("adopted-web", [*become, *keeper], current)

        async def ready() -> bool:
            hosts = (await self.stage.get("/v1/hosts"))["hosts"]
            seen = [one for host in hosts for one in host["status"].get("services", []) if one["name"] == "adopted-web"]
            return any(worker["state"] == "ready" for one in seen for worker in one["workers"])

        await self.stage.until(ready, "adopted-web is not seen", within_s=60)

    async def ended(self, path: str) -> str:
        """Begins what the path asks for and waits; how it ended."""
        begun = (await self.stage.post(f"/v1/apps/{APP}/{path}", {}))["deploy"]

        async def is_done() -> str:
            now = await self.stage.get(f"/v1/deploys/{begun['id']}")
            return f"{now['outcome']}: {now['text']}" if now["stage"] == "done" else ""

        return str(await self.stage.until(is_done, f"the {path} does not end", within_s=200))


@pytest.fixture
async def adopted() -> AsyncIterator[Adopted]:
    try:
        demo_python()
    except StageError as error:
        pytest.skip(str(error))
    home = Path(f"/tmp/reflex-test-adopted-{os.getpid()}")
    (home / "repository").mkdir(parents=True, mode=0o755)
    async with Stage() as stage:
        (stage.folder / "policy.toml").write_text(f'[apps.{APP}]\nuser = "nobody"\nfolder = "{home}/{APP}"\n')
        await stage.restart_agent()
        made = Adopted(stage, home, free_port())
        made.git("init", "--quiet", "--initial-branch", "main", ".")
        yield made
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.timeout(400)
async def test_a_folder_that_serves_is_taken_over_and_its_release_is_gone_back_to(adopted: Adopted) -> None:
    first = adopted.commit("v1")
    await adopted.lay_out(first)
    await adopted.serve()
    second = adopted.commit("v2")
    await adopted.stage.put(f"/v1/apps/{APP}", {"text": FILE.format(home=adopted.home, host=HOST)})
    async with Visitors(adopted.port, a_second=50, host="localhost") as visitors:
        assert (await adopted.ended("deploy")).startswith("kept")
        deployed = visitors.turn()
        serving_now = serving(Layout(str(adopted.base)))
        assert serving_now is not None and serving_now.endswith(second[:7])
        assert (adopted.base / "current" / "settings.ini").read_text() == "[shop]\n"
        assert "went back" not in (said := await adopted.ended("rollback")), said
        back = visitors.turn()
        await adopted.stage.until(lambda: _answers(visitors, "v1"), "v1 does not answer again")
    assert (deployed.failed, back.failed, deployed.troubles + back.troubles) == (0, 0, [])
    assert set(deployed.versions) == {"v1", "v2"}
    assert serving(Layout(str(adopted.base))) == OLD
    prepared = (await adopted.stage.events(kind="release.prepared"))[0]
    assert f"{OLD} serves here, commit {first[:12]}" in prepared["text"]
    assert prepared["attrs"]["commits"] == f"{second[:12]} A: v2"


async def _answers(visitors: Visitors, version: str) -> bool:
    return visitors.counts.versions[version] > 0
