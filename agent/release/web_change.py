"""Lets a service that answers requests come to another release, the way that choice.py has chosen."""

from __future__ import annotations

import asyncio
import time

from agent.acting import ActFailed
from agent.actions.action import CannotAct, ServiceView
from agent.actions.steps import SendSignal, Step, WaitGone, WaitNewMaster, WaitNewReady
from agent.managers import holds_socket, is_keeper
from agent.release.choice import BY_KEEPER, Standing, Way, way_of
from agent.release.failure import ReleaseFailed
from agent.release.ground import Ground
from agent.release.switched import Switched
from agent.release.trial import BOOT_POLL_S
from agent.wire import Target
from agent.wire.app import Web

GRACE_S = 60.0
"""How long requests may take that an old master still has when a new one serves."""

STRANGERS_S = 10.0
"""How long children of a master may take to show whether they are a second one that an earlier try began."""

AGAIN_S, AGAIN_TIMES = 1.5, 3
"""How long a master may take to begin another before it is asked again, and how often."""


class WebChange(Ground):
    """Changes one service after the other."""

    async def settle(self, web: Web) -> None:
        """Where a handover was cut off and two masters serve, one stays: the new one if it gets ready, else the other."""
        view = self.view(web.service)
        if view is not None and self._is_cut:
            within_s = min(web.boot_s, STRANGERS_S)
            await self._performer.until(lambda: not self._performer.strangers(view.master), within_s)
        masters = [self.own(one) for one in self._performer.views(web.service)]
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
            await self.retire(other, GRACE_S)

    def _has_begun(self, old: ServiceView, new: ServiceView) -> bool:
        """Whether a master was begun by the other, or by the keeper of both."""
        parent = self._performer.parent(new.master)
        if parent is None:
            return False
        return parent.pid == old.master.pid or (
            holds_socket(parent.argv) and parent == self._performer.parent(old.master)
        )

    def way(self, web: Web, view: ServiceView) -> Way:
        """How the service will change; raises NoWay."""
        settings = self._performer.settings(view)
        parent = self._performer.parent(view.master)
        argv = () if parent is None else parent.argv
        standing = Standing(
            is_keeper(argv),
            bool(settings.preload),
            holds_socket(argv),
            settings.finishes_on_term,
            self.is_inside(view),
        )
        return way_of(web, view, standing)

    async def change(self, web: Web, release: str, done: Switched) -> None:
        """Lets the service serve the release, whose link is set. Raises ReleaseFailed, NoWay, and what acts raise."""
        view = self.view(web.service)
        if self.came_by_itself(view, release, done) or (view is None and web.start is not None):
            await self.start_absent(web, web.start, release, done)
            return
        if view is None:
            done.ways[web.service] = "none"
            done.notes.append(
                f"{web.service} does not run on this host; once it is started from {self._layout.current}, it serves {release}"
            )
            return
        began, way = time.monotonic(), self.way(web, view)
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

    async def _is_done(self, web: Web, view: ServiceView, release: str) -> bool:
        """Whether an earlier try has brought the service there; its workers are waited for."""
        if not self._is_cut or self.is_wrong(view, release):
            return False
        count = self._performer.settings(view).workers or view.size
        await self._performer.perform((WaitNewReady(frozenset(), max(count, 1), web.boot_s),), view)
        return True

    async def _hand_over(self, web: Web, old: ServiceView, release: str) -> tuple[str, ...]:
        """A second master serves, the old one finishes its requests and ends; what is worth telling of that."""
        beginner = self._beginner(old)
        begin = SendSignal(beginner, "USR2", "a second master takes over the listening sockets")
        service = old if beginner == old.master else None
        await self._performer.perform((begin,), service)
        for _ in range(AGAIN_TIMES if service is not None else 0):
            if await self._performer.until(lambda: self._is_begun(web, old), AGAIN_S):
                break
            await self._performer.perform((begin,), service)
        await self._performer.perform((WaitNewMaster(web.service, old.master, web.boot_s),), service)
        new = self._performer.successor(web.service, old.master)
        if new is None:
            raise ReleaseFailed("handover", f"the new master of {web.service} ended at once; the old one serves")
        try:
            await self._until_ready(new, self._performer.settings(new).workers or old.size, web.boot_s)
            if wrong := self.is_wrong(new, release):
                raise ReleaseFailed("handover", f"the new master of {web.service} does not serve {release}: {wrong}")
        except (ReleaseFailed, ActFailed, CannotAct):
            await self.retire(new, GRACE_S)
            raise
        if beginner == old.master:
            end = (SendSignal(old.master, "TERM", "finish its requests and end"), WaitGone(old.master, GRACE_S))
            return await self._performer.perform(end, old)
        return await self._lead(web, beginner, new)

    def _is_begun(self, web: Web, old: ServiceView) -> bool:
        """Whether a master has begun another one. Gunicorn ignores USR2 for as long as it believes that its own parent lives,
        which it asks once a second; once it has begun another, it ignores it again."""
        return (
            bool(self._performer.strangers(old.master))
            or self._performer.successor(web.service, old.master) is not None
        )

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
        if wrong := self.is_wrong(view, release):
            raise ReleaseFailed("reload", f"{web.service} was reloaded and does not serve {release}: {wrong}")

    async def _restart(self, web: Web, view: ServiceView, release: str) -> None:
        await self._performer.perform((self.start_step(view, web.boot_s, only=False),), view)
        await self._performer.perform((WaitNewMaster(web.service, view.master, web.boot_s),), None)
        new = self._performer.successor(web.service, view.master)
        if new is None:
            raise ReleaseFailed("restart", f"{web.service} ended right after its start")
        await self._until_ready(new, view.size, web.boot_s)
        if wrong := self.is_wrong(new, release):
            raise ReleaseFailed("restart", f"{web.service} was started again and does not serve {release}: {wrong}")
