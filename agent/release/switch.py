"""Puts a release to work: the link, then the web and the Celery nodes as one step; back again if that fails half way."""

from __future__ import annotations

import asyncio
import os
import pwd
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.acting import ActFailed, Performer
from agent.actions.action import CannotAct, ServiceView
from agent.actions.steps import (
    AskCircus,
    AskSupervisor,
    RunCommand,
    SendSignal,
    Step,
    WaitCount,
    WaitGone,
    WaitNewMaster,
    WaitNewReady,
)
from agent.managers import holds_socket, is_keeper
from agent.release.choice import (
    BY_KEEPER,
    NoWay,
    Standing,
    Way,
    bridge_argv,
    runs_release,
    venv_of,
    way_of,
)
from agent.release.failure import ReleaseFailed
from agent.release.hired import Runner, RunnerTrouble
from agent.release.layout import Layout
from agent.release.prepare import BOOT_POLL_S, SHORT_S
from agent.release.starting import start_absent, started
from agent.release.tidy import serving
from agent.release.words import SYSTEM_PATH, build_environment
from agent.wire import Order, Target
from agent.wire.app import App, Jobs, Start, Web

GRACE_S = 60.0
"""How long requests may take that an old master still has when a new one serves."""

STRANGERS_S = 10.0
"""How long children of a master may take to show whether they are a second one that an earlier try began."""

LINKS = 'while [ $# -gt 1 ]; do ln -sfnT "$1" "$2.new" && mv -fT "$2.new" "$2" || exit; shift 2; done'
"""For sh: makes links, given as pairs of target and link, each in one step, whatever was there."""


@dataclass(slots=True)
class Switched:
    """What was done: `before` is the release that served, `ways` how each service changed, `notes` what to know of it."""

    before: str | None
    release: str
    ways: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    web_s: float = 0.0
    """After how long every service that answers requests ran the release."""


@dataclass(slots=True)
class _Bridge:
    """A node of the new release that consumes while the one before it finishes."""

    jobs: Jobs
    old: ServiceView
    node: ServiceView | None


class Switch:
    """Changes the release that serves. `say` gets lines of the log, `stepped` the name of each step and its seconds."""

    def __init__(
        self,
        order: Order,
        runner: Runner,
        performer: Performer,
        *,
        supervisor: str = "",
        say: Callable[[str], None],
        stepped: Callable[[str, float], None],
        is_cut: bool = False,
        as_of: Callable[[App, str], App] = lambda app, _release: app,
    ) -> None:
        """`supervisor` is the socket of the supervisor that may be asked to start what does not run; empty: none.

        `is_cut`: an earlier try was cut off in the middle, so that some of it may be done. `as_of` says how an app is run in
        one of its releases.
        """
        self._order = order
        self._is_cut = is_cut
        self._supervisor = supervisor
        self._as_of = as_of
        self._app = order.app
        self._runner = runner
        self._performer = performer
        self._layout = Layout(order.app.folder)
        self._say = say
        self._stepped = stepped

    @property
    def current(self) -> str | None:
        """The release that the link names."""
        return serving(self._layout)

    async def to(self, release: str, *, before: str, is_back: bool = False) -> Switched:
        """Lets every service of the app serve the release. Raises ReleaseFailed when the release before serves again, or still.

        `before` is what served when this was begun, empty where nothing did.
        On the way back what answers requests goes first; on the way there a node takes new tasks before the web sends any.
        """
        done, began = Switched(before or None, release), time.monotonic()
        self._app = self._as_of(self._order.app, release)
        for web in self._app.web:
            await self._settle(web)
        self._check_ways(done)
        await self._link(release)
        changed: list[Web] = []
        bridges: list[_Bridge] = []
        try:
            for jobs in self._app.jobs if not is_back else ():
                bridges += await self._begin(jobs, release, done)
            for web in self._app.web:
                changed.append(web)
                await self._change(web, release, done)
            done.web_s = time.monotonic() - began
            for jobs in self._app.jobs if is_back else ():
                bridges += await self._begin(jobs, release, done)
            for bridge in bridges:
                await self._finish(bridge, release, done)
        except (ReleaseFailed, ActFailed, CannotAct, RunnerTrouble, NoWay) as error:
            where = await self._take_back(done.before, changed, bridges)
            raise ReleaseFailed(getattr(error, "step", "switch"), f"{error}; {where}") from None
        return done

    async def _take_back(self, before: str | None, changed: Sequence[Web], bridges: Sequence[_Bridge]) -> str:
        """Makes the release before serve again after a switch that failed; what is so now, as the end of a sentence."""
        if before is None:
            return "there is no release before it to go back to"
        troubles = []
        as_before = {web.service: web for web in self._as_of(self._order.app, before).web}
        try:
            await self._link(before)
        except (ReleaseFailed, RunnerTrouble) as error:
            troubles.append(f"the link current could not be set back: {error}")
        for web in changed:
            try:
                view = self._view(web.service)
                if view is not None and not self._is_wrong(view, before):
                    continue
                await self._change(as_before.get(web.service, web), before, Switched(None, before))
            except (ReleaseFailed, ActFailed, CannotAct, RunnerTrouble, NoWay) as error:
                troubles.append(f"{web.service} could not be taken back: {error}")
        for bridge in bridges:
            troubles += await self._take_bridge_back(bridge, before)
        return "; ".join(troubles) or f"{before} serves"

    async def _take_bridge_back(self, bridge: _Bridge, before: str) -> list[str]:
        """Ends the second node, once the first one consumes again; what could not be done."""
        jobs, old = bridge.jobs, bridge.old
        if self._performer.view(jobs.service, None) is None and old.manager is not None:
            try:
                await self._started_again(jobs, old, before)
            except (ReleaseFailed, ActFailed, CannotAct) as error:
                left = " and a node of the release that failed consumes in its place" if bridge.node is not None else ""
                return [f"{jobs.service} could not be started again: {error}{left}"]
        if bridge.node is not None:
            await self._retire(bridge.node, jobs.drain_s)
        return []

    def _check_ways(self, done: Switched) -> None:
        """Nothing is begun that could not be done for every service."""
        for jobs in self._app.jobs:
            self._view(jobs.service)
        for web in self._app.web:
            view = self._view(web.service)
            try:
                done.ways[web.service] = "" if view is None else self._way(web, view)
            except NoWay as error:
                raise ReleaseFailed("switch", str(error)) from None

    async def _link(self, release: str) -> None:
        layout = self._layout
        pairs = (f"releases/{release}", layout.current, self._variables(release), layout.environment)
        done = await self._runner.run(
            ["sh", "-c", LINKS, "sh", *pairs],
            layout.folder,
            {"PATH": SYSTEM_PATH},
            seconds=SHORT_S,
            is_modest=False,
            on_line=self._say,
        )
        if done.code != 0:
            raise ReleaseFailed("switch", f"{layout.current} could not be set: {' '.join(done.last)[:300]}")

    def _view(self, name: str) -> ServiceView | None:
        """The service, if it runs. Raises ReleaseFailed where it is another's."""
        view = self._performer.view(name, None)
        return None if view is None else self._own(view)

    def _own(self, view: ServiceView) -> ServiceView:
        """The same, if it is the app's: an order names services as it likes, and the policy of the host has let an app be
        deployed, which has a user and a folder. Raises ReleaseFailed."""
        process = self._performer.process(view.master)
        if process is None or self._is_inside(view) or view.uid == pwd.getpwnam(self._app.user).pw_uid:
            return view
        whose = f"it runs as {_user(view.uid)} in {process.folder}, and the app is {self._app.user}'s in {self._layout.folder}"
        raise ReleaseFailed("switch", f"{view.name} is no service of {self._app.name}: {whose}")

    def _is_inside(self, view: ServiceView) -> bool:
        """Whether a master works in the app's folder, or is gone."""
        process, base = self._performer.process(view.master), os.path.realpath(self._layout.folder)
        return process is None or process.folder == base or process.folder.startswith(f"{base}/")

    def _variables(self, release: str) -> str:
        """Where the file of variables is that goes with a release; one that others have made has none, and takes the one before."""
        before = self.current
        if before and not os.path.lexists(f"{self._layout.release(release)}/.environment"):
            return f"releases/{before}/.environment"
        return "current/.environment"

    # Services that answer requests.

    def _way(self, web: Web, view: ServiceView) -> Way:
        settings = self._performer.settings(view)
        parent = self._performer.parent(view.master)
        argv = () if parent is None else parent.argv
        standing = Standing(
            is_keeper(argv),
            bool(settings.preload),
            holds_socket(argv),
            settings.finishes_on_term,
            self._is_inside(view),
        )
        return way_of(web, view, standing)

    async def _change(self, web: Web, release: str, done: Switched) -> None:
        view = self._view(web.service)
        if view is None and web.start is not None:
            await self._start_absent(web, web.start, release, done)
            return
        if view is None:
            done.ways[web.service] = "none"
            done.notes.append(
                f"{web.service} does not run on this host; once it is started from {self._layout.current}, it serves {release}"
            )
            return
        began, way = time.monotonic(), self._way(web, view)
        if await self._is_done(web, view, release):
            self._say(f"{web.service} runs {release} already")
        elif way == "handover":
            done.notes += await self._hand_over(web, view, release)
        elif way == "reload":
            await self._reload(web, view, release)
        else:
            await self._restart(web, view, release)
        done.ways[web.service] = way
        took_s = time.monotonic() - began
        self._say(f"{web.service} serves {release} by {way} after {took_s:.2f} s")
        self._stepped(f"{way} of {web.service}", took_s)

    async def _settle(self, web: Web) -> None:
        """Where a handover was cut off and two masters serve, one stays: the new one if it gets ready, else the other."""
        view = self._view(web.service)
        if view is not None and self._is_cut:
            within_s = min(web.boot_s, STRANGERS_S)
            await self._performer.until(lambda: not self._performer.strangers(view.master), within_s)
        masters = [self._own(one) for one in self._performer.views(web.service)]
        if len(masters) < 2 or not self._has_begun(masters[0], masters[-1]):
            return
        new, pid = masters[-1], masters[-1].master.pid
        count = max(self._performer.settings(new).workers or masters[0].size, 1)

        def is_ready() -> bool:
            now = self._performer.of_master(pid)
            if now is None:
                return True
            is_alone = now.kind == "uvicorn" and count == 1 and not now.workers
            return self._performer.serves(now) if is_alone else sum(one.is_ready for one in now.workers) >= count

        stays = await self._performer.until(is_ready, web.boot_s) and self._performer.of_master(pid) is not None
        self._say(f"a handover of {web.service} was cut off; the {'new' if stays else 'old'} master stays")
        if stays and new.kind in BY_KEEPER:
            await self._lead(web, self._beginner(new), new)
            return
        for other in masters[:-1] if stays else masters[1:]:
            await self._retire(other, GRACE_S)

    def _has_begun(self, old: ServiceView, new: ServiceView) -> bool:
        """Whether a master was begun by the other, or by the keeper of both."""
        parent = self._performer.parent(new.master)
        if parent is None:
            return False
        return parent.pid == old.master.pid or (
            holds_socket(parent.argv) and parent == self._performer.parent(old.master)
        )

    async def _is_done(self, web: Web, view: ServiceView, release: str) -> bool:
        """Whether an earlier try has brought the service there; its workers are waited for."""
        if not self._is_cut or self._is_wrong(view, release):
            return False
        count = self._performer.settings(view).workers or view.size
        await self._performer.perform((WaitNewReady(frozenset(), max(count, 1), web.boot_s),), view)
        return True

    async def _hand_over(self, web: Web, old: ServiceView, release: str) -> tuple[str, ...]:
        """A second master serves, the old one finishes its requests and ends; what is worth telling of that."""
        beginner = self._beginner(old)
        begin = (
            SendSignal(beginner, "USR2", "a second master takes over the listening sockets"),
            WaitNewMaster(web.service, old.master, web.boot_s),
        )
        await self._performer.perform(begin, old if beginner == old.master else None)
        new = self._performer.successor(web.service, old.master)
        if new is None:
            raise ReleaseFailed("handover", f"the new master of {web.service} ended at once; the old one serves")
        try:
            await self._until_ready(new, self._performer.settings(new).workers or old.size, web.boot_s)
            if wrong := self._is_wrong(new, release):
                raise ReleaseFailed("handover", f"the new master of {web.service} does not serve {release}: {wrong}")
        except (ReleaseFailed, ActFailed, CannotAct):
            await self._retire(new, GRACE_S)
            raise
        if beginner == old.master:
            end = (SendSignal(old.master, "TERM", "finish its requests and end"), WaitGone(old.master, GRACE_S))
            return await self._performer.perform(end, old)
        return await self._lead(web, beginner, new)

    async def _lead(self, web: Web, keeper: Target, new: ServiceView) -> tuple[str, ...]:
        """The keeper leads clients to the new master, and lets all others end when they have answered theirs."""
        lead = SendSignal(
            keeper, "WINCH", "lead clients to the new master, let the old one finish its requests and end"
        )
        rest = [
            one.master for one in self._performer.others(web.service, new.master) if self._performer.process(one.master)
        ]
        gone = (WaitGone(one, GRACE_S, then_kill=True) for one in rest)
        return await self._performer.perform((lead, *gone), None)

    def _beginner(self, old: ServiceView) -> Target:
        """Who starts the second master: the old one itself, or the keeper of one that cannot. Raises ReleaseFailed."""
        if old.kind not in BY_KEEPER:
            return old.master
        keeper = self._performer.parent(old.master)
        if keeper is None or not holds_socket(keeper.argv):
            raise ReleaseFailed("handover", f"the keeper of {old.name} is gone")
        return Target(keeper.pid, keeper.start_ticks)

    async def _until_ready(self, new: ServiceView, count: int, within_s: float) -> None:
        """Returns when the workers of a new master, or the master that has none, take requests. Raises ReleaseFailed."""
        if new.kind != "uvicorn" or count > 1 or new.workers:
            await self._performer.perform((WaitNewReady(frozenset(), max(count, 1), within_s),), new)
            return
        ends_s = time.monotonic() + within_s
        while not self._performer.serves(new):
            if self._performer.process(new.master) is None:
                raise ReleaseFailed("boot", f"the new master of {new.name} ended before it served")
            if time.monotonic() > ends_s:
                raise ReleaseFailed("boot", f"the new master of {new.name} did not serve within {within_s:g} s")
            await asyncio.sleep(BOOT_POLL_S)

    async def _reload(self, web: Web, view: ServiceView, release: str) -> None:
        old = frozenset(worker.target for worker in view.workers)
        steps: tuple[Step, ...] = (
            SendSignal(view.master, "HUP", "load configuration and release again"),
            WaitNewReady(old, max(view.size, 1), web.boot_s),
            *(WaitGone(one, GRACE_S) for one in old),
        )
        await self._performer.perform(steps, view)
        if wrong := self._is_wrong(view, release):
            raise ReleaseFailed("reload", f"{web.service} was reloaded and does not serve {release}: {wrong}")

    async def _restart(self, web: Web, view: ServiceView, release: str) -> None:
        await self._performer.perform((self._start(view, web.boot_s, only=False),), view)
        await self._performer.perform((WaitNewMaster(web.service, view.master, web.boot_s),), None)
        new = self._performer.successor(web.service, view.master)
        if new is None:
            raise ReleaseFailed("restart", f"{web.service} ended right after its start")
        await self._until_ready(new, view.size, web.boot_s)
        if wrong := self._is_wrong(new, release):
            raise ReleaseFailed("restart", f"{web.service} was started again and does not serve {release}: {wrong}")

    async def _start_absent(self, one: Web | Jobs, start: Start, release: str, done: Switched) -> None:
        """Lets a service run that does not, for the first time as a rule."""
        began = time.monotonic()
        view = await start_absent(self._performer, one.service, start, supervisor=self._supervisor, within_s=one.boot_s)
        if wrong := self._is_wrong(view, release):
            raise ReleaseFailed("start", f"{one.service} was started and does not run {release}: {wrong}")
        done.ways[one.service] = "started"
        self._say(f"{one.service} did not run; it was started by {start.name} and runs {release}")
        self._stepped(f"start of {one.service}", time.monotonic() - began)

    def _start(self, view: ServiceView, within_s: float, *, only: bool) -> Step:
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

    def _is_wrong(self, view: ServiceView, release: str) -> str:
        """Why a master does not run the release; empty if it does."""
        process = self._performer.process(view.master)
        if process is None:
            return "it is gone"
        folder = os.path.realpath(self._layout.release(release))
        venv = venv_of(view.argv)
        real = None if venv is None else os.path.realpath(venv)
        own = os.path.realpath(f"{folder}/venv") if os.path.isdir(f"{folder}/venv") else None
        return runs_release(os.path.realpath(process.folder), real, folder, own)

    # Celery.

    async def _begin(self, jobs: Jobs, release: str, done: Switched) -> list[_Bridge]:
        """A node of the new release consumes before the old one stops to; a beat has none beside it."""
        old = self._view(jobs.service)
        if old is None and jobs.start is not None:
            await self._start_absent(jobs, jobs.start, release, done)
            return []
        if old is None:
            done.ways[jobs.service] = "none"
            done.notes.append(
                f"{jobs.service} does not run on this host; once it is started from {self._layout.current}, it runs {release}"
            )
            return []
        if self._performer.settings(old).role == "beat":
            return [_Bridge(jobs, old, None)]
        if not old.argv:
            done.notes.append(
                f"the command line of {jobs.service} is not known, so its tasks wait while it is replaced"
            )
            return [_Bridge(jobs, old, None)]
        began = time.monotonic()
        environment = build_environment(self._app, self._layout, release, self._order.secrets)
        argv = bridge_argv(old.argv, f"reflex-{release.rpartition('-')[2]}@%h")
        log = f"{self._layout.shared}/{self._app.name}-bridge.log"
        pid = await self._runner.begin(argv, self._layout.current, environment, log=log)
        node = await self._consuming(pid, jobs, len(old.workers))
        self._stepped(f"second node beside {jobs.service}", time.monotonic() - began)
        return [_Bridge(jobs, old, node)]

    async def _consuming(self, pid: int, jobs: Jobs, count: int) -> ServiceView:
        """The node that was begun, once its processes are ready. Raises ReleaseFailed; then it is ended."""

        def is_ready() -> bool:
            view = self._performer.of_master(pid)
            return view is not None and sum(worker.is_ready for worker in view.workers) >= min(count, 1)

        is_there = await self._performer.until(is_ready, jobs.boot_s)
        view = self._performer.of_master(pid)
        if is_there and view is not None:
            return view
        if view is not None:
            await self._retire(view, jobs.boot_s)
        log = f"{self._layout.shared}/{self._app.name}-bridge.log"
        raise ReleaseFailed(
            "celery",
            f"a node of the new release beside {jobs.service} was not ready within {jobs.boot_s:g} s; see {log}",
        )

    async def _finish(self, bridge: _Bridge, release: str, done: Switched) -> None:
        """The old node finishes what it runs and ends, its manager starts the new one, and the second node goes."""
        jobs, old, began = bridge.jobs, bridge.old, time.monotonic()
        stop = SendSignal(old.master, "TERM", "warm shutdown: finish its tasks and end")
        try:
            await self._performer.perform((stop, WaitGone(old.master, jobs.drain_s)), old)
        except ActFailed:
            if not await self._is_past(bridge, done):
                return
        drained_s = time.monotonic() - began
        if old.manager is None:
            done.ways[jobs.service] = "replaced by a node that nobody manages"
            done.notes.append(f"nobody is known who starts {jobs.service} again: the second node goes on in its place")
        else:
            await self._started_again(jobs, old, release)
            if bridge.node is not None:
                await self._retire(bridge.node, jobs.drain_s)
            done.ways[jobs.service] = "drained and started again"
        self._say(f"{jobs.service} had finished its tasks after {drained_s:.1f} s and runs {release}")
        self._stepped(f"drain of {jobs.service}", time.monotonic() - began)

    async def _is_past(self, bridge: _Bridge, done: Switched) -> bool:
        """What becomes of a node whose time to finish is up; whether it has ended."""
        jobs, old = bridge.jobs, bridge.old
        if self._performer.process(old.master) is None:
            return True
        if jobs.past == "leave":
            text = f"{jobs.service} (pid {old.master.pid}) still has tasks after {jobs.drain_s:g} s: it takes no new ones and ends when they are done"
            done.notes.append(text)
            done.ways[jobs.service] = "left to finish beside a node of the new release"
            return False
        steps = (
            SendSignal(old.master, "QUIT", "its time to finish is up"),
            WaitGone(old.master, GRACE_S, then_kill=True),
        )
        await self._performer.perform(steps, old)
        done.notes.append(
            f"tasks of {jobs.service} that were not finished after {jobs.drain_s:g} s were cut off, as the app has it (past: kill)"
        )
        return True

    async def _started_again(self, jobs: Jobs, old: ServiceView, release: str) -> None:
        start = self._start(old, jobs.boot_s, only=True)
        new = await started(self._performer, start, jobs.service, besides=old.master, within_s=jobs.boot_s)
        if new.workers or old.workers:
            await self._performer.perform((WaitCount(max(len(old.workers), 1), jobs.boot_s),), new)
        if wrong := self._is_wrong(new, release):
            raise ReleaseFailed("celery", f"{jobs.service} was started again and does not run {release}: {wrong}")

    async def _retire(self, view: ServiceView, within_s: float) -> None:
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
