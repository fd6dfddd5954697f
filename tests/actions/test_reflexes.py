"""Playbooks that a host runs by itself, with a real server that comes and goes, and a real Gunicorn."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from demo.stage import HOST, Stage

BOOK = """
name: on-host
title: ask the master for a worker when one was killed
on:
  - event: worker.exited
    where: event.attrs.death.startsWith("killed")
steps:
  - id: more
    action: gunicorn.scale
    with: {by: 1}
    timeout: 1m
  - id: tell
    action: notify
    with: {text: "{{ service.name }} lost a worker"}
verify: {within: 20s, expect: [{event: worker.ready}]}
limits: {cooldown: 0s, per_hour: 3, fleet_per_hour: 20}
mode: armed
runs_on: host
"""
NAME = "on-host"


@pytest.fixture
def playbooks() -> dict[str, str]:
    return {"on-host.yaml": BOOK}


async def lent(stage: Stage, share: int | None) -> None:
    """Waits until the host holds the playbook with this share, or does not."""

    async def is_so() -> bool:
        shown = await stage.get(f"/v1/playbooks/{NAME}")
        held = await stage.get("/v1/hosts")
        on_host = held["hosts"][0]["status"].get("playbooks") or {}
        return bool(shown["lent_to"].get(HOST) == share and (NAME in on_host.get("held", [])) == (share is not None))

    await stage.until(is_so, f"the playbook is not lent as {share}", within_s=40)


async def runs(stage: Stage, kind: str, count: int) -> list[dict[str, Any]]:
    """The newest so many events of the playbook of this kind, newest first."""

    async def are_there() -> list[dict[str, Any]] | None:
        found = [e for e in await stage.events(kind=kind, limit="500") if e["attrs"].get("playbook") == NAME]
        return found if len(found) >= count else None

    found: list[dict[str, Any]] = await stage.until(are_there, f"{count} of {kind} are not told", within_s=60)
    return found


async def test_it_runs_on_the_host_and_the_timeline_has_the_chain(stage: Stage, site: Any) -> None:
    await site.start(workers=2)
    await lent(stage, 19)
    os.kill(site.children()[0], signal.SIGKILL)
    (verified,) = await runs(stage, "playbook.verified", 1)
    assert verified["attrs"]["ran_on"] == "host"
    chain = await stage.get(f"/v1/chain/{verified['id']}")
    kinds = [event["kind"] for event in chain["events"]]
    for kind in ("worker.exited", "playbook.started", "playbook.step", "action.done", "playbook.verified"):
        assert kind in kinds, kinds
    assert len(site.children()) == 3

    async def is_told() -> bool:
        done = await stage.events(kind="action.done")
        return any("reached nobody but this timeline" in event["text"] for event in done)

    await stage.until(is_told, "the server does not tell what the host has left to it", within_s=20)
    started = await stage.events(kind="playbook.started")
    assert len(started) == 1, "the server leaves to the host what it has lent"


async def test_without_a_server_it_acts_and_its_history_comes_later(stage: Stage, site: Any) -> None:
    await site.start(workers=2)
    await lent(stage, 19)
    await stage.stop_server()
    os.kill(site.children()[0], signal.SIGKILL)
    await stage.until(lambda: site.has(3), "no worker is added without the server", within_s=30)
    await stage.start_server_again()
    (verified,) = await runs(stage, "playbook.verified", 1)
    (started,) = await runs(stage, "playbook.started", 1)
    assert started["ts_us"] <= verified["ts_us"]
    summary = await stage.get(f"/v1/playbooks/{NAME}")
    assert summary["acted_last_hour"] == 1


async def test_an_agent_that_begins_again_remembers(stage: Stage, site: Any) -> None:
    """Also its limits: three runs of one service an hour, over two lives of the agent."""
    await site.start(workers=2)
    await lent(stage, 19)
    for count in (1, 2):
        os.kill(site.children()[0], signal.SIGKILL)
        await runs(stage, "playbook.verified", count)
    await stage.stop_server()
    await stage.kill_agent()
    await stage.start_agent_alone()
    await stage.until(lambda: site.has(4), "the workers are not there", within_s=20)
    os.kill(site.children()[0], signal.SIGKILL)
    await stage.until(lambda: site.has(5), "the agent does not act after its restart", within_s=30)
    await stage.start_server_again()
    await runs(stage, "playbook.verified", 3)
    os.kill(site.children()[0], signal.SIGKILL)
    (skipped,) = await runs(stage, "playbook.skipped", 1)
    assert "as often as it may" in skipped["text"]
    assert (skipped["attrs"]["ran_on"], skipped["attrs"]["reason"]) == ("host", "per_hour")


async def test_the_kill_switch_reaches_it_and_says_whom_it_does_not_reach(stage: Stage, site: Any) -> None:
    await site.start(workers=2)
    await lent(stage, 19)
    assert (await stage.put("/v1/stop", {"stop": True}))["hosts_not_reached"] == []
    await lent(stage, None)
    os.kill(site.children()[0], signal.SIGKILL)
    (skipped,) = await runs(stage, "playbook.skipped", 1)
    assert "has stopped all playbooks" in skipped["text"]
    assert (await stage.put("/v1/stop", {"stop": False}))["hosts_not_reached"] == []
    await lent(stage, 19)
    await stage.kill_agent()
    assert (await stage.put("/v1/stop", {"stop": True}))["hosts_not_reached"] == [HOST]
    await stage.start_agent()
    await lent(stage, None)


async def test_disarmed_it_goes_back_to_the_server_with_its_limits(stage: Stage, site: Any) -> None:
    await site.start(workers=2)
    await lent(stage, 19)
    for count in (1, 2, 3):
        os.kill(site.children()[0], signal.SIGKILL)
        await runs(stage, "playbook.verified", count)
    text = BOOK.replace("runs_on: host\n", "")
    (stage.playbooks / "on-host.yaml").write_text(text)
    await lent(stage, None)
    os.kill(site.children()[0], signal.SIGKILL)
    (skipped,) = await runs(stage, "playbook.skipped", 1)
    assert "as often as it may" in skipped["text"]
    assert "ran_on" not in skipped["attrs"]
