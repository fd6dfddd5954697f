"""A release in the making, and how programs are run for it: as the app's user, with the log listening."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from agent.release.failure import ReleaseFailed
from agent.release.hired import Done, Runner
from agent.release.layout import Layout
from agent.release.words import SYSTEM_PATH, WRITES, build_environment, git_environment
from agent.wire import Order
from agent.wire.app import Argv

GIT_S, SHORT_S = 600.0, 60.0


class Workshop:
    """What all parts of a preparation share.

    `app` is the order's until the commit's own file says more; `release` is empty until it has a name. `notes` are what
    the timeline tells beside the outcome.
    """

    def __init__(self, order: Order, runner: Runner, say: Callable[[str], None]) -> None:
        """`say` gets each line of the log."""
        self.order = order
        self.app = order.app
        self.runner = runner
        self.say = say
        self.layout = Layout(order.app.folder)
        self.git = git_environment(self.layout, order.key, order.app.repository)
        self.notes: list[str] = []
        self.release = ""

    @property
    def folder(self) -> str:
        """Where the release is."""
        return self.layout.release(self.release)

    def environment(self) -> dict[str, str]:
        """What the app's own programs find in their environment."""
        return build_environment(self.app, self.layout, self.release, self.order.secrets)

    async def as_app(self, command: Argv, seconds: float, shown: str = "") -> Done:
        """Runs a command of the app in the release; a program of its virtual environment goes before others."""
        self.say(f"$ {shown or ' '.join(command)}")
        own = f"{self.folder}/venv/bin/{command[0]}"
        argv = (own, *command[1:]) if "/" not in command[0] and is_there(own) else command
        return await self.runner.run(argv, self.folder, self.environment(), seconds=seconds, on_line=self.say)

    async def must_app(self, step: str, command: Argv, seconds: float, shown: str = "") -> None:
        """The same, for a command that has to succeed. Raises ReleaseFailed and RunnerTrouble."""
        done = await self.as_app(command, seconds, shown)
        if done.code != 0:
            raise ReleaseFailed(step, f"{shown or ' '.join(command)[:200]} {ended(done, seconds)}")

    async def must(
        self,
        step: str,
        argv: Sequence[str],
        folder: str,
        *,
        seconds: float = SHORT_S,
        other: Mapping[str, str] | None = None,
    ) -> Done:
        """Runs one of our own programs, which has to succeed, as the app's user. Raises ReleaseFailed and RunnerTrouble."""
        environment = self.git if argv[0] == "git" else {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"}
        if step == "venv":
            environment = {**self.environment(), **(other or {})}
        done = await self.runner.run(argv, folder, environment, seconds=seconds, on_line=self.say)
        if done.code != 0:
            raise ReleaseFailed(step, f"{' '.join(argv)[:200]} {ended(done, seconds)}")
        return done

    async def git_says(self, *words: str) -> Done:
        """What git says of the mirror, whatever that is."""
        return await self.runner.run(["git", *words], self.layout.mirror, self.git, seconds=SHORT_S, is_modest=False)

    async def write(self, step: str, path: str, text: str) -> None:
        """Writes a file for its owner's eyes only; it appears whole or not at all."""
        argv = ["sh", "-c", WRITES, "sh", path]
        environment = {"PATH": SYSTEM_PATH}
        done = await self.runner.run(argv, self.layout.folder, environment, seconds=SHORT_S, given=text)
        if done.code != 0:
            raise ReleaseFailed(step, f"{path} could not be written: {last(done)}")


def ended(done: Done, seconds: float) -> str:
    """How a program ended that did not succeed, as the end of a sentence."""
    if done.code is None:
        return f"took longer than {seconds:g} s and was ended"
    return f"ended with code {done.code}: {last(done)}"


def last(done: Done) -> str:
    """The last that it said."""
    return next((line.strip()[:300] for line in reversed(done.last) if line.strip()), "it said nothing")


def is_there(path: str) -> bool:
    """Whether there is something at a path, which a link may lead to."""
    return os.path.exists(path)
