"""The whole agent, switched on and off between rounds, never within one."""

from __future__ import annotations

import asyncio

from benchmarks.crowd import Crowd
from demo.stage import HOST, Stage, end

SETTLE_S = 1.2
"""A second after its start the agent looks through all of /proc, as it does once a minute; no round shall hold that."""

FIRST_LOOK_S = 60.0


class Switch:
    """The agent of a stage: a process with its programs attached that knows the crowd, or none at all."""

    def __init__(self, stage: Stage, crowd: Crowd) -> None:
        self._stage = stage
        self._crowd = crowd

    async def turn(self, *, on: bool) -> None:
        """Starts or stops the agent unless that is done; returns when the host is quiet again."""
        if on == self.is_on:
            return
        assert self._stage.agent is not None
        if on:
            await self._stage.start_agent()
            await until_known(self._stage, self._crowd)
        else:
            await end(self._stage.agent)
        await asyncio.sleep(SETTLE_S)

    @property
    def is_on(self) -> bool:
        """Whether the agent runs."""
        return self._stage.agent is not None and self._stage.agent.returncode is None


async def until_known(stage: Stage, crowd: Crowd) -> None:
    """Waits until the server shows every worker of the crowd as ready."""

    async def known() -> bool:
        return await known_workers(stage, crowd) >= crowd.size

    await stage.until(known, "the agent does not find all workers", within_s=FIRST_LOOK_S)


async def known_workers(stage: Stage, crowd: Crowd) -> int:
    """How many of the crowd's workers the server shows as ready."""
    names = {member.name for member in crowd.members}
    services = [
        service
        for host in (await stage.get("/v1/hosts"))["hosts"]
        if host["name"] == HOST
        for service in host["status"].get("services", [])
        if service["name"] in names
    ]
    return sum(worker["state"] == "ready" for service in services for worker in service["workers"])
