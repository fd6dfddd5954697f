"""Playbooks that hosts run by themselves: one limit for the fleet, whoever is cut off from whom, and no target twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import count
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.wire import Command, Event, WorkerRef
from playbooks import Happened, Holds, Lend, Playbook, State, Switched, Tick, Use, read_playbook, step
from playbooks.lending import charge, charged, confirm, share_for
from playbooks.model import HOUR_US
from tests.playbooks.written import Written

S = 1_000_000
LEASE_US = 4 * HOUR_US
TEXT = """
name: surge
title: replace
on: [{event: worker.leaking}]
steps: [{action: gunicorn.rotate, timeout: 20s}]
limits: {cooldown: 0s, per_hour: 2, fleet_per_hour: 4}
mode: armed
runs_on: host
"""
BOOK = read_playbook(TEXT, "t")
HOSTS, SERVICES = ("web-1", "web-2"), ("shop", "mail")


@dataclass
class Site:
    """A host with an engine of its own. `waiting` has loans that are on their way to it, `said` its answers."""

    name: str
    state: State
    books: dict[str, Playbook] = field(default_factory=dict)
    until_us: int = 0
    serial: int = 0
    waiting: list[tuple[int, int, int, tuple[Use, ...]]] = field(default_factory=list)
    said: list[tuple[int, frozenset[str], tuple[Use, ...]]] = field(default_factory=list)


class Fleet(RuleBasedStateMachine):
    """A server and two hosts, with messages that come late or never."""

    def __init__(self) -> None:
        super().__init__()
        self.now_us = 10**15
        self.server = State("server")
        self.books = {BOOK.name: BOOK}
        self.sites = {name: Site(name, State(name, ran_on=name)) for name in HOSTS}
        self.ids = count(1)
        self.serials = count(1)
        self.acts: list[tuple[str, str, int]] = []
        self.sent: dict[str, int] = {}

    def _server(self, given: object) -> None:
        answer = step(self.server, self.books, given, self.now_us)  # type: ignore[arg-type]
        self.server = answer.state
        written = Written()
        written.keep(self.server)
        assert written.read(self.server) == self.server, "a restart of the server forgets nothing"
        self._note(answer.commands)

    def _host(self, site: Site, given: object) -> None:
        books = site.books if self.now_us < site.until_us else {}
        answer = step(site.state, books, given, self.now_us)  # type: ignore[arg-type]
        site.state = answer.state
        self._note(answer.commands)

    def _note(self, commands: object) -> None:
        for command in commands:  # type: ignore[attr-defined]
            assert isinstance(command, Command)
            self.acts.append((command.host, command.service or "", self.now_us))

    @rule(host=st.sampled_from(HOSTS), service=st.sampled_from(SERVICES), server_hears=st.booleans())
    def leak(self, host: str, service: str, server_hears: bool) -> None:
        event = Event(
            str(UUID(int=next(self.ids))),
            self.now_us,
            "worker.leaking",
            "info",
            "Leak.",
            service,
            WorkerRef(1, 1, 9, 9),
        )
        self._host(self.sites[host], Happened(host, event))
        if server_hears:
            self._server(Happened(host, event))

    @rule(host=st.sampled_from(HOSTS))
    def everything_leaks_again_and_again(self, host: str) -> None:
        for service in SERVICES * 3:
            self.leak(host, service, server_hears=True)
            self.time_passes(30)

    @rule(host=st.sampled_from(HOSTS), wants=st.booleans())
    def server_lends(self, host: str, wants: bool) -> None:
        names = frozenset({"surge"} if wants else ())
        self._server(Lend(host, names, len(HOSTS), self.now_us + LEASE_US))
        share = self.server.lent.get(host, {}).get("surge", 0) if wants else 0
        uses = tuple(use for use in self.server.uses if use.place.host == host)
        self.sites[host].waiting.append((next(self.serials), share, self.now_us + LEASE_US, uses))

    @rule(host=st.sampled_from(HOSTS))
    def loan_arrives(self, host: str) -> None:
        site = self.sites[host]
        if not site.waiting:
            return
        serial, share, until_us, uses = site.waiting.pop(0)
        if serial <= site.serial:
            return
        book = replace(BOOK, limits=replace(BOOK.limits, fleet_per_hour=share))
        site.serial, site.books, site.until_us = serial, {"surge": book} if share else {}, until_us
        kept = [*site.state.uses, *(use for use in uses if use not in site.state.uses)]
        site.state = replace(site.state, uses=tuple(kept))
        self._host(site, Tick())
        site.said.append((serial, frozenset(site.books), site.state.uses))

    @rule(host=st.sampled_from(HOSTS))
    def answer_arrives(self, host: str) -> None:
        site = self.sites[host]
        if site.said and not site.waiting:
            serial, names, uses = site.said.pop(0)
            if serial == site.serial:
                self._server(Holds(host, names, uses))

    @rule(host=st.sampled_from(HOSTS), wants=st.booleans())
    def all_goes_well(self, host: str, wants: bool) -> None:
        self.messages_are_lost(host)
        self.server_lends(host, wants)
        self.loan_arrives(host)
        self.answer_arrives(host)

    @rule(host=st.sampled_from(HOSTS))
    def messages_are_lost(self, host: str) -> None:
        self.sites[host].waiting.clear()
        self.sites[host].said.clear()

    @rule(seconds=st.sampled_from([1, 30, 600, 3600, 20_000]))
    def time_passes(self, seconds: int) -> None:
        self.now_us += seconds * S
        self._server(Tick())
        for site in self.sites.values():
            self._host(site, Tick())

    @rule(kills=st.booleans())
    def switch(self, kills: bool) -> None:
        self._server(Switched(kills, "ada"))

    @invariant()
    def no_limit_of_the_fleet_is_exceeded(self) -> None:
        recent = [at_us for _, _, at_us in self.acts]
        for at_us in recent:
            assert sum(at_us <= other < at_us + HOUR_US for other in recent) <= BOOK.limits.fleet_per_hour

    @invariant()
    def no_target_has_two_runs(self) -> None:
        places = Counter(run.place for site in self.sites.values() for run in site.state.runs.values())
        places.update(run.place for run in self.server.runs.values())
        assert all(number == 1 for number in places.values()), places

    @invariant()
    def no_limit_of_a_target_is_exceeded(self) -> None:
        for place in {act[:2] for act in self.acts}:
            here = [at_us for *named, at_us in self.acts if tuple(named) == place]
            for at_us in here:
                assert sum(at_us <= other < at_us + HOUR_US for other in here) <= BOOK.limits.per_hour


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


def test_shares() -> None:
    now = 10**15
    assert share_for(60, 1, {}, "p", "a", now, own=0) == 59
    assert share_for(10, 20, {}, "p", "a", now, own=0) == 0, "the server runs it there"
    charges = charge({}, "p", "a", 6, now + LEASE_US, now)
    assert share_for(10, 1, charges, "p", "b", now, own=0) == 3
    assert share_for(10, 1, charges, "p", "a", now, own=0) == 9, "its own loan is not in its way"
    assert share_for(10, 1, charges, "p", "b", now, own=8) == 0
    given_back = confirm(charges, "p", "a", held=False, now_us=now)
    assert charged(given_back, "p", now + HOUR_US - 1) == 6, "what it used within the hour still counts"
    assert charged(given_back, "p", now + HOUR_US) == 0
    assert charged(charges, "p", now + LEASE_US + HOUR_US - 1) == 6, "nobody knows what a host that is cut off does"
