"""Decides: what an input begins, goes on with and ends. Pure: `step(state, playbooks, input, now_us) -> Answer`.

The state holds all that there is to know. Whoever runs the engine writes the state of an answer down before the
commands go out, and after a restart sends those of `unfinished` again: hosts do a command once, however often it comes.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.wire import Command, Event
from playbooks import sentences
from playbooks.inputs import Answer, Armed, Decided, Happened, Input, Measured, Switched, Tick, Workers
from playbooks.limits import Held, held_by_limits, held_by_window, is_recurring, still_counted
from playbooks.model import MINUTE_US, SECOND_US, OnEvent, OnSample, Playbook
from playbooks.running import approved, cancel, outcome_came, proceed, something_happened, time_passed
from playbooks.state import MOST_HOLDING, MOST_RUNS, MOST_SEEN, Place, Run, State, Use
from playbooks.turn import Turn, about_event, plain

HOLD_GAP_US = 90 * SECOND_US
"""Samples that do not move come once a minute. After a longer gap nothing is known of the time between."""

SKIPS_APART_US = 10 * MINUTE_US


def step(state: State, playbooks: Mapping[str, Playbook], given: Input, now_us: int) -> Answer:
    """What follows from one input at `now_us` (UTC, us since 1970)."""
    turn = Turn(state, playbooks, now_us)
    match given:
        case Happened(host, event):
            _happened(turn, host, event)
        case Measured():
            _measured(turn, given)
        case Workers(host, service, workers):
            turn.workers[Place(host, service)] = dict(workers)
        case Tick():
            turn.uses = list(still_counted(turn.uses, playbooks.values(), now_us))
        case Decided(run_id, approves, who):
            _decided(turn, run_id, approves=approves, who=who)
        case Switched(kills, who):
            _switched(turn, kills=kills, who=who)
        case Armed():
            _armed(turn, given)
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


# What happens.


def _happened(turn: Turn, host: str, event: Event) -> None:
    if event.id in turn.seen:
        return
    turn.seen[event.id] = None
    while len(turn.seen) > MOST_SEEN:
        del turn.seen[next(iter(turn.seen))]
    _note_workers(turn, host, event)
    if event.kind.startswith("action."):
        outcome_came(turn, host, event)
        return
    if event.kind.startswith("playbook."):
        return
    for run in list(turn.runs.values()):
        something_happened(turn, run, host, event)
    for playbook in _by_priority(turn):
        place = _place(playbook, host, event.service)
        if place is None:
            continue
        known = about_event(plain(event), place, turn.workers)
        fits = any(
            isinstance(one, OnEvent)
            and one.kind == event.kind
            and (one.where is None or one.where.holds(known) is True)
            for one in playbook.on
        )
        if fits:
            _consider(turn, playbook, place, event)


def _note_workers(turn: Turn, host: str, event: Event) -> None:
    """Keeps the workers of services true."""
    if event.worker is None or event.service is None:
        return
    place, ref = Place(host, event.service), event.worker
    workers = dict(turn.workers.get(place, {}))
    if event.kind in ("worker.started", "worker.ready"):
        workers[ref.pid] = ref.start_ticks
    elif event.kind == "worker.exited" and workers.get(ref.pid) == ref.start_ticks:
        del workers[ref.pid]
    turn.workers[place] = workers


def _measured(turn: Turn, sample: Measured) -> None:
    for playbook in _by_priority(turn):
        place = _place(playbook, sample.host, sample.service)
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
        kind="sample",
        severity="warning",
        text=sentences.condition_held(condition, sample),
        service=sample.service,
        attrs={"metric": sample.metric, "value": sample.value, "subject": sample.subject or ""},
    )


# Whether a run begins.


def _by_priority(turn: Turn) -> list[Playbook]:
    return sorted(turn.playbooks.values(), key=lambda one: (-one.priority, one.name))


def _place(playbook: Playbook, host: str, service: str | None) -> Place | None:
    """What a run would be about; None where an event of no service comes to a playbook about services."""
    if playbook.target == "host":
        return Place(host)
    return Place(host, service) if service else None


def _consider(turn: Turn, playbook: Playbook, place: Place, event: Event) -> None:
    mode = turn.mode(playbook)
    if mode == "off":
        return
    known = about_event(plain(event), place, turn.workers)
    if playbook.condition is not None and playbook.condition.holds(known) is not True:
        return
    same = next((run for run in turn.runs.values() if (run.playbook, run.place) == (playbook.name, place)), None)
    if same is not None:
        turn.keep(sentences.joined(same))
        return
    held = _held(turn, playbook, place, is_shadow=mode == "shadow")
    if held is not None:
        _skip(turn, playbook, place, event, held)
    elif mode == "shadow":
        turn.uses.append(Use(playbook.name, place, turn.now_us, is_shadow=True))
        text = sentences.would_run(playbook, place, event)
        turn.tell("playbook.would_run", "info", text, place, playbook, cause=_cause(event))
    else:
        _begin(turn, playbook, place, event)


def _held(turn: Turn, playbook: Playbook, place: Place, *, is_shadow: bool) -> Held | None:
    if turn.killed and not is_shadow:
        return Held("killed", f"{turn.killed} has stopped all playbooks")
    held = held_by_window(playbook, turn.now_us)
    if held is None:
        held = held_by_limits(playbook, place, turn.uses, turn.runs.values(), turn.now_us, is_shadow=is_shadow)
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
    return None


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
    """A sample is on no timeline."""
    return None if event.kind == "sample" else event.id


# What people say.


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
