"""How a run goes on: its steps one after the other, their outcomes, what it verifies, and how it ends. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.wire import ACTS, Command, Event, Evidence, Scalar, Severity, Target
from playbooks import sentences
from playbooks.durations import duration_text
from playbooks.expressions import Template
from playbooks.inputs import Serve
from playbooks.model import SECOND_US, Act, Playbook, Step, Together, acts_of
from playbooks.state import Members, Run, Task, Use
from playbooks.turn import Turn, about_event, plain

GRACE_US = 5 * SECOND_US
"""An outcome may come this much later than its command expires."""

_ENDS_BUSY = "busy"
_CAME_BEFORE = "replayed"
"""The host got the command before; what became of it then is told by itself."""

_SEVERITIES: Mapping[str, Severity] = {"playbook.escalated": "critical", "playbook.cancelled": "warning"}


def approved(turn: Turn, run: Run, who: str) -> None:
    """Somebody lets a run that waited begin."""
    playbook = turn.playbooks[run.playbook]
    text = sentences.approved(playbook, run.place, who)
    last = turn.tell("playbook.step", "info", text, run.place, playbook, cause=run.last, attrs={"run": run.id})
    proceed(turn, replace(run, phase="acting", last=last, until_us=0))


def cancel(turn: Turn, run: Run, why: str) -> None:
    """Ends a run where it stands."""
    run = _may_have_acted(turn, run)
    text = sentences.cancelled(run.playbook, run.place, why, acted=run.acted)
    _end(turn, run, "playbook.cancelled", text)


def proceed(turn: Turn, run: Run) -> None:
    """Goes on as far as it can now."""
    while True:
        steps = _steps(turn, run)
        if all(task.progress == "done" for task in run.tasks):
            if run.step >= len(steps):
                _steps_done(turn, run)
                return
            begun = _begin_step(turn, run, steps[run.step])
            if begun is None:
                return
            run = begun
            continue
        _send_due(turn, run, steps[run.step - 1])
        return


def outcome_came(turn: Turn, host: str, event: Event) -> None:
    """A host, or the server, says what became of a command."""
    sent = event.attrs.get("command")
    for run in turn.runs.values():
        for task in run.tasks:
            if task.sent == sent and task.progress == "sent" and (task.command is None or host == run.place.host):
                _take_outcome(turn, run, task, event)
                return


def something_happened(turn: Turn, run: Run, host: str, event: Event) -> None:
    """An event that a run may have waited for, or must not see."""
    playbook = turn.playbooks.get(run.playbook)
    is_about = host == run.place.host and run.place.service in ("", event.service)
    if playbook is None or playbook.verify is None or not is_about or run.phase not in ("acting", "verifying"):
        return
    if event.ts_us <= run.event["ts_us"]:
        return
    known = about_event(plain(event), run.place, turn.services)
    for number, expect in enumerate(playbook.verify.expects):
        if expect.kind != event.kind or (expect.where is not None and expect.where.holds(known) is not True):
            continue
        if not expect.never:
            run = turn.keep(replace(run, met=run.met | {number}))
        elif run.phase == "verifying":
            _fail(turn, replace(run, last=event.id), f"after it came what must not come: {event.text:.500}")
            return
    if run.phase == "verifying" and _has_all(playbook, run) and not _has_never(playbook):
        _recovered(turn, run)


def time_passed(turn: Turn, run: Run) -> None:
    """Whether something has waited for too long, or for long enough."""
    playbook = turn.playbooks.get(run.playbook)
    if playbook is None:
        cancel(turn, run, "the playbook is not there any more")
    elif run.phase == "approval":
        if turn.now_us >= run.until_us:
            cancel(turn, run, f"nobody approved it within {duration_text(playbook.approval_us or 0)}")
    elif run.phase == "verifying":
        if turn.now_us >= run.until_us:
            if _has_all(playbook, run):
                _recovered(turn, run)
            else:
                _fail(turn, run, sentences.missing(playbook, run.met))
    else:
        _time_of_tasks(turn, run)


def _time_of_tasks(turn: Turn, run: Run) -> None:
    late = next((task for task in run.tasks if task.progress == "sent" and turn.now_us >= task.until_us), None)
    if late is not None:
        act = _act(turn, run, late)
        run = _may_have_acted(turn, run)
        span = duration_text(act.timeout_us)
        _fail_task(turn, run, late, f"{act.action} has no outcome within {span}: whether it was done is not known.")
    elif any(task.progress == "due" and task.attempt and turn.now_us >= task.due_us for task in run.tasks):
        proceed(turn, run)


# Steps.


def _steps(turn: Turn, run: Run) -> tuple[Step, ...]:
    playbook = turn.playbooks[run.playbook]
    return playbook.otherwise if run.phase == "otherwise" else playbook.steps


def _begin_step(turn: Turn, run: Run, step: Step) -> Run | None:
    """The run at its next step; None where that step cannot be begun, which ends this part of the run."""
    known = turn.known(run)
    tasks: list[Task] = []
    for act in acts_of(step):
        if act.when is not None and act.when.holds(known) is not True:
            continue
        workers = _workers(turn, run, act)
        if workers is None:
            whose = "no worker of it is known" if act.each else "the event that began this names no worker"
            _fail(turn, replace(run, step=run.step + 1, tasks=()), f"{act.action} is about a worker, and {whose}.")
            return None
        tasks += [Task(act.id, worker) for worker in workers]
    return turn.keep(replace(run, step=run.step + 1, tasks=tuple(tasks)))


def _workers(turn: Turn, run: Run, act: Act) -> list[tuple[int, int] | None] | None:
    """Whom an act is about: workers, or [None] for the whole target; None where it is not known."""
    if act.each:
        workers: list[tuple[int, int] | None] = [*sorted(_members(turn, run).workers.items())]
        return workers or None
    if not ACTS[act.action].on_worker:
        return [None]
    worker = run.event.get("worker")
    return None if worker is None else [(worker["pid"], worker["start_ticks"])]


def _members(turn: Turn, run: Run) -> Members:
    return turn.services.get(run.place, Members())


def _send_due(turn: Turn, run: Run, step: Step) -> None:
    """Sends what is due of the step: all at once inside of `together`, else one after the other."""
    at_once = isinstance(step, Together)
    for place, task in enumerate(run.tasks):
        if task.progress == "due" and turn.now_us >= task.due_us:
            sent = _send(turn, run, task)
            if sent is None:
                return
            run = turn.keep(sent)
        if run.tasks[place].progress != "done" and not at_once:
            return


def _send(turn: Turn, run: Run, task: Task) -> Run | None:
    """The run with the act on its way; None where its parameters are not known, which ends this part of the run."""
    act, playbook = _act(turn, run, task), turn.playbooks[run.playbook]
    params = _params(act, turn, run)
    if isinstance(params, str):
        _fail(turn, run, params)
        return None
    sent_id, attempt = turn.new_id(), task.attempt + 1
    task = replace(task, attempt=attempt)
    step = act.id if task.worker is None else f"{act.id}[{task.worker[0]}]"
    cause = turn.tell(
        "playbook.step",
        "info",
        sentences.does(playbook, run.place, act, task),
        run.place,
        playbook,
        cause=run.last,
        attrs={"run": run.id, "step": step, "action": act.action, "command": sent_id, "attempt": attempt},
        evidence=(Evidence("step", sentences.asks_for(step, act, params)),),
    )
    service, command = run.place.service or None, None
    if ACTS[act.action].by_server:
        turn.send(Serve(sent_id, run.id, step, act.action, params, run.place.host, service, cause))
    else:
        command = Command(
            id=sent_id,
            issued_us=turn.now_us,
            expires_us=turn.now_us + act.timeout_us,
            host=run.place.host,
            run=run.id,
            step=step,
            action=act.action,
            cause=cause,
            params=params,
            service=service,
            target=None if task.worker is None else Target(*task.worker),
        )
        turn.send(command)
    until_us = turn.now_us + act.timeout_us + GRACE_US
    now = replace(task, progress="sent", until_us=until_us, sent=sent_id, command=command)
    return _with_task(replace(run, last=cause), now)


def _params(act: Act, turn: Turn, run: Run) -> dict[str, Scalar] | str:
    """The parameters with their expressions worked out; what is wrong where that cannot be done."""
    known, found = turn.known(run), dict[str, Scalar]()
    for name, value in act.params.items():
        if not isinstance(value, Template):
            found[name] = value
            continue
        text = value.fill(known)
        if ACTS[act.action].params[name].type == "str":
            found[name] = text
            continue
        try:
            number = float(text)
        except ValueError:
            return f"{name!r} of {act.action} comes to {text:.60}, which is no number."
        found[name] = int(number) if number.is_integer() else number
    return found


def _act(turn: Turn, run: Run, task: Task) -> Act:
    return next(act for step in _steps(turn, run) for act in acts_of(step) if act.id == task.act)


def _with_task(run: Run, task: Task) -> Run:
    same = [(one.act, one.worker) == (task.act, task.worker) for one in run.tasks]
    return replace(run, tasks=tuple(task if is_it else one for one, is_it in zip(run.tasks, same, strict=True)))


# Outcomes.


def _take_outcome(turn: Turn, run: Run, task: Task, event: Event) -> None:
    if event.kind == "action.planned" or event.attrs.get("reason") == _CAME_BEFORE:
        return
    act = _act(turn, run, task)
    run = replace(run, last=event.id, outcome=plain(event))
    only_words = ACTS[act.action].by_server and run.phase == "otherwise"
    if event.kind != "action.refused" and not only_words:
        run = _has_acted(turn, run)
    if event.kind == "action.done":
        proceed(turn, turn.keep(_with_task(run, replace(task, progress="done"))))
        return
    may_retry = event.kind == "action.failed" or event.attrs.get("reason") == _ENDS_BUSY
    if may_retry and task.attempt <= act.retry.times and run.phase == "acting":
        again = replace(task, progress="due", due_us=turn.now_us + act.retry.pause_us)
        turn.keep(_with_task(run, again))
        return
    _fail_task(turn, _with_task(run, replace(task, progress="done")), task, event.text)


def _has_acted(turn: Turn, run: Run) -> Run:
    """The first act of a run uses its limits up; of one that is there to tell people, telling them is the act."""
    if not run.acted:
        turn.uses.append(Use(run.playbook, run.place, turn.now_us))
    return turn.keep(replace(run, acted=True))


def _may_have_acted(turn: Turn, run: Run) -> Run:
    """Nobody waits any longer for the outcomes of what is on its way: it counts as done."""
    is_under_way = any(task.progress == "sent" and task.command is not None for task in run.tasks)
    return _has_acted(turn, run) if is_under_way else run


def _fail_task(turn: Turn, run: Run, task: Task, why: str) -> None:
    if run.phase == "otherwise":  # what is left to be tried is tried
        proceed(turn, turn.keep(_with_task(run, replace(task, progress="done"))))
    else:
        _fail(turn, run, why)


def _fail(turn: Turn, run: Run, why: str) -> None:
    """The run did not help: it goes on with what is to be done then."""
    run = _may_have_acted(turn, run)
    if run.phase == "otherwise":
        proceed(turn, turn.keep(replace(run, tasks=())))
        return
    playbook = turn.playbooks[run.playbook]
    text = sentences.failed(playbook, run.place, why)
    last = turn.tell("playbook.failed", "warning", text, run.place, playbook, cause=run.last, attrs={"run": run.id})
    proceed(turn, turn.keep(replace(run, phase="otherwise", step=0, tasks=(), last=last, trouble=why)))


# Ends.


def _steps_done(turn: Turn, run: Run) -> None:
    playbook = turn.playbooks[run.playbook]
    if run.phase == "otherwise":
        _end(turn, run, "playbook.escalated", sentences.escalated(playbook, run.place, run.trouble))
    elif playbook.verify is None or (_has_all(playbook, run) and not _has_never(playbook)):
        _recovered(turn, run)
    else:
        turn.keep(replace(run, phase="verifying", tasks=(), until_us=turn.now_us + playbook.verify.within_us))


def _recovered(turn: Turn, run: Run) -> None:
    passed_us = max(turn.now_us - int(run.event["ts_us"]), 0)
    playbook = turn.playbooks[run.playbook]
    proof = Evidence("verify", sentences.proof(playbook)) if playbook.verify is not None else None
    text = sentences.recovered(playbook, run.place, passed_us)
    _end(turn, run, "playbook.verified", text, passed_us, proof)


def _has_all(playbook: Playbook, run: Run) -> bool:
    """Whether everything has come that was to come."""
    expects = playbook.verify.expects if playbook.verify is not None else ()
    return all(one.never or number in run.met for number, one in enumerate(expects))


def _has_never(playbook: Playbook) -> bool:
    return playbook.verify is not None and any(one.never for one in playbook.verify.expects)


def _end(
    turn: Turn, run: Run, kind: str, text: str, passed_us: int | None = None, proof: Evidence | None = None
) -> None:
    """The last word of a run."""
    attrs: dict[str, Scalar] = {"run": run.id, "acted": run.acted, "joined": run.joined}
    if passed_us is not None:
        attrs["took_ms"] = passed_us // 1000
    severity, evidence = _SEVERITIES.get(kind, "info"), () if proof is None else (proof,)
    turn.tell(kind, severity, text, run.place, run.playbook, cause=run.last, attrs=attrs, evidence=evidence)
    del turn.runs[run.id]
