"""GET /v1/chain: the story that one event belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def oom_story(make_event: Make) -> list[dict[str, Any]]:
    """The kernel kills a worker, it ends, its successor starts and is ready."""
    base_us = 1_790_000_000_000_000
    kill = make_event(ts_us=base_us, kind="worker.oom_killed", severity="critical")
    gone = make_event(ts_us=base_us + 1_000, kind="worker.exited", cause=kill["id"], attrs={"death": "kernel_oom"})
    started = make_event(ts_us=base_us + 5_000, kind="worker.started", cause=gone["id"])
    ready = make_event(ts_us=base_us + 1_700_000, kind="worker.ready", cause=started["id"])
    return [kill, gone, started, ready]


@pytest.mark.parametrize("asked", range(4))
async def test_any_event_of_a_story_shows_all_of_it(api: Any, agent: Any, oom_story: Any, asked: int) -> None:
    await agent.send(*reversed(oom_story))
    status, chain = await api.get(f"/v1/chain/{oom_story[asked]['id']}")
    assert status == 200
    assert (chain["id"], chain["root"]) == (oom_story[asked]["id"], oom_story[0]["id"])
    assert [event["id"] for event in chain["events"]] == [event["id"] for event in oom_story]
    assert [link["gap_us"] for link in chain["links"]] == [1_000, 4_000, 1_695_000]
    assert (chain["missing"], chain["truncated"]) == ([], False)


async def test_a_chain_heals_when_the_cause_arrives(api: Any, agent: Any, oom_story: Any) -> None:
    await agent.send(*oom_story[1:])
    _, chain = await api.get(f"/v1/chain/{oom_story[3]['id']}")
    assert (chain["root"], chain["missing"]) == (oom_story[1]["id"], [oom_story[0]["id"]])
    await agent.send(oom_story[0])
    _, chain = await api.get(f"/v1/chain/{oom_story[3]['id']}")
    assert (chain["root"], chain["missing"]) == (oom_story[0]["id"], [])


async def test_circles_are_survived(api: Any, agent: Any, make_event: Make) -> None:
    first, second = str(uuid4()), str(uuid4())
    await agent.send(make_event(id=first, cause=second), make_event(id=second, cause=first))
    status, chain = await api.get(f"/v1/chain/{first}")
    assert status == 200
    assert {event["id"] for event in chain["events"]} == {first, second}


async def test_a_cause_with_very_many_effects_is_cut(api: Any, agent: Any, make_event: Make) -> None:
    cause = make_event()
    effects = [make_event(cause=cause["id"]) for _ in range(600)]
    await agent.send(cause, *effects)
    _, chain = await api.get(f"/v1/chain/{effects[599]['id']}")
    assert (len(chain["events"]), chain["truncated"]) == (500, True)
    assert {cause["id"], effects[599]["id"]} <= {event["id"] for event in chain["events"]}
