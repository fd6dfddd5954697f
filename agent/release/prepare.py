"""Makes a release beside the one that serves: fetched, built, checked, and booted once on a spare port."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import shutil
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from agent.release.adopt import Found, Survey
from agent.release.failure import ReleaseFailed
from agent.release.hired import Done, Runner, RunnerTrouble
from agent.release.layout import Layout, release_name
from agent.release.own import merged, told
from agent.release.own_file import MOST_BYTES, OwnFileWrong, read_own_file
from agent.release.probe import ask
from agent.release.words import (
    GIT_CONFIG,
    IMPORTS,
    READS,
    SYSTEM_PATH,
    WRITES,
    boot_argv,
    build_environment,
    environment_file,
    git_environment,
    is_private_key,
)
from agent.wire import Order
from agent.wire.app import Argv, Health, Web

GIT_S, SHORT_S = 600.0, 60.0
MOST_COMMITS = 50
BOOT_POLL_S = 0.1
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
MIB = 1024 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit, as the timeline tells of it."""

    id: str
    author: str
    subject: str


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
        self._order = order
        self._app = order.app
        self._runner = runner
        self._layout = Layout(order.app.folder)
        self._known = known
        self._venvs = venvs
        self._kinds = kinds
        self._bad = bad
        self._say = say
        self._stepped = stepped
        self._git = git_environment(self._layout, order.key, order.app.repository)
        self._notes: list[str] = []
        self._own: Mapping[str, Any] = {}
        self._release = ""
        self._is_first = False
        self._awaits_migration = False

    async def run(self) -> Prepared:
        """Raises ReleaseFailed; then nothing of the release is left but its log."""
        commit: Commit | None = None
        try:
            await self._step("folder", self._make_folder())
            await self._step("fetch", self._fetch())
            found = await self._step("found", self._survey().look(self._known, self._venvs, self._git))
            self._is_first = found is None
            commit = await self._step("commit", self._commit())
            if why := self._bad.get(commit.id):
                raise ReleaseFailed("commit", f"commit {commit.id[:12]} was bad ({why}) and is refused unless forced")
            if self._app.own_file:
                await self._step("settings", self._read_own(commit.id))
            self._release = release_name(time.strftime("%Y%m%dT%H%M%S", time.gmtime()), commit.id)
            await self._step("checkout", self._check_out(commit.id))
            await self._step("environment", self._write_environment())
            await self._step("venv", self._make_venv(commit.id))
            await self._step("build", self._build())
            await self._step("check", self._check())
            for web in self._app.web:
                await self._step("boot", self._boot(web))
            return Prepared(
                self._release, commit, await self._since(found, commit.id), tuple(self._notes), self._own, found
            )
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
        self._say(f"── {name}")
        began = time.monotonic()
        result = await work
        self._stepped(name, time.monotonic() - began)
        return result

    # The steps.

    async def _make_folder(self) -> None:
        await self._runner.make_folder()
        layout = self._layout
        folders = [layout.releases, layout.venvs, layout.shared, layout.own]
        await self._survey().check()
        await self._must("folder", ["mkdir", "-p", *folders], layout.folder)
        await self._must("folder", ["chmod", "700", layout.own], layout.folder)
        disk = os.statvfs(layout.folder)
        free_mb, least_mb = disk.f_bavail * disk.f_frsize // MIB, self._app.build.least_free_mb
        if free_mb < least_mb:
            raise ReleaseFailed(
                "folder", f"there are {free_mb} MB free at {layout.folder}, and {least_mb} MB are wanted"
            )

    def _survey(self) -> Survey:
        return Survey(self._layout, self._app.user, self._runner, self._say, self._notes)

    async def _fetch(self) -> None:
        layout, key = self._layout, self._order.key
        await self._write("fetch", f"{layout.own}/gitconfig", GIT_CONFIG)
        if is_private_key(key):
            await self._write("fetch", layout.key, key.strip() + "\n")
        await self._must("fetch", ["git", "init", "--quiet", "--bare", layout.mirror], layout.folder)
        refs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
        fetch = ["git", "fetch", "--prune", "--force", "--no-write-fetch-head", self._app.repository, *refs]
        await self._must("fetch", fetch, layout.mirror, seconds=GIT_S)

    async def _commit(self) -> Commit:
        ref = self._app.ref
        for named in (f"refs/heads/{ref}", f"refs/tags/{ref}", ref):
            done = await self._git_says("rev-parse", "--verify", "--quiet", "--end-of-options", f"{named}^{{commit}}")
            if done.code == 0:
                return (await self._log("-1", done.last[-1]))[0]
        raise ReleaseFailed("commit", f"{self._app.repository} has no branch, tag or commit {ref}")

    async def _since(self, found: Found | None, commit: str) -> tuple[Commit, ...]:
        current = "" if found is None else found.commit
        if not current or current == commit:
            return ()
        known = await self._git_says("cat-file", "-e", f"{current}^{{commit}}")
        return await self._log(f"-{MOST_COMMITS}", f"{current}..{commit}") if known.code == 0 else ()

    async def _log(self, most: str, what: str) -> tuple[Commit, ...]:
        lines: list[str] = []
        wanted = ["git", "log", most, "--format=%H%x09%an%x09%s", "--end-of-options", what]
        await self._runner.run(
            wanted, self._layout.mirror, self._git, seconds=SHORT_S, is_modest=False, on_line=lines.append
        )
        found = [line.split("\t", 2) for line in lines]
        return tuple(Commit(one[0], one[1][:100], one[2][:200]) for one in found if len(one) == 3)

    async def _read_own(self, commit: str) -> None:
        """From here on the app is as its own commit has it, where the server says nothing."""
        file = self._app.own_file
        size = await self._git_says("cat-file", "-s", f"{commit}:{file}")
        if size.code != 0 or not size.last[-1].isdigit():
            raise ReleaseFailed(
                "settings", f"there is no {file} in this commit, and the app has it say how it is built"
            )
        if int(size.last[-1]) > MOST_BYTES:
            raise ReleaseFailed("settings", f"{file} has {size.last[-1]} bytes; at most {MOST_BYTES}")
        lines: list[str] = []
        read = ["sh", "-c", READS, "sh", f"{commit}:{file}"]
        done = await self._runner.run(read, self._layout.mirror, self._git, seconds=SHORT_S, on_line=lines.append)
        try:
            self._own = await read_own_file(base64.b64decode("".join(lines)), self._app)
            self._app = merged(self._app, self._own)
        except OwnFileWrong as wrong:
            for line in str(wrong).splitlines():
                self._say(line)
            raise ReleaseFailed("settings", str(wrong).replace("\n", "; ")[:1_000]) from None
        except (OSError, ValueError) as error:
            raise ReleaseFailed("settings", f"{file} could not be read: {error} {_last(done)}") from None
        self._notes.append(f"{file} of the commit says {told(self._own) or 'nothing'}")

    async def _check_out(self, commit: str) -> None:
        layout, folder = self._layout, self._layout.release(self._release)
        await self._must("checkout", ["git", "worktree", "prune"], layout.mirror)
        await self._must(
            "checkout", ["git", "worktree", "add", "--quiet", "--detach", folder, commit], layout.mirror, seconds=GIT_S
        )
        if is_there(f"{folder}/.gitmodules"):
            modules = ["git", "submodule", "update", "--init", "--recursive", "--depth", "1"]
            await self._must("checkout", modules, folder, seconds=GIT_S)
        for shared in self._app.shared:
            if not is_there(f"{layout.shared}/{shared}"):  # a file that is there may be shared too
                await self._must("checkout", ["mkdir", "-p", f"{layout.shared}/{shared}"], folder)
            await self._must("checkout", ["mkdir", "-p", os.path.dirname(f"{folder}/{shared}")], folder)
            await self._must("checkout", ["rm", "-rf", "--", f"{folder}/{shared}"], folder)
            await self._must("checkout", ["ln", "-s", f"{layout.shared}/{shared}", f"{folder}/{shared}"], folder)

    async def _write_environment(self) -> None:
        variables = {**self._app.environment, **self._order.secrets}
        await self._write(
            "environment", f"{self._layout.release(self._release)}/.environment", environment_file(variables)
        )

    async def _make_venv(self, commit: str) -> None:
        kind, file = self._requirements()
        key = await self._venv_key(kind, commit)
        venv, folder = f"{self._layout.venvs}/{key}", self._layout.release(self._release)
        if is_there(f"{venv}/{COMPLETE}"):
            self._say(f"the requirements are those of before: {venv} is used again")
        else:
            await self._must("venv", ["rm", "-rf", "--", venv], folder)
            await self._make_new_venv(venv, kind, file)
        await self._must("venv", ["ln", "-s", f"../../venvs/{key}", "venv"], folder)

    async def _make_new_venv(self, venv: str, kind: str, file: str) -> None:
        folder, uv, python = self._layout.release(self._release), _uv(), self._app.build.python
        within_s = self._app.build.within_s
        make = [uv, "venv", "--quiet", "--python", python, venv] if uv else [python, "-m", "venv", venv]
        await self._must("venv", make, folder, seconds=within_s)
        into = f"{venv}/bin/python"
        if kind == "lock":
            if not uv:
                raise ReleaseFailed("venv", "the requirements are in uv.lock, and there is no uv on this host")
            other = {"UV_PROJECT_ENVIRONMENT": venv}
            sync = [uv, "sync", "--frozen", "--no-dev", "--no-install-project"]
            await self._must("venv", sync, folder, seconds=within_s, other=other)
        elif kind:
            pip = [uv, "pip", "install", "--python", into] if uv else [into, "-m", "pip", "install", "--quiet"]
            await self._must("venv", [*pip, *(["-r", file] if kind == "file" else ["."])], folder, seconds=within_s)
        await self._must("venv", ["touch", f"{venv}/{COMPLETE}"], folder)

    def _requirements(self) -> tuple[str, str]:
        """What the requirements are in: a `file`, uv's `lock`, the `project` itself, or nothing; and the file's name."""
        folder, named = self._layout.release(self._release), self._app.build.requirements
        if named:
            if not is_there(f"{folder}/{named}"):
                raise ReleaseFailed("venv", f"there is no {named} in this commit")
            return "lock" if named == "uv.lock" else "file", named
        for kind, file in (("lock", "uv.lock"), ("file", "requirements.txt"), ("project", "pyproject.toml")):
            if is_there(f"{folder}/{file}"):
                return kind, file
        return "", ""

    async def _venv_key(self, kind: str, commit: str) -> str:
        """The same for releases that want the same: the interpreter, and all files that may say what is wanted."""
        version = await self._must("venv", [self._app.build.python, "-VV"], self._layout.folder)
        files: list[str] = []
        listed = ["git", "ls-tree", "-r", commit, "--", *LOCKS, *filter(None, [self._app.build.requirements])]
        await self._runner.run(listed, self._layout.mirror, self._git, seconds=SHORT_S, on_line=files.append)
        whole = commit if kind == "project" else ""
        return hashlib.sha256("\n".join([*version.last, *files, kind, whole]).encode()).hexdigest()[:16]

    async def _build(self) -> None:
        for command in self._app.build.commands:
            await self._must_app("build", command, self._app.build.within_s)

    async def _check(self) -> None:
        folder = self._layout.release(self._release)
        for web in self._app.web:
            if web.app:
                await self._must_app("check", ("python", "-c", IMPORTS, web.app), web.boot_s, shown=f"import {web.app}")
        if is_there(f"{folder}/manage.py"):
            await self._check_django()
        for command in self._app.checks:
            await self._must_app("check", command, self._app.build.within_s)

    async def _check_django(self) -> None:
        """What Django itself can say of a release; its warnings are in the log, its errors end the deploy."""
        is_left_to_us = not self._app.checks
        if is_left_to_us:
            check = ("python", "manage.py", "check", "--deploy", "--fail-level", "ERROR")
            await self._must_app("check", check, SHORT_S)
            made = await self._as_app(("python", "manage.py", "makemigrations", "--check", "--dry-run"), SHORT_S)
            if made.code == 1:
                self._notes.append("models have changed in ways that no migration has")
        if not is_left_to_us and self._app.migrate is None:
            return
        pending = await self._as_app(("python", "manage.py", "migrate", "--check"), SHORT_S)
        if pending.code == 1 and self._app.migrate is None:
            raise ReleaseFailed(
                "check", "there are migrations to apply, and the app names no command for it (migrate:)"
            )
        if pending.code == 1:
            self._awaits_migration = True
            self._notes.append("there are migrations to apply")

    async def _boot(self, web: Web) -> None:
        """One worker on a spare port answers: what does not boot there would not boot under traffic."""
        if not web.app:
            self._notes.append(f"{web.service} was not booted beside: its app is not named (web.app)")
            return
        folder, port = self._layout.release(self._release), _spare_port()
        kind = self._kinds.get(web.service, "gunicorn")
        try:
            argv = boot_argv(kind, f"{web.service}-boot", web.app, port, folder)
        except ValueError as error:
            self._notes.append(f"{web.service} was not booted beside: {error}")
            return
        booting = asyncio.ensure_future(
            self._runner.run(argv, folder, self._environment(), seconds=web.boot_s + SHORT_S, on_line=self._say)
        )
        try:
            await self._until_well(web, port, booting)
        finally:
            booting.cancel()
            await asyncio.gather(booting, return_exceptions=True)

    async def _until_well(self, web: Web, port: int, booting: asyncio.Future[Done]) -> None:
        ends_s, health = time.monotonic() + web.boot_s, web.health
        while True:
            answer = await ask(health or Health(), f"127.0.0.1:{port}")
            if not answer.trouble or (health is None and 0 < answer.status < 500):
                self._say(f"booted on port {port}: {answer.status} in {answer.took_ms:g} ms")
                return
            if answer.status and self._is_first and self._awaits_migration:
                self._say(f"booted on port {port}: {answer.status}; nothing has made the tables of the database yet")
                self._notes.append(
                    f"booted beside, {web.service} {answer.trouble}, as may be before the first migration"
                )
                return
            if booting.done():
                raise ReleaseFailed("boot", f"{web.app} did not boot: {_last(booting.result())}")
            if time.monotonic() > ends_s:
                raise ReleaseFailed("boot", f"{web.app}, booted on a spare port, {answer.trouble}")
            await asyncio.sleep(BOOT_POLL_S)

    # How programs are run.

    def _environment(self) -> dict[str, str]:
        return build_environment(self._app, self._layout, self._release, self._order.secrets)

    async def _as_app(self, command: Argv, seconds: float, shown: str = "") -> Done:
        """Runs a command of the app in the release; a program of its virtual environment goes before others."""
        folder = self._layout.release(self._release)
        self._say(f"$ {shown or ' '.join(command)}")
        own = f"{folder}/venv/bin/{command[0]}"
        argv = (own, *command[1:]) if "/" not in command[0] and is_there(own) else command
        return await self._runner.run(argv, folder, self._environment(), seconds=seconds, on_line=self._say)

    async def _must_app(self, step: str, command: Argv, seconds: float, shown: str = "") -> None:
        done = await self._as_app(command, seconds, shown)
        if done.code != 0:
            raise ReleaseFailed(step, f"{shown or ' '.join(command)[:200]} {_ended(done, seconds)}")

    async def _must(
        self,
        step: str,
        argv: Sequence[str],
        folder: str,
        *,
        seconds: float = SHORT_S,
        other: Mapping[str, str] | None = None,
    ) -> Done:
        environment = self._git if argv[0] == "git" else {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"}
        if step == "venv":
            environment = {**self._environment(), **(other or {})}
        done = await self._runner.run(argv, folder, environment, seconds=seconds, on_line=self._say)
        if done.code != 0:
            raise ReleaseFailed(step, f"{' '.join(argv)[:200]} {_ended(done, seconds)}")
        return done

    async def _git_says(self, *words: str) -> Done:
        return await self._runner.run(["git", *words], self._layout.mirror, self._git, seconds=SHORT_S, is_modest=False)

    async def _write(self, step: str, path: str, text: str) -> None:
        """Writes a file for its owner's eyes only; it appears whole or not at all."""
        argv = ["sh", "-c", WRITES, "sh", path]
        environment = {"PATH": SYSTEM_PATH}
        done = await self._runner.run(argv, self._layout.folder, environment, seconds=SHORT_S, given=text)
        if done.code != 0:
            raise ReleaseFailed(step, f"{path} could not be written: {_last(done)}")

    async def _remove(self) -> None:
        """Takes a release away that will not serve."""
        if not self._release:
            return
        folder = self._layout.release(self._release)
        try:
            remove = ["git", "worktree", "remove", "--force", folder]
            await self._runner.run(remove, self._layout.mirror, self._git, seconds=SHORT_S)
            await self._runner.run(
                ["rm", "-rf", "--", folder], self._layout.folder, {"PATH": SYSTEM_PATH}, seconds=SHORT_S
            )
        except RunnerTrouble as trouble:
            self._say(f"{folder} could not be removed: {trouble}")


def _ended(done: Done, seconds: float) -> str:
    if done.code is None:
        return f"took longer than {seconds:g} s and was ended"
    return f"ended with code {done.code}: {_last(done)}"


def _last(done: Done) -> str:
    return next((line.strip()[:300] for line in reversed(done.last) if line.strip()), "it said nothing")


def is_there(path: str) -> bool:
    """Whether there is something at a path, which a link may lead to."""
    return os.path.exists(path)


def _uv() -> str:
    return shutil.which("uv", path=SYSTEM_PATH) or ""


def _spare_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
