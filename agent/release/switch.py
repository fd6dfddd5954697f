"""Puts a release to work: the link, then the web and the Celery nodes as one step; back again if that fails half way."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from agent.acting import ActFailed, Performer
from agent.actions.action import CannotAct
from agent.release.choice import NoWay
from agent.release.failure import ReleaseFailed
from agent.release.ground import Means
from agent.release.hired import Runner, RunnerTrouble
from agent.release.layout import Layout
from agent.release.node_change import Bridge, NodeChange
from agent.release.switched import Switched
from agent.release.tidy import serving
from agent.release.web_change import WebChange
from agent.release.words import SYSTEM_PATH
from agent.release.workshop import SHORT_S
from agent.wire import Order
from agent.wire.app import App, Web

LINKS = 'while [ $# -gt 1 ]; do ln -sfnT "$1" "$2.new" && mv -fT "$2.new" "$2" || exit; shift 2; done'
"""For sh: makes links, given as pairs of target and link, each in one step, whatever was there."""


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
        """As in Means; `as_of` says how an app is run in one of its releases."""
        self._means = Means(order, runner, performer, supervisor, say, stepped, is_cut)
        self._as_of = as_of
        self._app = order.app
        self._layout = Layout(order.app.folder)

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
        app = self._as_of(self._app, release)
        webs, nodes = WebChange(self._means, app), NodeChange(self._means, app)
        for web in app.web:
            await webs.settle(web)
        _check_ways(app, webs, nodes, done)
        await self._link(release)
        changed: list[Web] = []
        bridges: list[Bridge] = []
        try:
            for jobs in app.jobs if not is_back else ():
                bridges += await nodes.begin(jobs, release, done)
            for web in app.web:
                changed.append(web)
                await webs.change(web, release, done)
            done.web_s = time.monotonic() - began
            for jobs in app.jobs if is_back else ():
                bridges += await nodes.begin(jobs, release, done)
            for bridge in bridges:
                await nodes.finish(bridge, release, done)
        except (ReleaseFailed, ActFailed, CannotAct, RunnerTrouble, NoWay) as error:
            where = await self._take_back(done.before, changed, bridges)
            raise ReleaseFailed(getattr(error, "step", "switch"), f"{error}; {where}") from None
        return done

    async def _take_back(self, before: str | None, changed: Sequence[Web], bridges: Sequence[Bridge]) -> str:
        """Makes the release before serve again after a switch that failed; what is so now, as the end of a sentence."""
        if before is None:
            return "there is no release before it to go back to"
        troubles = []
        app = self._as_of(self._app, before)
        webs, nodes = WebChange(self._means, app), NodeChange(self._means, app)
        as_before = {web.service: web for web in app.web}
        try:
            await self._link(before)
        except (ReleaseFailed, RunnerTrouble) as error:
            troubles.append(f"the link current could not be set back: {error}")
        for web in changed:
            try:
                view = webs.view(web.service)
                if view is not None and not webs.is_wrong(view, before):
                    continue
                back = Switched(None, before)
                await webs.change(as_before.get(web.service, web), before, back)
                if not back.is_seen:
                    troubles.append(f"{web.service} does not run")
            except (ReleaseFailed, ActFailed, CannotAct, RunnerTrouble, NoWay) as error:
                troubles.append(f"{web.service} could not be taken back: {error}")
        for bridge in bridges:
            troubles += await nodes.take_back(bridge, before)
        return "; ".join(troubles) or f"{before} serves"

    async def _link(self, release: str) -> None:
        layout = self._layout
        pairs = (f"releases/{release}", layout.current, self._variables(release), layout.environment)
        done = await self._means.runner.run(
            ["sh", "-c", LINKS, "sh", *pairs],
            layout.folder,
            {"PATH": SYSTEM_PATH},
            seconds=SHORT_S,
            is_modest=False,
            on_line=self._means.say,
        )
        if done.code != 0:
            raise ReleaseFailed("switch", f"{layout.current} could not be set: {' '.join(done.last)[:300]}")

    def _variables(self, release: str) -> str:
        """Where the file of variables is that goes with a release; one that others have made has none, and takes the one before."""
        before = self.current
        if before and not os.path.lexists(f"{self._layout.release(release)}/.environment"):
            return f"releases/{before}/.environment"
        return "current/.environment"


def _check_ways(app: App, webs: WebChange, nodes: NodeChange, done: Switched) -> None:
    """Nothing is begun that could not be done for every service. Raises ReleaseFailed."""
    try:
        for jobs in app.jobs:
            if nodes.check(jobs) is None:
                done.absent.add(jobs.service)
        for web in app.web:
            view = webs.view(web.service)
            done.ways[web.service] = "" if view is None else webs.way(web, view)
            if view is None:
                done.absent.add(web.service)
    except NoWay as error:
        raise ReleaseFailed("switch", str(error)) from None
