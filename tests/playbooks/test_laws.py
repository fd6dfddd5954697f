"""Laws of the engine, for any order of events, outcomes, duplicates, restarts and switches."""

from __future__ import annotations

from collections import Counter
from itertools import count, pairwise
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.wire import Command, Event, WorkerRef
from playbooks import (
    Armed,
    Decided,
    Entry,
    Happened,
    Input,
    Known,
    Members,
    Playbook,
    Serve,
    State,
    Switched,
    Tick,
    read_playbook,
    step,
    unfinished,
)
from playbooks.model import HOUR_US
from tests.playbooks.written import Written

S = 1_000_000
TEXTS = (
    """
name: web
title: rotate
on: [{event: worker.oom_killed}]
steps:
  - {id: rotate, action: gunicorn.rotate, timeout: 20s, retry: {times: 2, pause: 3s}}
  - together:
      - {id: keep, action: snapshot.take}
      - {id: load, action: gunicorn.reload}
verify: {within: 30s, expect: [{event: worker.ready}, {never: worker.oom_killed}]}
else: [{action: notify, with: {text: "{{ service.name }}"}}]
limits: {cooldown: 2m, per_hour: 3, fleet_per_hour: 4}
priority: 60
mode: armed
""",
    """
name: each
title: recycle all
on: [{event: worker.oom_killed}, {event: worker.stuck}]
steps: [{id: all, action: gunicorn.recycle_worker, each: true, timeout: 15s}]
limits: {cooldown: 0s, per_hour: 2, fleet_per_hour: 5}
approval: {within: 1m}
mode: armed
""",
    """
name: quiet
title: would restart
on: [{event: worker.stuck}]
steps: [{action: gunicorn.restart}]
limits: {cooldown: 1m, per_hour: 1, fleet_per_hour: 1}
""",
)
HOSTS, SERVICES, KINDS = ("web-1", "web-2"), ("shop", "mail"), ("worker.oom_killed", "worker.stuck", "worker.ready")
ENDS = ("playbook.verified", "playbook.escalated", "playbook.cancelled")
OUTCOMES = ("action.done", "action.done", "action.failed", "action.refused")


class Engine(RuleBasedStateMachine):
    """Feeds the engine; remembers all that it ever sent and told."""

    def __init__(self) -> None:
        super().__init__()
        self.playbooks: dict[str, Playbook] = {book.name: book for book in (read_playbook(t, "t") for t in TEXTS)}
        self.state = State("seed")
        self.now_us = 10**15
        self.ids = count(1)
        self.given: list[Happened] = []
        self.sent: dict[str, Command | Serve] = {}
        self.sent_us: dict[str, int] = {}
        self.told: list[Entry] = []
        self.first: dict[str, str] = {}
        self.killed_us: int | None = None
        self.written = Written()
        self.written.keep(self.state)

    def give(self, given: Input) -> None:
        before = self.state
        answer = step(before, self.playbooks, given, self.now_us)
        assert answer == step(before, self.playbooks, given, self.now_us), "pure"
        self.state = answer.state
        self.written.keep(self.state)
        for command in answer.commands:
            assert command.id not in self.sent, "a command goes out once"
            if isinstance(command, Command):
                assert self.killed_us is None, "nothing is sent while all is stopped"
                assert self.playbooks[self.state.runs[command.run].playbook].mode == "armed"
                self.sent_us[command.id] = self.now_us
            self.sent[command.id] = command
        self.told += answer.entries

    @rule(
        host=st.sampled_from(HOSTS),
        service=st.sampled_from(SERVICES),
        kind=st.sampled_from(KINDS),
        pid=st.integers(2, 5),
    )
    def happens(self, host: str, service: str, kind: str, pid: int) -> None:
        worker = WorkerRef(pid, 1, pid, 100 + pid)
        event = Event(str(UUID(int=next(self.ids))), self.now_us, kind, "info", f"{kind}.", service, worker)
        self.given.append(Happened(host, event))
        self.give(self.given[-1])

    @rule(place=st.integers(0, 30))
    def comes_again(self, place: int) -> None:
        if self.given:
            told = len(self.told)
            self.give(self.given[-1 - place % len(self.given)])
            began = [entry for entry in self.told[told:] if entry.event.kind == "playbook.started"]
            assert not began, "what came before begins nothing"

    @rule(place=st.integers(0, 30), kind=st.sampled_from(OUTCOMES), busy=st.booleans())
    def outcome(self, place: int, kind: str, busy: bool) -> None:
        """Of any command, also of one whose outcome has come before, or whose run is over."""
        if not self.sent:
            return
        command = list(self.sent.values())[place % len(self.sent)]
        attrs = {"command": command.id, "reason": "busy" if busy else "stale"}
        event = Event(
            str(UUID(int=next(self.ids))), self.now_us, kind, "info", "Outcome.", command.service, attrs=attrs
        )
        self.first.setdefault(command.id, kind)
        self.give(Happened(command.host, event))

    @rule(host=st.sampled_from(HOSTS), service=st.sampled_from(SERVICES), pid=st.integers(2, 5))
    def a_fault_is_repaired(self, host: str, service: str, pid: int) -> None:
        """The straight way, which chance alone takes too seldom for what comes after it to be tried."""
        self.happens(host, service, "worker.oom_killed", pid)
        for _ in range(3):
            for command in [one for one in self.sent.values() if one.id not in self.first]:
                attrs = {"command": command.id}
                done = Event(str(UUID(int=next(self.ids))), self.now_us, "action.done", "info", "Done.", attrs=attrs)
                self.first[command.id] = done.kind
                self.give(Happened(command.host, done))
        self.now_us += S
        self.happens(host, service, "worker.ready", pid)

    @rule(seconds=st.sampled_from([1, 5, 30, 70, 700, 3600]))
    def time_passes(self, seconds: int) -> None:
        self.now_us += seconds * S
        self.give(Tick())

    @rule(approves=st.booleans(), place=st.integers(0, 9))
    def somebody_decides(self, approves: bool, place: int) -> None:
        runs = list(self.state.runs) or ["none"]
        self.give(Decided(runs[place % len(runs)], approves, "ada"))

    @rule(kills=st.booleans())
    def switch(self, kills: bool) -> None:
        self.killed_us = self.now_us if kills else None
        self.give(Switched(kills, "ada"))
        assert not (kills and self.state.runs)

    @rule(host=st.sampled_from(HOSTS), service=st.sampled_from(SERVICES), pids=st.sets(st.integers(2, 5)))
    def host_says_its_workers(self, host: str, service: str, pids: set[int]) -> None:
        self.give(Known(host, {service: Members("gunicorn", {pid: 100 + pid for pid in pids})}))

    @rule(name=st.sampled_from(["web", "each"]))
    def disarm_and_arm(self, name: str) -> None:
        self.give(Armed(name, "shadow", "ada"))
        assert all(run.playbook != name for run in self.state.runs.values())
        self.give(Armed(name, None, "ada"))

    @rule()
    def restart(self) -> None:
        again = self.written.read(self.state)
        assert again == self.state
        for command in unfinished(again, self.now_us):
            assert self.sent[command.id] == command, "the same command, to be done once"
        self.state = again

    @invariant()
    def one_run_for_each_target(self) -> None:
        places = Counter(run.place for run in self.state.runs.values())
        assert all(number == 1 for number in places.values()), places

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        """Counted from what hosts may have done, not from the engine's own books."""
        acted: dict[str, tuple[str, str, str | None, int]] = {}
        for command_id, sent_us in self.sent_us.items():
            command = self.sent[command_id]
            assert isinstance(command, Command)
            if self._may_be_done(command_id):
                name = self._playbook_of(command.run)
                acted.setdefault(command.run, (name, command.host, command.service, sent_us))
        for name, book in self.playbooks.items():
            mine = sorted(one[3] for one in acted.values() if one[0] == name)
            assert _most_within_an_hour(mine) <= book.limits.fleet_per_hour
            for place in {one[1:3] for one in acted.values() if one[0] == name}:
                here = sorted(one[3] for one in acted.values() if one[0] == name and one[1:3] == place)
                assert _most_within_an_hour(here) <= book.limits.per_hour
                assert all(later - one >= book.limits.cooldown_us for one, later in pairwise(here))

    @invariant()
    def every_run_ends_once_and_is_told(self) -> None:
        started = [entry.event.id for entry in self.told if entry.event.kind == "playbook.started"]
        ended = Counter(entry.event.attrs["run"] for entry in self.told if entry.event.kind in ENDS)
        assert all(number == 1 for number in ended.values())
        assert set(started) == set(ended) | set(self.state.runs)

    @invariant()
    def every_entry_has_a_cause_that_is_known(self) -> None:
        known = {happened.event.id for happened in self.given} | {entry.event.id for entry in self.told}
        for entry in self.told[-6:]:
            cause = entry.event.cause
            assert cause is not None
            assert cause in known or UUID(cause).int < 10**6, "an outcome"

    def teardown(self) -> None:
        """Left alone, every run ends: time alone is enough."""
        for _ in range(60):
            self.now_us += 61 * S
            self.give(Tick())
        assert not self.state.runs

    def _may_be_done(self, command_id: str) -> bool:
        """A host has done it, or nobody knows whether it has: only what was refused was not."""
        return self.first.get(command_id) != "action.refused"

    def _playbook_of(self, run: str) -> str:
        return next(str(e.event.attrs["playbook"]) for e in self.told if e.event.id == run)


def _most_within_an_hour(times: list[int]) -> int:
    return max((sum(one <= other < one + HOUR_US for other in times) for one in times), default=0)


TestEngine = Engine.TestCase
TestEngine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
