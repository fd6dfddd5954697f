"""Deploys over three hosts that are namespaces: the barrier, the batch, hosts that die, and a server killed in every step.

One fleet serves all tests of this file. All along it is looked whether hosts that differ while no deploy is under way are told.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
import pytest_asyncio

from demo.stage import StageError, demo_python
from tests.e2e.fleet import Fleet, Host

ENDS = ("release.prepared", "release.kept", "release.rolled_back", "release.failed", "release.refused")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces and loads BPF programs"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole() -> AsyncIterator[Fleet]:
    """The fleet of all tests."""
    try:
        demo_python()
    except StageError as error:
        pytest.skip(str(error))
    async with Fleet() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(whole: Fleet) -> AsyncIterator[Fleet]:
    """The fleet when all of it runs."""
    await whole.heal()
    yield whole
    assert whole.unsaid == []


def part_of(deploy: Mapping[str, Any], host: str) -> Mapping[str, Any]:
    """What a host has done of a deploy."""
    found: Mapping[str, Any] = next(one for one in deploy["parts"] if one["host"] == host)
    return found


def at(events: Sequence[Mapping[str, Any]], kind: str, host: str) -> int:
    """When a host told that, in us; the first time."""
    return int(next(one["ts_us"] for one in events if (one["kind"], one["host"]) == (kind, host)))


async def switching(fleet: Fleet, deploy: str, host: Host) -> Mapping[str, Any]:
    """The deploy when a host is in the middle of a handover: two of its masters run."""
    found = await fleet.comes_to(deploy, lambda now: part_of(now, host.name)["state"] == "switching", host.name)

    async def is_in_the_middle() -> bool:
        return host.masters() == 2

    await fleet.until(is_in_the_middle, f"no second master is seen on {host.name}", within_s=60)
    return found


async def all_serve(fleet: Fleet, version: str) -> None:
    """Each host serves that version, by one master."""
    assert await fleet.versions() == {host.name: version for host in fleet.hosts}

    async def is_alone() -> bool:
        return all(host.masters() == 1 for host in fleet.hosts)

    await fleet.until(is_alone, "some host has two masters")


async def killed_and_started(fleet: Fleet) -> None:
    """The server is killed where it stands, and starts again."""
    await fleet.kill_server()
    await fleet.start_server_again()


async def test_a_server_that_is_killed_in_every_step_leads_each_deploy_to_its_end(fleet: Fleet) -> None:
    """The first host is the barrier, the batch follows; a push that waits keeps its place, and begins after the first."""
    version, later = fleet.commit(), fleet.commit()
    first = await fleet.push(version)
    await fleet.comes_to(first, lambda now: now["stage"] == "prepare", "the builds")
    await killed_and_started(fleet)
    await switching(fleet, first, fleet.hosts[0])
    second = await fleet.push(later)
    await killed_and_started(fleet)
    await fleet.comes_to(first, lambda now: part_of(now, "web-1")["has_switched"], "the watch")
    assert (await fleet.deploys())[0]["stage"] == "queued"
    await killed_and_started(fleet)
    rest = await fleet.comes_to(
        first, lambda now: all(part_of(now, host)["order"] for host in ("web-2", "web-3")), "the batch"
    )
    await fleet.kill_server()

    async def have_ended() -> bool:
        return all(host.has_ended(part_of(rest, host.name)["order"]) for host in fleet.hosts[1:])

    await fleet.until(have_ended, "hosts do not end without the server", within_s=60)
    await fleet.start_server_again()
    done = await fleet.ended(first)
    assert (done["outcome"], done["text"]) == ("kept", "serves on web-1, web-2, web-3.")
    events = await fleet.told(first)
    assert max(at(events, "release.prepared", host.name) for host in fleet.hosts) < at(events, "deploy.step", "web-1")
    for host in ("web-2", "web-3"):
        assert at(events, "release.kept", "web-1") < at(events, "release.switched", host)
    assert set(Counter(one["attrs"]["order"] for one in events if one["kind"] in ENDS).values()) == {1}
    assert Counter(one["kind"] for one in events if one["kind"].startswith("release.")) == {
        "release.prepared": 3, "release.switched": 3, "release.kept": 3,
    }  # fmt: skip
    follows = await fleet.ended(second)
    assert (follows["outcome"], follows["text"]) == ("kept", "serves on web-1, web-2, web-3.")
    queued, started = (await fleet.told(second))[:2]
    assert (queued["kind"], started["kind"]) == ("deploy.queued", "deploy.started")
    assert f"deploys {version} of it" in queued["text"]
    assert started["ts_us"] >= next(one["ts_us"] for one in events if one["kind"] == "deploy.finished")
    await all_serve(fleet, later)


async def test_a_release_that_fails_on_the_second_host_goes_back_everywhere_over_a_server_that_is_killed(
    fleet: Fleet,
) -> None:
    before = await fleet.versions()
    version = fleet.commit()
    fleet.hosts[1].be_ill(version)
    deploy = await fleet.push(version)
    await fleet.comes_to(deploy, lambda now: now["stage"] == "back", "the way back")
    await killed_and_started(fleet)
    done = await fleet.ended(deploy)
    assert done["outcome"] == "rolled_back"
    assert "fleet-web answered /healthz with 500" in done["text"]
    assert {part["host"]: part["state"] for part in done["parts"]} == {
        "web-1": "went_back", "web-2": "failed", "web-3": "went_back",
    }  # fmt: skip
    events = await fleet.told(deploy)
    assert Counter(one["host"] for one in events if one["kind"] == "release.rolled_back") == {
        host.name: 1 for host in fleet.hosts
    }
    assert await fleet.versions() == before


async def test_or_the_others_keep_it_and_each_hosts_release_is_told(fleet: Fleet) -> None:
    await fleet.take_on(on_failure="leave")
    version = fleet.commit()
    fleet.hosts[1].be_ill(version)
    done = await fleet.deployed(version)
    assert done["outcome"] == "failed"
    one, two = (part_of(done, host)["serves"].rpartition("-")[2] for host in ("web-1", "web-2"))
    assert one != two
    assert f"Hosts differ: web-1, web-3 serve {one}; web-2 serves {two}." in done["text"]
    (finished,) = [event for event in await fleet.told(done["id"]) if event["kind"] == "deploy.finished"]
    assert finished["attrs"]["serves"].startswith("Hosts differ")
    await fleet.look_once()
    await fleet.take_on()


async def test_an_agent_that_dies_in_the_middle_goes_on_or_is_gone_on_without_and_catches_up(fleet: Fleet) -> None:
    version = fleet.commit()
    deploy = await fleet.push(version)
    first, last = fleet.hosts[0], fleet.hosts[2]
    await switching(fleet, deploy, first)
    await first.kill_agent()
    await first.start_agent()
    await switching(fleet, deploy, last)
    await last.kill_agent()
    await fleet.take_on(patience_s=2)
    done = await fleet.ended(deploy)
    await fleet.take_on()
    assert (done["outcome"], part_of(done, "web-1")["state"]) == ("kept", "kept")
    assert done["text"].startswith("serves on web-1, web-2; web-3 could not be reached and follow when they can.")
    assert done["text"].endswith(
        "Hosts differ: web-1, web-2 serve " + commit(done) + "; what web-3 serves is not known until heard."
    )
    await last.start_agent()
    follows = await fleet.followed(deploy)
    assert (follows["who"], follows["why"]) == ("Reflex", f"web-3 was left in the middle when {version} was deployed")
    assert (follows["outcome"], follows["text"]) == ("kept", "serves on web-3."), follows["text"]
    cut = await fleet.events(kind="release.interrupted")
    assert {one["host"] for one in cut} == {"web-1", "web-3"}
    assert all("its services run 2" in one["text"] for one in cut)
    await all_serve(fleet, version)


async def test_a_host_that_loses_its_power_in_the_middle_gets_the_release_when_it_is_back(fleet: Fleet) -> None:
    version = fleet.commit()
    deploy = await fleet.push(version)
    last = fleet.hosts[2]
    await switching(fleet, deploy, last)
    await last.cut_power()
    await fleet.take_on(patience_s=2)
    done = await fleet.ended(deploy)
    await fleet.take_on()
    assert (done["outcome"], part_of(done, "web-3")["is_unsure"]) == ("kept", True)
    await last.start_agent()
    await last.start_web()
    follows = await fleet.followed(deploy)
    assert (follows["who"], follows["outcome"]) == ("Reflex", "kept")
    await all_serve(fleet, version)


async def test_a_host_whose_link_is_cut_in_the_middle_ends_by_itself_and_is_asked_again_when_it_is_heard(
    fleet: Fleet,
) -> None:
    """Its agent lives: it brings its release to the end that it would have come to, and tells of that late."""
    version = fleet.commit()
    deploy = await fleet.push(version)
    last = fleet.hosts[2]
    cut_off = await switching(fleet, deploy, last)
    last.cut_link()
    order = part_of(cut_off, last.name)["order"]

    async def has_ended() -> bool:
        return last.has_ended(order)

    await fleet.until(has_ended, f"{last.name} does not end without the server", within_s=60)
    await fleet.take_on(patience_s=2)
    done = await fleet.ended(deploy)
    await fleet.take_on()
    assert (done["outcome"], part_of(done, last.name)["is_unsure"]) == ("kept", True)
    assert "web-3 could not be reached and follow when they can." in done["text"]
    assert last.masters() == 1
    last.mend_link()
    follows = await fleet.followed(deploy)
    assert (follows["who"], follows["outcome"], follows["text"]) == ("Reflex", "kept", "serves on web-3.")
    kept = [one for one in await fleet.told(deploy) if (one["kind"], one["host"]) == ("release.kept", last.name)]
    assert [one["attrs"]["order"] for one in kept] == [order]
    assert [one for one in await fleet.told(deploy) if one["kind"] == "release.interrupted"] == []
    await all_serve(fleet, version)


def commit(deploy: Mapping[str, Any]) -> str:
    """The commit of a deploy as the names of releases have it."""
    return str(part_of(deploy, "web-1")["commit"])[:7]
