"""What is known of hosts: status, silence, return, and no false alarm after a restart."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from server.state import State


async def hosts_of(api: Any) -> dict[str, dict[str, Any]]:
    _, answer = await api.get("/v1/hosts")
    return {host["name"]: host for host in answer["hosts"]}


async def wait_for(api: Any, kind: str) -> dict[str, Any]:
    """The one event of this kind, once it is there."""
    async with asyncio.timeout(60):
        while not (events := (await api.timeline(kind=kind))["events"]):
            await asyncio.sleep(0.05)
    assert len(events) == 1
    return dict(events[0])


async def test_the_last_status_is_kept(api: Any, agent: Any) -> None:
    for version in ("0.1.0", "0.2.0"):
        await agent.post(agent.batch(status={"version": version, "probes": []}))
    await agent.post(agent.batch())
    host = (await hosts_of(api))[agent.host]
    assert (host["state"], host["status"]["version"]) == ("live", "0.2.0")
    assert host["last_seen_us"] > 0


async def test_a_status_over_the_limit_is_not_kept(api: Any, agent: Any) -> None:
    status, _ = await agent.post(agent.batch(status={"services": ["x" * 70_000]}))
    assert status == 200
    assert "65536" in (await hosts_of(api))[agent.host]["status"]["problem"]


async def test_silence_is_told_once_and_so_is_the_return(own_server: Any, connect: Any, make_event: Any) -> None:
    """Over a kill -9 while the host is silent: nothing is told twice, and the return names the silence."""
    server = own_server("--silent-after-s", "0.5")
    api, agent = connect(server, "web-1")
    await agent.post(agent.batch(status={"version": "0.1.0"}))
    silent = await wait_for(api, "agent.silent")
    assert (silent["host"], silent["severity"]) == ("web-1", "warning")
    assert (await hosts_of(api))["web-1"]["state"] == "silent"

    server.kill()
    server.start()
    api.base = agent.base = server.base
    assert (await hosts_of(api))["web-1"]["status"] == {"version": "0.1.0"}
    await asyncio.sleep(1.5)
    assert (await wait_for(api, "agent.silent"))["id"] == silent["id"]
    await agent.post(agent.batch())
    back = await wait_for(api, "agent.back")
    assert back["cause"] == silent["id"]
    assert back["attrs"]["silence_us"] >= 500_000


async def test_a_restart_is_no_silence_of_the_hosts(own_server: Any, connect: Any) -> None:
    """The server was away for an hour; hosts get the whole limit again after its return."""
    server = own_server("--silent-after-s", "20")
    api, agent = connect(server, "web-1")
    await agent.post(agent.batch())
    assert server.stop() == 0
    state = State(server.state / "state.db")
    state.save_hosts([replace(host, last_seen_us=host.last_seen_us - 3_600_000_000) for host in state.hosts()])
    state.close()
    server.start()
    api.base = server.base
    assert (await hosts_of(api))["web-1"]["state"] == "live"
    await asyncio.sleep(2.5)
    assert (await hosts_of(api))["web-1"]["state"] == "live"
    assert await api.ids(kind="agent.silent") == []


async def test_a_stopped_agent_is_no_alarm(own_server: Any, connect: Any, make_event: Any) -> None:
    server = own_server("--silent-after-s", "0.5")
    api, agent = connect(server, "web-1")
    stopped = make_event(kind="agent.stopped")
    await agent.send(stopped)
    silent = await wait_for(api, "agent.silent")
    assert (silent["severity"], silent["cause"]) == ("info", stopped["id"])


async def test_a_host_without_a_key_is_not_missed(own_server: Any, connect: Any) -> None:
    server = own_server("--silent-after-s", "0.5")
    api, agent = connect(server, "web-1")
    await agent.post(agent.batch())
    server.revoke_key("web-1")
    await asyncio.sleep(1.5)
    assert await api.ids(kind="agent.silent") == []
