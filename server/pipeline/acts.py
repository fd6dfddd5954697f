"""What playbooks may ask of the pipeline: to hold the deploys of a service's app, and to take its release back."""

from __future__ import annotations

import asyncio
import time

from server.pipeline.deploys import Cancelled, Deploy, Held, Hold, Push
from server.pipeline.engine import Rejected
from server.pipeline.pipeline import Pipeline

ENDS_WITHIN_S = 540.0
POLL_S = 0.2


class DeployActs:
    """Everything raises Rejected, whose text ends a sentence."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def hold(self, host: str, service: str, minutes: int, why: str) -> str:
        """Lets deploys wait; what was done, as the end of a sentence."""
        app, now_us = self._app(host, service), time.time_ns() // 1000
        hold = Hold("a playbook", why, now_us, now_us + minutes * 60_000_000)
        await self._pipeline.ask(Held(app, "a playbook", hold))
        return f"holds the deploys of {app} for {minutes} minutes"

    async def roll_back(self, host: str, service: str, why: str, cause: str) -> str:
        """Takes the release back on every host, and waits for the end; a deploy that is under way is cancelled instead."""
        app = self._app(host, service)
        under_way = next((one for one in self._deploys(app) if one.stage not in ("queued", "done")), None)
        if under_way is not None:
            await self._pipeline.ask(Cancelled(under_way.id, "a playbook"))
            ended = await self._end(under_way)
            return f"has ended the deploy of {app} that was under way, which {ended.text.rstrip('.')}"
        known = {one.id for one in self._deploys(app)}
        await self._pipeline.ask(Push(app, "", "a playbook", why[:200], is_rollback=True, cause=cause))
        begun = next(one for one in self._deploys(app) if one.id not in known)
        ended = await self._end(begun)
        if ended.has_failed_somewhere:
            raise Rejected(f"the rollback of {app} did not succeed: it {ended.text.rstrip('.')}")
        return f"has taken {app} back to the release before, which {ended.text.rstrip('.')}"

    def _app(self, host: str, service: str) -> str:
        for name, site in self._pipeline.sites.items():
            services = {one.service for one in site.app.web} | {one.service for one in site.app.jobs}
            if service in services and host in site.hosts:
                return name
        raise Rejected(f"no app is known that {service} on {host} belongs to (reflexctl app add)")

    def _deploys(self, app: str) -> list[Deploy]:
        return [one for one in self._pipeline.state.deploys.values() if one.app == app]

    async def _end(self, deploy: Deploy) -> Deploy:
        ends_s = time.monotonic() + ENDS_WITHIN_S
        while time.monotonic() < ends_s:
            now = self._pipeline.state.deploys.get(deploy.id, deploy)
            if now.is_over:
                return now
            await asyncio.sleep(POLL_S)
        raise Rejected(f"{deploy.app} was not taken back within {ENDS_WITHIN_S:g} s; it goes on")
