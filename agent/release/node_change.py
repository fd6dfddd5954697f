"""Lets a Celery node come to another release: a second one consumes while the first finishes what it runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.acting import ActFailed
from agent.actions.action import CannotAct, ServiceView
from agent.actions.steps import SendSignal, WaitCount, WaitGone
from agent.release.choice import NoWay, bridge_argv, bridge_name
from agent.release.failure import ReleaseFailed
from agent.release.ground import Ground
from agent.release.starting import started
from agent.release.switched import Switched
from agent.release.words import build_environment
from agent.wire.app import Jobs

GRACE_S = 60.0
"""How long a node may take that was told to drop its tasks."""


@dataclass(slots=True)
class Bridge:
    """A node of the new release that consumes while the one before it finishes."""

    jobs: Jobs
    old: ServiceView
    node: ServiceView | None


class NodeChange(Ground):
    """Changes one node after the other."""

    def check(self, jobs: Jobs) -> ServiceView | None:
        """The node, if it runs. Raises NoWay, or ReleaseFailed, for one that could not be changed."""
        old = self.view(jobs.service)
        if old is not None and not old.argv and old.manager is None:
            raise NoWay(
                f"nobody is known who starts {jobs.service} again, and its command line is not known either, so nothing "
                "could take its place"
            )
        return old

    async def begin(self, jobs: Jobs, release: str, done: Switched) -> list[Bridge]:
        """A node of the new release consumes before the old one stops to; a beat has none beside it.

        Nodes that an earlier deploy has begun and that are still there end too: one that was cut off, or took the place of
        a node that nobody manages.
        """
        begun = self._begun(jobs)
        old = self.view(jobs.service) or (begun[-1] if begun and jobs.start is None else None)
        rest = [one for one in begun if old is None or one.master != old.master]
        if old is None or self.came_by_itself(old, release, done):
            await self._begin_absent(jobs, old, release, done)
            await self._end(rest)
            return []
        if self._performer.settings(old).role == "beat":
            await self._end(rest)
            return [Bridge(jobs, old, None)]
        if not old.argv:
            done.notes.append(
                f"the command line of {jobs.service} is not known, so its tasks wait while it is replaced"
            )
            return [Bridge(jobs, old, None)]
        name = bridge_name(jobs.service, release)
        if old.name == name and not self.is_wrong(old, release):
            done.ways[jobs.service] = "runs it already"
            await self._end(rest)
            return []
        began = time.monotonic()
        node = next((one for one in rest if one.name == name and not self.is_wrong(one, release)), None)
        node = node or await self._consuming(await self._begin_node(old, name, release), jobs, len(old.workers))
        await self._end([one for one in rest if one.master != node.master])
        self._stepped(f"second node beside {jobs.service}", time.monotonic() - began)
        return [Bridge(jobs, old, node)]

    def _begun(self, jobs: Jobs) -> list[ServiceView]:
        """Nodes that deploys have begun for a service, the oldest first. They are in the cgroup of the runner, whose unit is not theirs."""
        found = self._performer.begun_by(bridge_name(jobs.service))
        return [replace(self.own(one), manager=None) for one in found if one.kind == "celery"]

    async def _begin_absent(self, jobs: Jobs, now: ServiceView | None, release: str, done: Switched) -> None:
        """Starts a node that did not run, or waits for one that its manager has started by `now`."""
        if jobs.start is not None or now is not None:
            await self.start_absent(jobs, jobs.start, release, done)
            return
        done.ways[jobs.service] = "none"
        done.notes.append(
            f"{jobs.service} does not run on this host; once it is started from {self._layout.current}, it runs {release}"
        )

    async def _begin_node(self, old: ServiceView, name: str, release: str) -> int:
        """Begins a node like the old one, from the release that is current; its pid."""
        environment = build_environment(self._app, self._layout, release, self._order.secrets)
        log = f"{self._layout.shared}/{self._app.name}-bridge.log"
        return await self._runner.begin(bridge_argv(old.argv, f"{name}@%h"), self._layout.current, environment, log=log)

    async def _end(self, nodes: Sequence[ServiceView]) -> None:
        """Tells nodes to finish their tasks and end; nobody waits for it."""
        for one in nodes:
            try:
                stop = SendSignal(one.master, "TERM", "warm shutdown: finish its tasks and end")
                await self._performer.perform((stop,), None)
            except (ActFailed, CannotAct) as error:
                self._say(f"{one.name} (pid {one.master.pid}) could not be told to end: {error}")

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
            await self.retire(view, jobs.boot_s)
        log = f"{self._layout.shared}/{self._app.name}-bridge.log"
        raise ReleaseFailed(
            "celery",
            f"a node of the new release beside {jobs.service} was not ready within {jobs.boot_s:g} s; see {log}",
        )

    async def finish(self, bridge: Bridge, release: str, done: Switched) -> None:
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
                await self.retire(bridge.node, jobs.drain_s)
            done.ways[jobs.service] = "drained and started again"
        self._say(f"{jobs.service} had finished its tasks after {drained_s:.1f} s and runs {release}")
        self._stepped(f"drain of {jobs.service}", time.monotonic() - began)

    async def _is_past(self, bridge: Bridge, done: Switched) -> bool:
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
        start = self.start_step(old, jobs.boot_s, only=True)
        new = await started(self._performer, start, jobs.service, besides=old.master, within_s=jobs.boot_s)
        if new.workers or old.workers:
            await self._performer.perform((WaitCount(max(len(old.workers), 1), jobs.boot_s),), new)
        if wrong := self.is_wrong(new, release):
            raise ReleaseFailed("celery", f"{jobs.service} was started again and does not run {release}: {wrong}")

    async def take_back(self, bridge: Bridge, before: str) -> list[str]:
        """Ends the second node, once the first one consumes again; what could not be done."""
        jobs, old = bridge.jobs, bridge.old
        if self._performer.view(jobs.service, None) is None and old.manager is not None:
            try:
                await self._started_again(jobs, old, before)
            except (ReleaseFailed, ActFailed, CannotAct) as error:
                left = " and a node of the release that failed consumes in its place" if bridge.node is not None else ""
                return [f"{jobs.service} could not be started again: {error}{left}"]
        if old.manager is None and self._performer.process(old.master) is None:
            return [
                f"{jobs.service} has ended, nobody is known who starts it, and a node of the release that failed takes its place"
            ]
        if bridge.node is not None:
            await self.retire(bridge.node, jobs.drain_s)
        return []
