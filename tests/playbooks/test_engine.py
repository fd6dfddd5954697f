"""What the engine does with one thing after the other: runs, outcomes, limits, approval, shadow, the kill switch."""

from __future__ import annotations

from itertools import count
from typing import Any
from uuid import UUID

import pytest

from agent.wire import Command, Event, Scalar, WorkerRef
from playbooks import (
    Armed,
    Asked,
    Decided,
    Happened,
    Input,
    Known,
    Measured,
    Members,
    Place,
    Playbook,
    Serve,
    State,
    Switched,
    Tick,
    read_playbook,
    step,
    unfinished,
)
from tests.playbooks.written import Written

S = 1_000_000
OOM = """
name: oom
title: rotate after an OOM kill
on:
  - event: worker.oom_killed
    where: event.attrs.constraint == "cgroup"
steps:
  - id: rotate
    action: gunicorn.rotate
    timeout: 30s
verify:
  within: 1m
  expect:
    - event: worker.ready
else:
  - action: notify
    with: {text: "{{ service.name }} is not well: {{ run.trouble }}"}
limits: {cooldown: 5m, per_hour: 2, fleet_per_hour: 3}
mode: armed
"""
WORKER = WorkerRef(1, 1, 4121, 81234)


class Play:
    """An engine that is fed one input after the other; written down and read again in between."""

    def __init__(self, *texts: str) -> None:
        books = [read_playbook(text, "test.yaml") for text in texts]
        self.playbooks: dict[str, Playbook] = {book.name: book for book in books}
        self.state = State("seed")
        self.written = Written()
        self.now_us = 1_000 * S
        self.commands: list[Command | Serve] = []
        self.told: list[Event] = []
        self._ids = count(1)

    def give(self, given: Input, *, after_s: float = 1) -> list[str]:
        """Kinds of what is told."""
        self.now_us += round(after_s * S)
        answer = step(self.state, self.playbooks, given, self.now_us)
        self.written.keep(answer.state)
        self.state = self.written.read(answer.state)
        assert self.state == answer.state
        self.commands += answer.commands
        events = [entry.event for entry in answer.entries]
        self.told += events
        return [event.kind.removeprefix("playbook.") for event in events]

    def event(
        self, kind: str, *, service: str = "shop", host: str = "web-1", after_s: float = 1, **attrs: Scalar
    ) -> list[str]:
        """Something happens."""
        worker = WORKER if kind.startswith("worker.") else None
        happened = Event(
            str(UUID(int=next(self._ids))), self.now_us, kind, "info", f"{kind} happened.", service, worker, attrs=attrs
        )
        return self.give(Happened(host, happened), after_s=after_s)

    def oom(self, **other: Any) -> list[str]:
        """The event that the playbook waits for."""
        return self.event("worker.oom_killed", constraint="cgroup", **other)

    def outcome(self, kind: str = "action.done", *, host: str = "web-1", **attrs: Scalar) -> list[str]:
        """What becomes of the latest command."""
        return self.event(kind, host=host, command=self.commands[-1].id, **attrs)


def test_a_run_from_the_fault_to_recovery() -> None:
    play = Play(OOM)
    assert play.oom() == ["started", "step"]
    (command,) = play.commands
    assert isinstance(command, Command)
    assert (command.action, command.host, command.service) == ("gunicorn.rotate", "web-1", "shop")
    assert command.expires_us - command.issued_us == 30 * S
    assert command.cause == play.told[-1].id
    assert play.outcome() == []
    assert play.event("worker.ready", after_s=2) == ["verified"]
    verified = play.told[-1]
    assert verified.text == "oom repaired shop on web-1: recovered in 4.0 s."
    assert verified.attrs["took_ms"] == 4000
    assert play.state.runs == {}
    assert [use.at_us for use in play.state.uses] == [1_002 * S]


def test_each_entry_names_what_brought_it_about() -> None:
    play = Play(OOM)
    play.oom()
    play.outcome()
    play.event("worker.ready")
    started, did, verified = play.told
    assert started.cause == str(UUID(int=1))
    assert did.cause == started.id
    assert verified.cause == str(UUID(int=2)), "the outcome on the host"


def test_what_does_not_come_is_escalated() -> None:
    play = Play(OOM)
    play.oom()
    play.outcome()
    assert play.give(Tick(), after_s=59) == []
    assert play.give(Tick(), after_s=1) == ["failed", "step"]
    notify = play.commands[-1]
    assert isinstance(notify, Serve)
    assert notify.params["text"] == "shop is not well: no worker.ready came within 1m after it."
    assert play.outcome(host="") == ["escalated"]
    assert play.told[-1].severity == "critical"


def test_an_outcome_that_never_comes_is_unknown_and_is_not_tried_again() -> None:
    play = Play(OOM.replace("timeout: 30s", "timeout: 30s\n    retry: {times: 3}"))
    play.oom()
    assert play.give(Tick(), after_s=34) == []
    assert play.give(Tick(), after_s=1) == ["failed", "step"]
    assert "whether it was done is not known" in play.told[-2].text
    assert len([c for c in play.commands if isinstance(c, Command)]) == 1
    assert len(play.state.uses) == 1, "it may have been done"


def test_what_failed_is_tried_again_after_a_pause() -> None:
    play = Play(OOM.replace("timeout: 30s", "timeout: 30s\n    retry: {times: 1, pause: 5s}"))
    play.oom()
    assert play.outcome("action.failed") == []
    assert play.give(Tick(), after_s=4) == []
    assert play.give(Tick(), after_s=1) == ["step"]
    assert len({command.id for command in play.commands}) == 2
    assert play.outcome("action.failed") == ["failed", "step"]


def test_a_limit_is_used_up_by_acts_alone() -> None:
    play = Play(OOM)
    for _ in range(5):
        assert play.oom()[0] == "started"
        assert play.outcome("action.refused", reason="stale") == ["failed", "step"]
        assert play.outcome(host="") == ["escalated"]
    assert play.state.uses == ()


def test_telling_people_is_the_act_of_a_playbook_that_has_no_other() -> None:
    play = Play(OOM.replace("action: gunicorn.rotate\n    timeout: 30s", "action: notify\n    with: {text: look}"))
    assert play.oom() == ["started", "step"]
    play.outcome(host="")
    assert play.event("worker.ready") == ["verified"]
    assert play.oom() == ["skipped"], "nobody wants to hear the same every few seconds"
    assert play.told[-1].attrs["reason"] == "cooldown"


def test_telling_people_that_nothing_could_be_done_uses_nothing_up() -> None:
    play = Play(OOM)
    play.oom()
    assert play.outcome("action.refused", reason="policy") == ["failed", "step"]
    assert play.outcome(host="") == ["escalated"]
    assert play.state.uses == ()
    assert play.oom() == ["started", "step"]


def test_cooldown_and_the_hours_limit() -> None:
    play = Play(OOM)
    for _ in range(2):
        assert play.oom() == ["started", "step"]
        play.outcome()
        play.event("worker.ready")
        assert play.oom() == ["skipped"]
        assert play.told[-1].attrs["reason"] == "cooldown"
        assert play.oom() == [], "it is said once"
        play.give(Tick(), after_s=601)
    assert play.oom() == ["skipped"]
    assert play.told[-1].attrs["reason"] == "per_hour"
    assert play.oom(host="web-2") == ["started", "step"]
    play.outcome(host="web-2")
    play.event("worker.ready", host="web-2")
    assert play.oom(host="web-3") == ["skipped"]
    assert play.told[-1].attrs["reason"] == "fleet_per_hour"
    play.give(Tick(), after_s=3600)
    assert play.oom(host="web-3") == ["started", "step"]


def test_a_cooldown_lasts_as_long_as_it_says() -> None:
    play = Play(OOM)
    play.oom()
    play.outcome()
    acted_us = play.now_us
    play.event("worker.ready")
    assert play.oom(after_s=290 - (play.now_us - acted_us) / 1e6) == ["skipped"]
    assert play.oom(after_s=11) == ["started", "step"]


def test_a_storm_is_one_run() -> None:
    play = Play(OOM)
    play.oom()
    for _ in range(50):
        assert play.oom(after_s=0.1) == []
    assert len(play.commands) == 1
    play.outcome()
    play.event("worker.ready")
    assert play.told[-1].attrs["joined"] == 50


def test_an_event_that_comes_twice_is_one() -> None:
    play = Play(OOM)
    attrs = {"constraint": "cgroup"}
    event = Event(str(UUID(int=7)), play.now_us, "worker.oom_killed", "info", "x", "shop", WORKER, attrs=attrs)
    assert play.give(Happened("web-1", event)) == ["started", "step"]
    play.outcome("action.refused", reason="stale")
    play.outcome(host="")
    assert play.give(Happened("web-1", event)) == []


def test_unknown_decides_nothing() -> None:
    play = Play(OOM)
    assert play.event("worker.oom_killed") == [], "the event has no such attribute"
    assert play.event("worker.oom_killed", service="", constraint="cgroup") == [], "of no service"


def test_the_playbook_with_the_higher_priority_gets_the_target() -> None:
    other = OOM.replace("name: oom", "name: other\npriority: 90").replace("gunicorn.rotate", "gunicorn.restart")
    play = Play(OOM, other)
    assert play.oom() == ["started", "step", "skipped"]
    assert [command.action for command in play.commands if isinstance(command, Command)] == ["gunicorn.restart"]
    assert play.told[-1].text == "oom leaves shop on web-1 alone: other is at work on shop on web-1."


def test_shadow_says_what_it_would_do_and_keeps_its_limits() -> None:
    play = Play(OOM.replace("mode: armed", "mode: shadow"))
    assert play.oom() == ["would_run"]
    assert play.commands == []
    assert "it would have done gunicorn.rotate" in play.told[-1].text
    assert play.oom() == ["skipped"]
    play.give(Armed("oom", "armed", "ada"), after_s=1)
    assert play.oom() == ["started", "step"], "what was only thought of uses nothing up"


def test_approval() -> None:
    text = OOM.replace("mode: armed", "mode: armed\napproval: {within: 10m}")
    play = Play(text)
    assert play.oom() == ["started", "waiting"]
    assert play.commands == []
    (run,) = play.state.runs
    assert play.give(Decided(run, True, "ada")) == ["step", "step"]
    assert play.told[-2].text == "ada approved that oom repairs shop on web-1."
    assert len(play.commands) == 1
    play = Play(text)
    play.oom()
    assert play.give(Decided(next(iter(play.state.runs)), False, "ada")) == ["cancelled"]
    play.oom()
    assert play.give(Tick(), after_s=600) == ["cancelled"]
    assert "nobody approved it within 10m" in play.told[-1].text
    assert play.state.runs == {}


def test_the_kill_switch_ends_runs_and_lets_none_begin() -> None:
    play = Play(OOM)
    play.oom()
    assert play.give(Switched(True, "ada")) == ["cancelled"]
    assert play.oom() == ["skipped"]
    assert play.told[-1].text == "oom leaves shop on web-1 alone: ada has stopped all playbooks."
    play.give(Switched(False, "ada"))
    assert play.oom() == ["skipped"], "what was on its way may have been done: the cooldown runs"
    play.give(Tick(), after_s=600)
    assert play.oom() == ["started", "step"]


def test_a_fault_that_is_repaired_again_and_again_is_told() -> None:
    play = Play(
        OOM.replace("cooldown: 5m, per_hour: 2", "cooldown: 1s, per_hour: 9").replace(
            "fleet_per_hour: 3", "fleet_per_hour: 99"
        )
    )
    told = []
    for _ in range(5):
        told += play.oom()
        play.outcome()
        play.event("worker.ready")
        play.give(Tick(), after_s=60)
    assert told.count("recurring") == 1
    (recurring,) = [event for event in play.told if event.kind == "playbook.recurring"]
    assert recurring.severity == "critical"
    assert "has repaired shop on web-1 3 times within 6h" in recurring.text


def test_each_worker_in_turn() -> None:
    text = OOM.replace("action: gunicorn.rotate", "action: gunicorn.recycle_worker\n    each: true")
    play = Play(text)
    play.give(Known("web-1", {"shop": Members("gunicorn", {30: 3, 10: 1})}))
    play.oom()
    targets = []
    for _ in range(2):
        command = play.commands[-1]
        assert isinstance(command, Command)
        assert command.target is not None
        targets.append((command.target.pid, command.target.start_ticks))
        assert len(play.commands) == len(targets), "one after the other"
        play.outcome()
    assert targets == [(10, 1), (30, 3)]
    play = Play(text)
    assert play.oom() == ["started", "failed", "step"], "no worker is known"


def test_together_and_the_worker_of_the_event() -> None:
    text = OOM.replace(
        "  - id: rotate\n    action: gunicorn.rotate\n    timeout: 30s\n",
        "  - together:\n      - {id: a, action: snapshot.take}\n      - {id: b, action: gunicorn.rotate}\n  - {id: c, action: gunicorn.reload}\n",
    )
    play = Play(text)
    assert play.oom() == ["started", "step", "step"]
    first, second = play.commands
    assert isinstance(first, Command)
    assert first.target is not None
    assert first.target.pid == WORKER.pid
    play.event("action.done", command=second.id)
    assert len(play.commands) == 2
    play.event("action.done", command=first.id)
    assert play.commands[-1].action == "gunicorn.reload"


def test_what_must_not_come() -> None:
    text = OOM.replace("    - event: worker.ready\n", "    - never: worker.oom_killed\n")
    play = Play(text)
    play.oom()
    play.outcome()
    assert play.oom() == ["failed", "step"]
    play = Play(text)
    play.oom()
    play.outcome()
    assert play.event("worker.ready") == []
    assert play.give(Tick(), after_s=60) == ["verified"]


SAMPLE = OOM.replace(
    'event: worker.oom_killed\n    where: event.attrs.constraint == "cgroup"',
    "metric: worker.cpu_percent\n    above: 90\n    for: 30s",
)


@pytest.mark.parametrize(
    ("values", "begins"), [([95] * 40, True), ([95] * 20 + [10] + [95] * 20, False), ([95] * 29, False)]
)
def test_a_metric_that_stays_beyond_its_bound(values: list[float], begins: bool) -> None:
    play = Play(SAMPLE)
    for value in values:
        play.give(Measured("web-1", "worker.cpu_percent", value, "shop", "worker 1"))
    assert bool(play.commands) == begins


def test_a_gap_of_samples_says_nothing() -> None:
    play = Play(SAMPLE)
    play.give(Measured("web-1", "worker.cpu_percent", 95, "shop", "worker 1"))
    play.give(Measured("web-1", "worker.cpu_percent", 95, "shop", "worker 1"), after_s=100)
    assert play.commands == []


def test_after_a_restart_commands_without_an_outcome_go_out_again() -> None:
    play = Play(OOM)
    play.oom()
    assert unfinished(play.state, play.now_us) == tuple(play.commands)
    assert unfinished(play.state, play.now_us + 30 * S) == ()
    play.outcome()
    assert unfinished(play.state, play.now_us) == ()


def test_a_playbook_that_is_taken_away_ends_its_runs() -> None:
    play = Play(OOM)
    play.oom()
    play.playbooks.clear()
    assert play.give(Tick()) == ["cancelled"]


def test_what_is_told_too_late_begins_nothing_and_is_said() -> None:
    play = Play(OOM)
    late = play.now_us
    play.now_us += 301 * S
    happened = Event(
        str(UUID(int=99)),
        late,
        "worker.oom_killed",
        "critical",
        "Killed.",
        "shop",
        WORKER,
        attrs={"constraint": "cgroup"},
    )
    assert play.give(Happened("web-1", happened)) == ["skipped"]
    assert play.told[-1].attrs["reason"] == "late"
    assert play.told[-1].text == "oom leaves shop on web-1 alone: what it would have answered happened 302s ago."


def test_conditions_know_the_kind_of_a_service_once_its_host_has_said_it() -> None:
    play = Play(OOM.replace("limits:", "if: service.kind == 'gunicorn'\nlimits:"))
    assert play.oom() == []
    play.give(Known("web-1", {"shop": Members("uwsgi")}))
    assert play.oom() == []
    play.give(Known("web-1", {"shop": Members("gunicorn")}))
    assert play.oom() == ["started", "step"]


def test_the_end_of_a_service_finds_its_kind_also_when_the_status_without_it_came_first() -> None:
    play = Play(OOM.replace("limits:", "if: service.kind == 'gunicorn'\nlimits:"))
    play.give(Known("web-1", {"shop": Members("gunicorn", {10: 1})}))
    play.give(Known("web-1", {}))
    assert play.state.services[Place("web-1", "shop")].workers == {}
    play.give(Known("web-1", {}), after_s=540)
    assert play.oom() == ["started", "step"]
    play.give(Known("web-1", {}), after_s=120)
    assert play.state.services == {}


def test_a_command_that_came_twice_is_no_failure() -> None:
    play = Play(OOM)
    play.oom()
    assert play.outcome("action.refused", reason="replayed") == []
    assert play.outcome() == []
    assert play.event("worker.ready") == ["verified"]


def test_a_playbook_that_changes_ends_its_runs() -> None:
    play = Play(OOM)
    play.oom()
    changed = read_playbook(OOM.replace("30s", "40s"), "test.yaml")
    play.playbooks = {changed.name: changed}
    assert play.give(Tick()) == ["cancelled"]
    assert "the playbook was changed while it ran" in play.told[-1].text
    play.give(Tick(), after_s=600)
    play.oom()
    play.playbooks = {}
    assert play.give(Tick()) == ["cancelled"]
    assert "the playbook is not there any more" in play.told[-1].text


COUNTING = """
name: loop
title: tell of a crash loop
on:
  - event: worker.exited
    where: event.attrs.death == "crash_signal"
    times: 3
    within: 1m
if: service.kind == "gunicorn"
steps:
  - action: gunicorn.restart
mode: armed
"""


def test_a_trigger_that_counts_waits_for_so_many_within_its_time() -> None:
    play = Play(COUNTING)
    play.give(Known("web-1", {"shop": Members("gunicorn"), "mail": Members("gunicorn")}))
    dies = {"death": "crash_signal"}
    assert play.event("worker.exited", **dies) == []
    assert play.event("worker.exited", **dies) == []
    assert play.event("worker.exited", service="mail", **dies) == [], "of another service"
    assert play.event("worker.exited", death="recycled") == [], "not what it counts"
    play.give(Tick(), after_s=70)
    assert play.event("worker.exited", **dies) == [], "the first are too long ago"
    assert play.event("worker.exited", **dies) == []
    assert play.event("worker.exited", **dies) == ["started", "step"]


def test_somebody_asks_for_a_run_and_limits_hold() -> None:
    play = Play(OOM.replace("mode: armed", "mode: shadow"))
    asked = Asked("oom", "web-1", "shop", "ada")
    assert play.give(asked) == ["started", "step"]
    assert (
        play.told[-2].text
        == "oom begins to repair shop on web-1 (rotate after an OOM kill), because: ada asked for it."
    )
    assert play.told[-2].cause is None
    assert play.give(asked) == ["skipped"]
    play.outcome()
    assert play.event("worker.ready") == ["verified"]
    assert play.give(asked) == ["skipped"], "the cooldown"
    play.give(Switched(kills=True, who="bob"))
    play.give(Tick(), after_s=600)
    assert play.give(asked) == ["skipped"]
    assert "bob has stopped all playbooks" in play.told[-1].text


def test_an_event_that_comes_again_much_later_begins_nothing() -> None:
    play = Play(OOM)
    fault = Event(
        str(UUID(int=10**6)),
        play.now_us,
        "worker.oom_killed",
        "info",
        "x.",
        "shop",
        WORKER,
        attrs={"constraint": "cgroup"},
    )
    assert play.give(Happened("web-1", fault)) == ["started", "step"]
    play.outcome()
    assert play.event("worker.ready") == ["verified"]
    for _ in range(1_000):
        assert play.event("worker.ready", after_s=0.01) == []
    assert play.give(Happened("web-1", fault)) == [], "not even as one that is held back"
    assert play.oom() == ["skipped"]
