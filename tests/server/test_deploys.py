"""The pipeline's decisions, by plain values: scenarios, and laws for any order of answers, absences and restarts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire import Event, uuid7
from agent.wire.app import App
from server.pipeline.deploys import (
    AT_WORK,
    Answer,
    Cancelled,
    Deploy,
    Heard,
    Held,
    Hold,
    Input,
    Present,
    Push,
    State,
    Tick,
    Wanted,
    deploy_from_json,
    deploy_to_json,
)
from server.pipeline.engine import Rejected, outstanding, step
from server.pipeline.site import PATIENCE_US, Site

HOSTS = ("web-1", "web-2", "web-3")
SITE = Site(App("shop", "git@git.example:shop.git", "main", "shop", "/srv/shop"), HOSTS, batch=2)
S = 1_000_000


class Play:
    """The engine and hosts that answer as they are told to."""

    def __init__(self, site: Site = SITE, *, present: Sequence[str] = HOSTS) -> None:
        self.sites = {"shop": site}
        self.state = State(seed="seed")
        self.now_us = 1_700_000_000 * S
        self.orders: list[Wanted] = []
        self.told: list[Event] = []
        self._made = 0
        for host in present:
            self.give(Present(host, is_there=True))

    def give(self, given: Input, *, after_s: float = 1) -> Answer:
        self.now_us += int(after_s * S)
        answer = step(self.state, self.sites, given, self.now_us)
        self.state = answer.state
        self.orders += answer.orders
        self.told += [entry.event for entry in answer.entries]
        return answer

    def answer(self, order: Wanted, kind: str, **attrs: Any) -> Answer:
        self._made += 1
        said = {"order": order.id, "deploy": order.deploy, "release": order.release or f"r-{order.host}", **attrs}
        event = Event(uuid7(self.now_us, self._made), self.now_us, kind, "info", f"{order.host}: {kind}.", attrs=said)
        return self.give(Heard(order.host, event))

    def take(self, phase: str) -> list[Wanted]:
        """Orders of a phase that were sent since the last look; all others must have been taken before."""
        found, self.orders = self.orders, []
        assert {one.phase for one in found} <= {phase}, found
        return found

    def prepared(self, commit: str = "c0ffee") -> None:
        for order in self.take("prepare"):
            self.answer(order, "release.prepared", commit=commit)

    @property
    def deploy(self) -> Deploy:
        return max(self.state.deploys.values(), key=lambda one: one.at_us)

    def restart(self) -> None:
        """The server is killed and starts with what was written down."""
        deploys = {
            id_: deploy_from_json(json.loads(json.dumps(deploy_to_json(one))))
            for id_, one in self.state.deploys.items()
        }
        assert deploys == dict(self.state.deploys)
        self.state = replace(self.state, present=frozenset(), gone_us=dict.fromkeys(HOSTS, self.now_us))


def test_all_build_then_the_first_switches_then_the_others_in_batches() -> None:
    play = Play(replace(SITE, batch=1))
    play.give(Push("shop", "main", "ada", "a fix"))
    assert [order.host for order in play.orders] == list(HOSTS)
    play.prepared()
    (first,) = play.take("switch")
    assert (first.host, first.migrates, first.release) == ("web-1", True, "r-web-1")
    play.answer(first, "release.switched")
    assert play.take("switch") == []
    play.answer(first, "release.kept")
    for host in HOSTS[1:]:
        (order,) = play.take("switch")
        assert (order.host, order.migrates) == (host, False)
        play.answer(order, "release.kept")
    assert (play.deploy.outcome, play.deploy.text) == ("kept", "serves on web-1, web-2, web-3.")
    assert [event.kind for event in play.told] == ["deploy.started", "deploy.step", "deploy.step", "deploy.finished"]
    assert play.told[0].text == "ada began to deploy shop to main on web-1, web-2, web-3: a fix."


def test_a_host_where_nothing_runs_the_release_is_not_said_to_serve_it() -> None:
    play = Play()
    play.give(Push("shop", "main", "ada"))
    play.prepared()
    (first,) = play.take("switch")
    play.answer(first, "release.kept", verdict="same", serves="r-c0ffee")
    two, three = play.take("switch")
    play.answer(two, "release.kept", seen=False, serves="r-c0ffee")
    play.answer(three, "release.kept", verdict="same", serves="r-c0ffee")
    assert play.deploy.outcome == "kept"
    assert play.deploy.text == "serves on web-1, web-3; is current on web-2, where nothing that runs it is seen."
    play.restart()


def test_a_first_deploy_that_nothing_runs_yet_is_kept_and_says_so() -> None:
    play = Play(replace(SITE, hosts=("web-1",)))
    play.give(Push("shop", "main", "ada"))
    play.prepared()
    (first,) = play.take("switch")
    play.answer(first, "release.kept", seen=False)
    assert play.deploy.outcome == "kept"
    assert play.deploy.text == "serves nowhere; is current on web-1, where nothing that runs it is seen."


def test_one_build_that_fails_keeps_everybody_from_switching() -> None:
    play = Play()
    play.give(Push("shop", "main", "ada"))
    one, two, three = play.take("prepare")
    play.answer(one, "release.prepared", commit="c")
    play.answer(two, "release.failed")
    assert not play.deploy.is_over, "web-3 still builds"
    play.answer(three, "release.prepared", commit="c")
    assert play.deploy.outcome == "failed"
    assert "was not switched to anywhere: web-2: release.failed." in play.deploy.text
    assert play.orders == []


def test_a_branch_that_moves_meanwhile_is_not_deployed() -> None:
    play = Play()
    play.give(Push("shop", "main", "ada"))
    for commit, order in zip("abc", play.take("prepare"), strict=True):
        play.answer(order, "release.prepared", commit=commit)
    assert "main moved while hosts were fetching it" in play.deploy.text


def test_a_first_host_that_goes_back_ends_it() -> None:
    play = Play()
    play.give(Push("shop", "main", "ada"))
    play.prepared()
    (first,) = play.take("switch")
    play.answer(first, "release.rolled_back")
    assert play.deploy.outcome == "rolled_back"
    assert play.orders == []


def test_a_later_host_that_goes_back_takes_all_with_it() -> None:
    play = Play()
    play.give(Push("shop", "main", "ada"))
    play.prepared()
    play.answer(play.take("switch")[0], "release.kept")
    two, three = play.take("switch")
    play.answer(two, "release.rolled_back")
    assert play.orders == [], "web-3 is still watched"
    play.answer(three, "release.kept")
    back = play.take("rollback")
    assert [order.host for order in back] == ["web-1", "web-3"]
    for order in back:
        play.answer(order, "release.rolled_back")
    assert play.deploy.outcome == "rolled_back"


def test_or_leaves_them_if_the_app_says_so_and_says_who_has_it() -> None:
    play = Play(replace(SITE, on_failure="leave"))
    play.give(Push("shop", "main", "ada"))
    play.prepared()
    play.answer(play.take("switch")[0], "release.kept")
    two, three = play.take("switch")
    play.answer(two, "release.kept")
    play.answer(three, "release.failed")
    assert "goes no further, and serves on web-1, web-2: " in play.deploy.text


def test_one_at_a_time_and_the_latest_of_those_that_wait() -> None:
    play = Play()
    play.give(Push("shop", "main", "ada"))
    play.give(Push("shop", "v2", "bob"))
    play.give(Push("shop", "v3", "eve"))
    stages = {one.ref: (one.stage, one.outcome) for one in play.state.deploys.values()}
    assert stages == {"main": ("prepare", ""), "v2": ("done", "cancelled"), "v3": ("queued", "")}
    waits = next(event for event in play.told if event.kind == "deploy.queued")
    assert waits.text == "The deploy of shop to v2 waits: ada deploys main of it."
    for order in play.take("prepare"):
        play.answer(order, "release.failed")
    assert {order.ref for order in play.take("prepare")} == {"v3"}


def test_a_hold_makes_them_wait_until_it_ends() -> None:
    play = Play()
    play.give(Held("shop", "ada", Hold("ada", "a sale", play.now_us, play.now_us + 60 * S)))
    play.give(Push("shop", "main", "bob"))
    assert play.orders == []
    assert "deploys of shop are held by ada: a sale" in play.told[-1].text
    play.give(Push("shop", "", "eve", is_rollback=True))
    for order in play.take("rollback"):
        play.answer(order, "release.rolled_back")
    play.give(Push("shop", "main", "bob"))
    assert play.orders == []
    play.give(Tick(), after_s=70)
    assert len(play.take("prepare")) == 3


def test_a_host_that_is_away_is_left_out_and_follows_when_it_is_back() -> None:
    play = Play(present=HOSTS[:2])
    play.give(Push("shop", "main", "ada"))
    play.prepared()
    play.answer(play.take("switch")[0], "release.kept")
    play.answer(play.take("switch")[0], "release.kept")
    assert play.deploy.text == "serves on web-1, web-2; web-3 could not be reached and follow when they can."
    play.give(Present("web-3", is_there=True))
    (order,) = play.take("prepare")
    assert (order.host, order.ref) == ("web-3", "c0ffee")
    assert play.deploy.why == "web-3 was away when main was deployed"


def test_a_host_that_dies_in_the_middle_holds_nobody_up() -> None:
    play = Play()
    play.give(Push("shop", "main", "ada"))
    play.prepared()
    play.answer(play.take("switch")[0], "release.kept")
    two, three = play.take("switch")
    play.answer(two, "release.kept")
    play.give(Present("web-3", is_there=False))
    play.give(Tick(), after_s=PATIENCE_US / S + 2)
    assert play.deploy.outcome == "kept"
    assert "web-3 could not be reached" in play.deploy.text
    assert any("web-3 cannot be reached in the middle of switching" in event.text for event in play.told)
    assert three.host == "web-3"


def test_a_server_that_comes_back_waits_for_its_hosts_before_it_goes_on_without_them() -> None:
    play = Play()
    play.give(Push("shop", "main", "ada"))
    play.prepared()
    (first,) = play.take("switch")
    play.give(Push("shop", "v2", "bob"))
    play.restart()
    play.answer(first, "release.kept")
    assert play.orders == [], "web-2 and web-3 have not had the time to come back"
    for host in HOSTS[1:]:
        play.give(Present(host, is_there=True))
    two, three = play.take("switch")
    play.answer(two, "release.kept")
    play.restart()
    play.answer(three, "release.kept")
    assert play.state.deploys[first.deploy].outcome == "kept"
    assert play.deploy.stage == "queued", "it waits for its first host"
    play.give(Present("web-1", is_there=True))
    assert [order.host for order in play.take("prepare")] == ["web-1"]
    play.give(Tick(), after_s=PATIENCE_US / S + 2)
    assert [part.state for part in play.deploy.parts] == ["preparing", "away", "away"]


def test_a_way_back_waits_for_a_host_that_may_come_back() -> None:
    play = Play()
    play.give(Push("shop", "main", "ada"))
    play.prepared()
    play.answer(play.take("switch")[0], "release.kept")
    two, three = play.take("switch")
    play.answer(two, "release.rolled_back")
    play.give(Present("web-1", is_there=False))
    play.answer(three, "release.kept")
    (back,) = play.take("rollback")
    play.answer(back, "release.rolled_back")
    assert not play.deploy.is_over
    play.give(Present("web-1", is_there=True))
    (back,) = play.take("rollback")
    assert back.host == "web-1"


def test_a_push_waits_for_a_first_host_that_was_there_a_moment_ago() -> None:
    play = Play()
    play.give(Present("web-1", is_there=False))
    play.give(Push("shop", "main", "ada"))
    assert play.deploy.stage == "queued"
    assert play.told[-1].text == "The deploy of shop to main waits: web-1 cannot be reached at the moment."
    play.give(Tick(), after_s=PATIENCE_US / S + 2)
    assert "its first host web-1 cannot be reached" in play.deploy.text


def test_the_patience_is_the_apps() -> None:
    play = Play(replace(SITE, patience_s=5))
    play.give(Push("shop", "main", "ada"))
    play.take("prepare")
    play.give(Present("web-3", is_there=False))
    play.give(Tick(), after_s=7)
    assert [part.state for part in play.deploy.parts] == ["preparing", "preparing", "away"]


def left_in_the_middle(play: Play) -> None:
    """v1 is kept everywhere; then v2 goes back, and web-3 is gone in the middle of its switch."""
    for commit in ("aaaaaaa", "bbbbbbb"):
        play.give(Push("shop", "v1" if commit[0] == "a" else "v2", "ada"))
        for order in play.take("prepare"):
            play.answer(order, "release.prepared", commit=commit, serves="20261124T020304-aaaaaaa")
        orders = play.take("switch")
        play.answer(orders[0], "release.kept", serves=f"20261124T020305-{commit}")
        two, three = play.take("switch")
        if commit[0] == "a":
            for order in (two, three):
                play.answer(order, "release.kept", serves=f"20261124T020306-{commit}")
    play.give(Present("web-3", is_there=False))
    play.answer(two, "release.rolled_back", serves="20261124T020306-aaaaaaa")
    play.give(Tick(), after_s=PATIENCE_US / S + 2)
    (back,) = play.take("rollback")
    play.answer(back, "release.rolled_back", serves="20261124T020305-aaaaaaa")


def test_hosts_that_differ_are_told_by_name() -> None:
    play = Play(replace(SITE, on_failure="leave"))
    play.give(Push("shop", "main", "ada"))
    for order in play.take("prepare"):
        play.answer(order, "release.prepared", commit="c", serves="20261124T020304-aaaaaaa")
    play.answer(play.take("switch")[0], "release.kept", serves="20261124T020305-bbbbbbb")
    two, three = play.take("switch")
    play.answer(two, "release.rolled_back", serves="20261124T020304-aaaaaaa")
    play.answer(three, "release.kept", serves="20261124T020306-bbbbbbb")
    finished = play.told[-1]
    assert finished.attrs["serves"] == "Hosts differ: web-1, web-3 serve bbbbbbb; web-2 serves aaaaaaa."
    assert finished.text.endswith(str(finished.attrs["serves"]))


def test_a_host_that_was_left_in_the_middle_gets_what_the_others_went_back_to() -> None:
    play = Play()
    left_in_the_middle(play)
    assert play.deploy.outcome == "rolled_back"
    assert "Hosts differ: web-1, web-2 serve aaaaaaa; what web-3 serves is not known until heard." in play.deploy.text
    play.give(Present("web-3", is_there=True))
    (order,) = play.take("prepare")
    assert (order.host, order.ref) == ("web-3", "aaaaaaa")
    assert play.deploy.why == "web-3 was left in the middle when v2 was deployed"


def test_a_host_that_is_back_before_the_end_follows_after_it() -> None:
    play = Play(present=HOSTS[:2])
    play.give(Push("shop", "main", "ada"))
    play.prepared()
    play.give(Present("web-3", is_there=True))
    play.answer(play.take("switch")[0], "release.kept")
    play.answer(play.take("switch")[0], "release.kept")
    play.give(Tick())
    (order,) = play.take("prepare")
    assert order.host == "web-3"


def test_what_a_host_missed_overtakes_no_push_of_a_person() -> None:
    play = Play(present=HOSTS[:2])
    play.give(Push("shop", "main", "ada"))
    play.prepared()
    play.answer(play.take("switch")[0], "release.kept")
    play.answer(play.take("switch")[0], "release.kept")
    play.give(Push("shop", "v2", "bob", hosts=("web-1", "web-2")))
    play.take("prepare")
    play.give(Push("shop", "v3", "eve", hosts=("web-1",)))
    play.give(Present("web-3", is_there=True))
    stages = {one.ref: one.stage for one in play.state.deploys.values()}
    assert stages == {"main": "done", "v2": "prepare", "v3": "queued", "c0ffee": "queued"}


def test_nothing_begins_without_the_first_host() -> None:
    play = Play(present=HOSTS[1:])
    play.give(Push("shop", "main", "ada"))
    assert play.deploy.outcome == "failed"
    assert "its first host web-1 cannot be reached" in play.deploy.text


def test_a_restart_orders_the_same_again() -> None:
    play = Play()
    play.give(Push("shop", "main", "ada"))
    sent = play.take("prepare")
    play.restart()
    for host in HOSTS:
        play.give(Present(host, is_there=True))
    assert play.take("prepare") == sent
    for order in sent:
        play.answer(order, "release.prepared", commit="c")
    (switch,) = play.take("switch")
    play.restart()
    play.give(Present("web-1", is_there=True))
    assert play.take("switch") == [switch]


def test_an_answer_that_comes_twice_or_late_changes_nothing() -> None:
    play = Play()
    play.give(Push("shop", "main", "ada"))
    orders = play.take("prepare")
    for order in orders:
        play.answer(order, "release.prepared", commit="c")
    (switch,) = play.take("switch")
    before = play.state.deploys
    play.answer(orders[0], "release.failed")
    assert play.state.deploys == before
    play.answer(replace(switch, host="web-2"), "release.kept")
    assert play.state.deploys == before


def test_what_is_cancelled_ends_on_every_host() -> None:
    play = Play()
    play.give(Push("shop", "main", "ada"))
    orders = play.take("prepare")
    play.give(Cancelled(play.deploy.id, "bob"))
    cancels = play.take("cancel")
    assert [order.release for order in cancels] == [order.id for order in orders]
    for order in orders:
        play.answer(order, "release.failed")
    assert (play.deploy.outcome, "was cancelled by bob" in play.deploy.text) == ("cancelled", True)
    with pytest.raises(Rejected, match="no deploy"):
        play.give(Cancelled(play.deploy.id, "bob"))


def test_a_rollback_goes_to_every_host_at_once() -> None:
    play = Play()
    play.give(Push("shop", "", "ada", is_rollback=True))
    for order in play.take("rollback"):
        play.answer(order, "release.rolled_back")
    assert play.deploy.outcome == "kept"


def test_a_way_back_after_which_nothing_runs_is_not_said_to_serve() -> None:
    play = Play()
    play.give(Push("shop", "", "ada", is_rollback=True))
    one, *others = play.take("rollback")
    play.answer(one, "release.rolled_back", seen=False)
    for order in others:
        play.answer(order, "release.rolled_back", seen=True)
    assert play.deploy.text == "serves on web-2, web-3; is current on web-1, where nothing that runs it is seen."


def test_each_host_goes_back_to_a_release_by_its_own_name_for_it() -> None:
    play = Play()
    for commit in ("1a2b3c4d" * 5, "5e6f7a8b" * 5):
        play.give(Push("shop", "main", "ada"))
        for order in play.take("prepare"):
            play.answer(order, "release.prepared", commit=commit, release=f"{order.host}-{commit[:7]}")
        for _ in range(2):
            for order in play.take("switch"):
                play.answer(order, "release.kept")
    for named in ("web-2-1a2b3c4", "1a2b3c4", "1a2b3c4d1a2b"):
        play.give(Push("shop", named, "ada", is_rollback=True))
        orders = play.take("rollback")
        assert {one.host: one.release for one in orders} == {host: f"{host}-1a2b3c4" for host in HOSTS}
        for order in orders:
            play.answer(order, "release.rolled_back")


def test_a_host_that_did_not_have_a_commit_is_asked_by_its_name_once_it_has() -> None:
    """What it was asked for in vain is no name of a release."""
    play = Play()

    def deployed(commit: str, *hosts: str) -> None:
        play.give(Push("shop", commit, "ada", hosts=hosts))
        for order in play.take("prepare"):
            play.answer(order, "release.prepared", commit=commit, release=f"{order.host}-{commit[:7]}")
        while play.orders:
            for order in play.take("switch"):
                play.answer(order, "release.kept")

    commit = "1a2b3c4d" * 5
    deployed(commit, "web-1", "web-2")
    for expected in ("1a2b3c4", "web-3-1a2b3c4"):
        play.give(Push("shop", "1a2b3c4", "ada", is_rollback=True))
        found = {order.host: order for order in play.take("rollback")}
        assert found["web-3"].release == expected
        for order in found.values():
            is_there = order.release.startswith("web-")
            play.answer(order, "release.rolled_back" if is_there else "release.failed")
        deployed(commit, "web-3")


def test_a_name_that_nobody_knows_goes_to_the_hosts_as_it_is() -> None:
    play = Play()
    play.give(Push("shop", "20190101120000", "ada", is_rollback=True))
    assert {one.release for one in play.take("rollback")} == {"20190101120000"}


def test_what_cannot_be_is_said() -> None:
    play = Play()
    with pytest.raises(Rejected, match="there is no app till"):
        play.give(Push("till", "main", "ada"))
    with pytest.raises(Rejected, match="shop is not served by db-1; its hosts are web-1, web-2, web-3"):
        play.give(Push("shop", "main", "ada", hosts=("db-1",)))


ENDS = {
    "prepare": ("release.prepared", "release.failed", "release.refused"),
    "switch": ("release.kept", "release.rolled_back", "release.failed"),
    "rollback": ("release.rolled_back", "release.failed"),
}
moves = st.one_of(
    st.tuples(st.just("push"), st.sampled_from(["main", "v2"])),
    st.tuples(st.just("answer"), st.integers(0, 10), st.integers(0, 5)),
    st.tuples(st.just("answer"), st.integers(0, 10), st.just(0)),
    st.tuples(st.just("again"), st.integers(0, 50)),
    st.tuples(st.just("gone"), st.sampled_from(HOSTS)),
    st.tuples(st.just("back"), st.sampled_from(HOSTS)),
    st.tuples(st.just("tick"), st.sampled_from([1, 30, 200])),
    st.tuples(st.just("restart")),
    st.tuples(st.just("cancel")),
)


class Fleet:
    """Hosts as they behave: each does an order once, and tells its end again when it is ordered again."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.ended: dict[str, str] = {}
        self.open: dict[str, Wanted] = {}
        self.everything: list[Wanted] = []
        self.read = 0

    def listen(self) -> None:
        """Takes orders that reach their host; checks that none breaks a law."""
        for order in self.play.orders[self.read :]:
            deploy = self.play.state.deploys[order.deploy]
            if order.phase == "switch" and order.id not in self.open and order.id not in self.ended:
                others = [part for part in deploy.parts if part.host != order.host]
                first = deploy.first.host == order.host
                assert first or deploy.first.state == "kept", "no host switches before the first has kept it"
                assert not any(part.state == "preparing" for part in others), "no host switches while another builds"
            if order.host not in self.play.state.present:
                continue
            self.everything.append(order)
            if order.phase != "cancel" and order.id not in self.ended:
                self.open[order.id] = order
        self.read = len(self.play.orders)

    def answer(self, which: int, how: int) -> None:
        there = [order for order in self.open.values() if order.host in self.play.state.present]
        if there:
            order = there[which % len(there)]
            kinds = ENDS[order.phase]
            self.end(order, kinds[how % len(kinds)])

    def end(self, order: Wanted, kind: str) -> None:
        self.open.pop(order.id, None)
        self.ended[order.id] = kind
        self.play.answer(order, kind, commit="c")


@settings(max_examples=150, deadline=None)
@given(st.lists(moves, max_size=60), st.sampled_from(["rollback", "leave"]), st.integers(1, 3))
def test_laws_of_deploys(script: list[Any], on_failure: Any, batch: int) -> None:
    play = Play(replace(SITE, on_failure=on_failure, batch=batch))
    fleet = Fleet(play)
    for move in script:
        do(move, play, fleet)
        fleet.listen()
        at_work = [one for one in play.state.deploys.values() if one.stage not in ("queued", "done")]
        assert len(at_work) <= 1, "one deploy of an app at a time"
        for deploy in at_work:
            switching = [part for part in deploy.parts if part.state == "switching"]
            assert len(switching) <= batch
        for one in play.state.deploys.values():
            assert not one.is_over or not any(part.state in AT_WORK for part in one.parts), "what is over has no work"
    for host in HOSTS:
        play.give(Present(host, is_there=True))
    for _ in range(200):
        fleet.listen()
        if not fleet.open:
            play.give(Tick(), after_s=100)
            fleet.listen()
        for order in list(fleet.open.values()):
            fleet.end(order, ENDS[order.phase][0])
        if all(one.is_over for one in play.state.deploys.values()) and not fleet.open:
            break
    assert all(one.is_over for one in play.state.deploys.values()), "no lock is held for ever"
    for host in HOSTS:
        assert outstanding(play.state, host) == ()
    ids = [order.id for order in fleet.everything if order.phase != "cancel"]
    assert {order.id: (order.host, order.phase) for order in fleet.everything if order.phase != "cancel"}.keys() == set(
        ids
    )


def do(move: Any, play: Play, fleet: Fleet) -> None:
    """One move of the script."""
    if move[0] == "push":
        play.give(Push("shop", move[1], "ada"))
    elif move[0] == "answer":
        fleet.answer(move[1], move[2])
    elif move[0] == "again" and fleet.ended:
        id_ = list(fleet.ended)[move[1] % len(fleet.ended)]
        order = next(one for one in fleet.everything if one.id == id_)
        play.answer(order, fleet.ended[id_], commit="c")
    elif move[0] in ("gone", "back"):
        play.give(Present(move[1], is_there=move[0] == "back"))
    elif move[0] == "tick":
        play.give(Tick(), after_s=move[1])
    elif move[0] == "restart":
        play.restart()
        play.state = replace(play.state, gone_us=dict.fromkeys(HOSTS, play.now_us))
    elif move[0] == "cancel":
        under_way = [one for one in play.state.deploys.values() if not one.is_over]
        if under_way:
            play.give(Cancelled(under_way[0].id, "bob"))
