"""Acts upon a real Gunicorn, asked for by the API, carried out by a real agent, under traffic."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

CLASSES = {
    "sync": (),
    "gthread": ("--worker-class", "gthread", "--threads", "4"),
}


def target_of(worker: dict[str, Any]) -> dict[str, int]:
    return {"pid": worker["pid"], "start_ticks": worker["start_ticks"]}


@pytest.mark.parametrize("worker_class", CLASSES)
@pytest.mark.parametrize("which", [0, 1])
async def test_a_worker_is_recycled_under_traffic_without_a_failed_request(
    site: Any, worker_class: str, which: int
) -> None:
    await site.start(*CLASSES[worker_class])
    victim, done = (await site.workers())[which], asyncio.Event()
    traffic = asyncio.create_task(site.fire(done))
    outcome = await site.act("gunicorn.recycle_worker", target=target_of(victim))
    done.set()
    served, wrong = await traffic
    assert outcome["kind"] == "action.done", outcome["text"]
    assert wrong == []
    assert served > 100
    assert victim["pid"] not in site.children()
    assert len(site.children()) == 3
    assert outcome["attrs"]["workers"] == 3
    assert outcome["attrs"]["new_pid"] in site.children()


async def test_all_workers_are_rotated_under_traffic(site: Any) -> None:
    await site.start()
    before, done = site.children(), asyncio.Event()
    traffic = asyncio.create_task(site.fire(done))
    outcome = await site.act("gunicorn.rotate")
    done.set()
    served, wrong = await traffic
    assert (outcome["kind"], wrong) == ("action.done", []), outcome["text"]
    assert served > 100
    assert len(site.children()) == 3
    assert not set(before) & set(site.children())


async def test_scale_goes_up_and_down(site: Any) -> None:
    await site.start(workers=2)
    assert (await site.act("gunicorn.scale", params={"by": 2}))["kind"] == "action.done"
    assert len(site.children()) == 4
    assert (await site.act("gunicorn.scale", params={"to": 1}))["kind"] == "action.done"
    assert len(site.children()) == 1


async def test_reload_takes_a_good_release_and_refuses_a_broken_one(site: Any) -> None:
    await site.start("--timeout", "40", workers=2)
    before = site.children()
    first = await site.act("gunicorn.reload")
    assert first["kind"] == "action.done", first["text"]
    good = site.children()
    (site.folder / "site_app.py").write_text("this is no Python\n")
    outcome = await site.act("gunicorn.reload")
    assert outcome["kind"] == "action.failed", outcome["text"]
    assert "--check-config" not in outcome["text"] and "load before" in outcome["text"]
    assert site.master.returncode is None
    assert site.children() == good
    assert before


async def test_a_dry_run_tells_the_steps_and_does_nothing(site: Any) -> None:
    await site.start(workers=2)
    before = site.children()
    outcome = await site.act("gunicorn.rotate", dry_run=True)
    assert outcome["kind"] == "action.planned"
    assert "send SIGTTIN to pid" in outcome["text"]
    assert site.children() == before


async def test_what_may_not_be_done_is_refused_with_its_reason(site: Any) -> None:
    await site.start(workers=2)
    before, worker = site.children(), (await site.workers())[0]
    wrong = {"pid": worker["pid"], "start_ticks": worker["start_ticks"] + 1}
    asked = {
        "stale": await site.act("gunicorn.recycle_worker", target=wrong),
        "unknown_action": await site.act("gunicorn.explode"),
        "params": await site.act("gunicorn.scale", params={"by": 1000}),
        "policy": await site.act("unit.restart", params={"unit": "ssh.service"}),
    }
    assert {name: event["attrs"]["reason"] for name, event in asked.items()} == {name: name for name in asked}
    assert site.children() == before
