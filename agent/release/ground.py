"""What every change of a service stands on: whose it is, what it runs, how it is started and ended."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.acting import ActFailed, Performer
from agent.actions.action import CannotAct, ServiceView
from agent.actions.steps import AskCircus, AskSupervisor, RunCommand, SendSignal, Step, WaitGone
from agent.release.choice import runs_release, venv_of
from agent.release.failure import ReleaseFailed
from agent.release.hired import Runner
from agent.release.layout import Layout
from agent.release.starting import start_absent
from agent.release.switched import Switched
from agent.wire import Order
from agent.wire.app import App, Jobs, Start, Web


@dataclass(frozen=True, slots=True)
class Means:
    """What a switch is done with. `say` gets lines of the log, `stepped` the name of each step and its seconds.

    `supervisor` is the socket of the supervisor that may be asked to start what does not run; empty: none. `is_cut`: an
    earlier try was cut off in the middle, so that some of it may be done.
    """

    order: Order
    runner: Runner
    performer: Performer
    supervisor: str
    say: Callable[[str], None]
    stepped: Callable[[str, float], None]
    is_cut: bool


class Ground:
    """One app on this host, as one of its releases has it."""

    def __init__(self, means: Means, app: App) -> None:
        self._order = means.order
        self._app = app
        self._runner = means.runner
        self._performer = means.performer
        self._layout = Layout(app.folder)
        self._supervisor = means.supervisor
        self._say = means.say
        self._stepped = means.stepped
        self._is_cut = means.is_cut

    def view(self, name: str) -> ServiceView | None:
        """The service, if it runs. Raises ReleaseFailed where it is another's."""
        view = self._performer.view(name, None)
        return None if view is None else self.own(view)

    def own(self, view: ServiceView) -> ServiceView:
        """The same, if it is the app's: an order names services as it likes, and the policy of the host has let an app be
        deployed, which has a user and a folder. Raises ReleaseFailed."""
        process = self._performer.process(view.master)
        if process is None or self.is_inside(view) or view.uid == pwd.getpwnam(self._app.user).pw_uid:
            return view
        whose = f"it runs as {_user(view.uid)} in {process.folder}, and the app is {self._app.user}'s in {self._layout.folder}"
        raise ReleaseFailed("switch", f"{view.name} is no service of {self._app.name}: {whose}")

    def is_inside(self, view: ServiceView) -> bool:
        """Whether a master works in the app's folder, or is gone."""
        process, base = self._performer.process(view.master), os.path.realpath(self._layout.folder)
        return process is None or process.folder == base or process.folder.startswith(f"{base}/")

    def is_wrong(self, view: ServiceView, release: str) -> str:
        """Why a master does not run the release; empty if it does."""
        process = self._performer.process(view.master)
        if process is None:
            return "it is gone"
        folder = os.path.realpath(self._layout.release(release))
        venv = venv_of(view.argv)
        real = None if venv is None else os.path.realpath(venv)
        own = os.path.realpath(f"{folder}/venv") if os.path.isdir(f"{folder}/venv") else None
        return runs_release(os.path.realpath(process.folder), real, folder, own)

    def start_step(self, view: ServiceView, within_s: float, *, only: bool) -> Step:
        """Lets whoever manages the service start it again; `only` where it does not run."""
        manager = view.manager
        assert manager is not None
        if manager.kind == "systemd":
            verb = "start" if only else "restart"
            return RunCommand(("systemctl", verb, manager.name), within_s, f"{verb} by systemd")
        if manager.kind == "circus":
            if not manager.name:
                raise ReleaseFailed("restart", f"circus has not told which of its watchers starts {view.name}")
            return AskCircus(manager.socket, manager.name, within_s, only_start=only)
        return AskSupervisor(manager.socket, manager.name, within_s, only_start=only)

    def came_by_itself(self, view: ServiceView | None, release: str, done: Switched) -> bool:
        """Whether its manager has started a service that did not run: it may try again and again, and the link is there now."""
        return view is not None and view.name in done.absent and not self.is_wrong(view, release)

    async def start_absent(self, one: Web | Jobs, start: Start | None, release: str, done: Switched) -> None:
        """Lets a service run that did not, for the first time as a rule. Without `start` it runs by now, and gets ready."""
        began = time.monotonic()
        view = await start_absent(self._performer, one.service, start, supervisor=self._supervisor, within_s=one.boot_s)
        if wrong := self.is_wrong(view, release):
            raise ReleaseFailed("start", f"{one.service} was started and does not run {release}: {wrong}")
        done.ways[one.service] = "started"
        by = start.name if start is not None else "its manager by itself"
        self._say(f"{one.service} did not run; it was started by {by} and runs {release}")
        self._stepped(f"start of {one.service}", time.monotonic() - began)

    async def retire(self, view: ServiceView, within_s: float) -> None:
        """Ends a master in good order, and by force if it does not go."""
        if self._performer.process(view.master) is None:
            return
        steps = (
            SendSignal(view.master, "TERM", "it is not wanted any more"),
            WaitGone(view.master, within_s, then_kill=True),
        )
        try:
            await self._performer.perform(steps, None)
        except (ActFailed, CannotAct) as error:
            self._say(f"{view.name} (pid {view.master.pid}) could not be ended: {error}")


def _user(uid: int) -> str:
    """A user's name; the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return f"user {uid}"
