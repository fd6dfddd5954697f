"""Decides: what an input begins, goes on with and ends. Pure: `step(state, playbooks, input, now_us) -> Answer`.

The state holds all that there is to know. Whoever runs the engine writes the state of an answer down before the
commands go out, and after a restart sends those of `unfinished` again: hosts do a command once, however often it comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeGuard

from agent.wire import Command, Event
from playbooks import sentences
from playbooks.durations import duration_text
from playbooks.inputs import (
    Answer,
    Armed,
    Asked,
    Decided,
    Happened,
    Holds,
    Input,
    Known,
    Lend,
    Measured,
    Switched,
    Taken,
    Tick,
)
from playbooks.lending import charge, confirm, share_for
from playbooks.limits import Held, held_by_limits, held_by_window, is_recurring, still_counted
from playbooks.model import HOUR_US, MINUTE_US, SECOND_US, OnEvent, OnSample, Playbook, Trigger
from playbooks.running import approved, cancel, outcome_came, proceed, something_happened, time_passed
from playbooks.state import MOST_HOLDING, MOST_RUNS, Members, Place, Run, State, Use
from playbooks.turn import Turn, about_event, plain

HOLD_GAP_US = 90 * SECOND_US
"""Samples that do not move come once a minute. After a longer gap nothing is known of the time between."""

MOST_LATE_US = 5 * MINUTE_US
"""An event that comes later than this after it happened (a server that was down, a host that was cut off) begins nothing."""

GONE_KEPT_US = 2 * MOST_LATE_US
"""What is known of a service that has gone is kept for longer than an event may be late."""

_NOT_TOLD = ("sample", "asked")
"""Kinds of what begins runs and is no event of the timeline."""

SKIPS_APART_US = 10 * MINUTE_US

MOST_OTHER_US = HOUR_US
"""A run of somebody else whose end is not heard counts for so long."""

ENDS = ("playbook.verified", "playbook.escalated", "playbook.cancelled")


def step(state: State, playbooks: Mapping[str, Playbook], given: Input, now_us: int) -> Answer:
    """What follows from one input at `now_us` (UTC, us since 1970)."""
    turn = Turn(state, playbooks, now_us)
    for run in list(turn.runs.values()):
        _end_if_changed(turn, run)
    match given:
        case Asked():
            _asked(turn, given)
        case Happened(host, event):
            _happened(turn, host, event)
        case Measured():
            _measured(turn, given)
        case Known():
            _know(turn, given)
        case Tick():
            turn.uses = list(still_counted(turn.uses, playbooks.values(), now_us))
            turn.others = {place: one for place, one in turn.others.items() if one[1] > now_us}
        case Decided(run_id, approves, who):
            _decided(turn, run_id, approves=approves, who=who)
        case Switched(kills, who):
            _switched(turn, kills=kills, who=who)
        case Armed():
            _armed(turn, given)
        case Lend():
            _lend(turn, given)
        case Holds():
            _held_there(turn, given)
        case Taken(place, who, until_us):
            turn.others[place] = (who, until_us)
    for run in list(turn.runs.values()):
        time_passed(turn, run)
    return turn.answer()


def unfinished(state: State, now_us: int) -> tuple[Command, ...]:
    """Commands whose outcome is not known and which are still good: to be sent again after a restart."""
    return tuple(
        task.command
        for run in state.runs.values()
        for task in run.tasks
        if task.progress == "sent" and task.command is not None and now_us < task.command.expires_us
    )


def _end_if_changed(turn: Turn, run: Run) -> None:
    """A run cannot go on by other steps than those it began with."""
    playbook = turn.playbooks.get(run.playbook)
    if playbook is None or playbook.digest != run.digest:
        how = "is not there any more" if playbook is None else "was changed while it ran"
        cancel(turn, run, f"the playbook {how}")


# What happens.


def _happened(turn: Turn, host: str, event: Event) -> None:
    if not turn.is_new(event.id):
        return
    _note_workers(turn, host, event)
    if event.kind.startswith("action."):
        outcome_came(turn, host, event)
        return
    if event.kind.startswith("playbook."):
        _note_others(turn, host, event)
        return
    for run in list(turn.runs.values()):
        something_happened(turn, run, host, event)
    wants = [one for one in turn.playbooks.values() if any(_is_of(trigger, event) for trigger in one.on)]
    for playbook in sorted(wants, key=_priority):
        place = _place(playbook, host, event.service)
        if place is None or (turn.is_lent(playbook.name, host) and turn.mode(playbook) == "armed"):
            continue
        wanted = [(number, one) for number, one in enumerate(playbook.on) if _is_of(one, event)]
        known = about_event(plain(event), place, turn.services)
        fits = [_fits(turn, f"{playbook.name}/{number}/{place}", one, event, known) for number, one in wanted]
        if any(fits):
            _consider(turn, playbook, place, event)


def _note_others(turn: Turn, host: str, event: Event) -> None:
    """Runs of hosts by themselves, of which the server hears."""
    if event.attrs.get("ran_on") != "host" or turn.is_on_host:
        return
    place = Place(host, event.service or "")
    if event.kind == "playbook.started":
        turn.others[place] = (str(event.attrs.get("playbook")), event.ts_us + MOST_OTHER_US)
    elif event.kind in ENDS:
        turn.others.pop(place, None)


def _is_of(trigger: Trigger, event: Event) -> TypeGuard[OnEvent]:
    return isinstance(trigger, OnEvent) and trigger.kind == event.kind


def _fits(turn: Turn, key: str, trigger: OnEvent, event: Event, known: Mapping[str, Any]) -> bool:
    """Whether the event, with those before it where the trigger counts, is what it waits for. A full count begins anew."""
    if trigger.where is not None and trigger.where.holds(known) is not True:
        return False
    if trigger.times == 1:
        return True
    times = (*turn.counts.pop(key, ()), event.ts_us)
    latest = tuple(sorted(one for one in times if max(times) - one < trigger.within_us))
    if len(latest) >= trigger.times:
        return True
    turn.counts[key] = latest
    while len(turn.counts) > MOST_HOLDING:
        del turn.counts[next(iter(turn.counts))]
    return False


def _note_workers(turn: Turn, host: str, event: Event) -> None:
    """Keeps kinds and workers of services true."""
    if event.service is None:
        return
    place, ref = Place(host, event.service), event.worker
    members = turn.services.get(place, Members())
    if event.kind in ("service.found", "service.started"):
        members = replace(members, kind=str(event.attrs.get("kind", members.kind)), gone_us=0)
        turn.services[place] = members
    if ref is None:
        return
    workers = dict(members.workers)
    if event.kind in ("worker.started", "worker.ready"):
        workers[ref.pid] = ref.start_ticks
    elif event.kind == "worker.exited" and workers.get(ref.pid) == ref.start_ticks:
        del workers[ref.pid]
    turn.services[place] = replace(members, workers=workers)


def _know(turn: Turn, given: Known) -> None:
    """What a host says of its services goes before what its events said.

    A service that has gone is remembered for a while: the event that tells of its end may come after the status."""
    for place in [one for one in turn.services if one.host == given.host and one.service not in given.services]:
        members = turn.services[place]
        if members.gone_us and turn.now_us - members.gone_us > GONE_KEPT_US:
            del turn.services[place]
        else:
            turn.services[place] = Members(members.kind, gone_us=members.gone_us or turn.now_us)
    for name, members in given.services.items():
        turn.services[Place(given.host, name)] = members


def _measured(turn: Turn, sample: Measured) -> None:
    for playbook in _by_priority(turn):
        place = _place(playbook, sample.host, sample.service)
        if turn.is_lent(playbook.name, sample.host) and turn.mode(playbook) == "armed":
            continue
        for number, one in enumerate(playbook.on):
            if place is not None and isinstance(one, OnSample) and one.metric == sample.metric:
                key = f"{playbook.name}/{number}/{sample.host}/{sample.service}/{sample.subject}"
                if _has_held(turn, key, one, sample.value):
                    _consider(turn, playbook, place, _event_of(turn, one, sample))


def _has_held(turn: Turn, key: str, condition: OnSample, value: float) -> bool:
    """Whether the condition has held for as long as it must; once it has, it begins anew."""
    since, last = turn.holding.pop(key, (turn.now_us, turn.now_us))
    if not condition.is_beyond(value):
        return False
    if turn.now_us - last > HOLD_GAP_US:
        since = turn.now_us
    if turn.now_us - since >= condition.hold_us:
        return True
    turn.holding[key] = (since, turn.now_us)
    while len(turn.holding) > MOST_HOLDING:
        del turn.holding[next(iter(turn.holding))]
    return False


def _event_of(turn: Turn, condition: OnSample, sample: Measured) -> Event:
    """A sample that began a run, in the form in which runs know what began them. It is not told by itself."""
    return Event(
        id=turn.new_id(),
        ts_us=turn.now_us,
        kind=_NOT_TOLD[0],
        severity="warning",
        text=sentences.condition_held(condition, sample),
        service=sample.service,
        attrs={"metric": sample.metric, "value": sample.value, "subject": sample.subject or ""},
    )


# Whether a run begins.


def _by_priority(turn: Turn) -> list[Playbook]:
    return sorted(turn.playbooks.values(), key=_priority)


def _priority(playbook: Playbook) -> tuple[int, str]:
    return -playbook.priority, playbook.name


def _place(playbook: Playbook, host: str, service: str | None) -> Place | None:
    """What a run would be about; None where an event of no service comes to a playbook about services."""
    if playbook.target == "host":
        return Place(host)
    return Place(host, service) if service else None


def _consider(turn: Turn, playbook: Playbook, place: Place, event: Event) -> None:
    mode = turn.mode(playbook)
    if mode == "off":
        return
    known = about_event(plain(event), place, turn.services)
    if playbook.condition is not None and playbook.condition.holds(known) is not True:
        return
    same = next((run for run in turn.runs.values() if (run.playbook, run.place) == (playbook.name, place)), None)
    if same is not None:
        turn.keep(sentences.joined(same))
        return
    held = _held(turn, playbook, place, event, is_shadow=mode == "shadow")
    if held is not None:
        _skip(turn, playbook, place, event, held)
    elif mode == "shadow":
        turn.uses.append(Use(playbook.name, place, turn.now_us, is_shadow=True))
        text = sentences.would_run(playbook, place, event)
        turn.tell("playbook.would_run", "info", text, place, playbook, cause=_cause(event))
    else:
        _begin(turn, playbook, place, event)


def _held(turn: Turn, playbook: Playbook, place: Place, event: Event, *, is_shadow: bool) -> Held | None:
    if turn.killed and not is_shadow:
        return Held("killed", f"{turn.killed} has stopped all playbooks")
    late_us = turn.now_us - event.ts_us
    if late_us > MOST_LATE_US:
        return Held(
            "late", f"what it would have answered happened {duration_text(late_us // SECOND_US * SECOND_US)} ago"
        )
    held = held_by_window(playbook, turn.now_us)
    if held is None:
        held = held_by_limits(
            playbook,
            place,
            turn.uses,
            turn.runs.values(),
            turn.now_us,
            fleet=turn.fleet_limit(playbook),
            is_shadow=is_shadow,
        )
    if held is None and not is_shadow:
        held = _held_by_other(turn, playbook, place)
    if held is None and len(turn.runs) >= MOST_RUNS:
        held = Held("full", f"{MOST_RUNS} runs are under way, as many as there may be")
    return held


def _held_by_other(turn: Turn, playbook: Playbook, place: Place) -> Held | None:
    """Another playbook's run on the same target keeps it, unless that one has less priority and only waits."""
    for run in list(turn.runs.values()):
        if run.place != place:
            continue
        other = turn.playbooks.get(run.playbook)
        if other is not None and other.priority < playbook.priority and run.phase == "approval":
            cancel(turn, run, f"{playbook.name} has a higher priority ({playbook.priority})")
            continue
        return Held("conflict", f"{run.playbook} is at work on {place}")
    who, until_us = turn.others.get(place, ("", 0))
    return Held("conflict", f"{who} is at work on {place}") if until_us > turn.now_us else None


def _skip(turn: Turn, playbook: Playbook, place: Place, event: Event, held: Held) -> None:
    if turn.may_tell(f"skip/{playbook.name}/{place}/{held.reason}", SKIPS_APART_US):
        text = sentences.skipped(playbook, place, held.text)
        attrs = {"reason": held.reason}
        turn.tell("playbook.skipped", "warning", text, place, playbook, cause=_cause(event), attrs=attrs)


def _begin(turn: Turn, playbook: Playbook, place: Place, event: Event) -> None:
    run_id = turn.new_id()
    waits = playbook.approval_us is not None
    text = sentences.started(playbook, place, event)
    turn.tell("playbook.started", "info", text, place, playbook, cause=_cause(event), event_id=run_id)
    run = Run(
        id=run_id,
        playbook=playbook.name,
        place=place,
        event=plain(event),
        begun_us=turn.now_us,
        phase="approval" if waits else "acting",
        last=run_id,
        digest=playbook.digest,
        until_us=turn.now_us + (playbook.approval_us or 0),
    )
    turn.keep(run)
    times = is_recurring(playbook, place, turn.uses, turn.now_us)
    if times and turn.may_tell(f"recurring/{playbook.name}/{place}", playbook.recurring.within_us):
        text = sentences.recurring(playbook, place, times)
        turn.tell("playbook.recurring", "critical", text, place, playbook, cause=run_id, attrs={"repairs": times})
    if waits:
        text = sentences.waits_for_approval(playbook, place, run)
        attrs = {"run": run_id}
        turn.tell("playbook.waiting", "warning", text, place, playbook, cause=run_id, attrs=attrs)
    else:
        proceed(turn, run)


def _cause(event: Event) -> str | None:
    """What is on no timeline cannot be linked to."""
    return None if event.kind in _NOT_TOLD else event.id


# What people say.


def _asked(turn: Turn, given: Asked) -> None:
    playbook = turn.playbooks.get(given.playbook)
    if playbook is None:
        return
    place = Place(given.host, "" if playbook.target == "host" else given.service)
    event = Event(
        id=turn.new_id(),
        ts_us=turn.now_us,
        kind=_NOT_TOLD[1],
        severity="info",
        text=f"{given.who} asked for it.",
        service=given.service or None,
        worker=given.worker,
    )
    if turn.is_lent(playbook.name, given.host):
        _skip_asked(turn, playbook, place, event, Held("lent", f"{given.host} runs it by itself, within its limits"))
        return
    running = next((run for run in turn.runs.values() if (run.playbook, run.place) == (playbook.name, place)), None)
    if running is not None:
        _skip_asked(turn, playbook, place, event, Held("conflict", f"a run of it is at work on {place}"))
        return
    held = _held(turn, playbook, place, event, is_shadow=False)
    if held is not None:
        _skip_asked(turn, playbook, place, event, held)
    else:
        _begin(turn, playbook, place, event)


def _skip_asked(turn: Turn, playbook: Playbook, place: Place, event: Event, held: Held) -> None:
    """Who asks gets an answer each time."""
    turn.told.pop(f"skip/{playbook.name}/{place}/{held.reason}", None)
    _skip(turn, playbook, place, event, held)


def _decided(turn: Turn, run_id: str, *, approves: bool, who: str) -> None:
    run = turn.runs.get(run_id)
    if run is None or run.phase != "approval":
        return
    if approves:
        approved(turn, run, who)
    else:
        cancel(turn, run, f"{who} rejected it")


def _switched(turn: Turn, *, kills: bool, who: str) -> None:
    turn.killed = who if kills else ""
    if kills:
        for run in list(turn.runs.values()):
            cancel(turn, run, f"{who} has stopped all playbooks")


def _armed(turn: Turn, given: Armed) -> None:
    if given.mode is None:
        turn.modes.pop(given.playbook, None)
    else:
        turn.modes[given.playbook] = given.mode
    if given.mode != "armed":
        for run in [one for one in turn.runs.values() if one.playbook == given.playbook]:
            playbook = turn.playbooks.get(run.playbook)
            if playbook is None or turn.mode(playbook) != "armed":
                cancel(turn, run, f"{given.who} has disarmed {given.playbook}")


# What hosts run by themselves.


def _lend(turn: Turn, given: Lend) -> None:
    """A playbook that is at work there is lent once its run is over."""
    lent = dict(turn.lent.get(given.host, {}))
    for playbook in (turn.playbooks[name] for name in sorted(given.names) if name in turn.playbooks):
        name, fleet = playbook.name, playbook.limits.fleet_per_hour
        own = _used(turn, name)
        share = share_for(fleet, given.hosts, turn.charges, name, given.host, turn.now_us, own=own)
        if share >= 1 and not _is_at_work(turn, name, given.host):
            turn.charges = charge(turn.charges, name, given.host, share, given.until_us, turn.now_us)
            lent[name] = share
    turn.lent[given.host] = lent


def _used(turn: Turn, playbook: str) -> int:
    """What this engine has used of a playbook's limit within the hour, or may be about to."""
    acted = [one for one in turn.uses if one.playbook == playbook and not one.is_shadow]
    pending = [run for run in turn.runs.values() if run.playbook == playbook and not run.acted]
    return sum(turn.now_us - one.at_us < HOUR_US for one in acted) + len(pending)


def _is_at_work(turn: Turn, playbook: str, host: str) -> bool:
    return any((run.playbook, run.place.host) == (playbook, host) for run in turn.runs.values())


def _held_there(turn: Turn, given: Holds) -> None:
    before = turn.lent.get(given.host, {})
    turn.lent[given.host] = {name: share for name, share in before.items() if name in given.names}
    if not turn.lent[given.host]:
        del turn.lent[given.host]
    for name in before:
        turn.charges = confirm(turn.charges, name, given.host, held=name in given.names, now_us=turn.now_us)
    known = set(turn.uses)
    turn.uses += [use for use in given.uses if use not in known and use.playbook not in given.names]
