"""What playbooks say on the timeline: full sentences that stand alone at 3 a.m. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.wire import MAX_TEXT_CHARS, Event, Scalar
from playbooks.durations import duration_text
from playbooks.inputs import Measured
from playbooks.model import Act, OnSample, Playbook, acts_of
from playbooks.state import Place, Run, Task


def started(playbook: Playbook, place: Place, event: Event) -> str:
    """A run begins."""
    return f"{playbook.name} begins to repair {place} ({playbook.title}), because: {event.text:.600}"


def would_run(playbook: Playbook, place: Place, event: Event) -> str:
    """A run would begin if the playbook were armed."""
    acts = ", then ".join(" with ".join(act.action for act in acts_of(step)) for step in playbook.steps)
    return f"{playbook.name} is in shadow mode: for {place} it would have done {acts}, because: {event.text:.600}"


def skipped(playbook: Playbook, place: Place, why: str) -> str:
    """A run does not begin."""
    return f"{playbook.name} leaves {place} alone: {why}."


def recurring(playbook: Playbook, place: Place, times: int) -> str:
    """The same repair again and again."""
    within = duration_text(playbook.recurring.within_us)
    return (
        f"{playbook.name} has repaired {place} {times} times within {within} and begins again: it hides a fault that it does not "
        "mend. Somebody should look for the cause."
    )


def waits_for_approval(playbook: Playbook, place: Place, run: Run) -> str:
    """A run waits for somebody."""
    within = duration_text(playbook.approval_us or 0)
    return f"{playbook.name} waits for somebody to approve that it repairs {place}, for {within} at most: reflexctl playbook approve {run.id}"


def approved(playbook: Playbook, place: Place, who: str) -> str:
    """Somebody has approved."""
    return f"{who} approved that {playbook.name} repairs {place}."


def does(playbook: Playbook, place: Place, act: Act, task: Task) -> str:
    """An act begins."""
    whom = f"worker with pid {task.worker[0]} of {place}" if task.worker is not None else str(place)
    again = f" (attempt {task.attempt})" if task.attempt > 1 else ""
    return f"{playbook.name} does {act.action} for {whom}{again}."


def asks_for(step: str, act: Act, params: Mapping[str, Scalar]) -> str:
    """What a step asks for, as evidence."""
    given = ", ".join(f"{name} {value}" for name, value in params.items())
    return f"{step}: {act.action}{f' with {given}' if given else ''}"[:MAX_TEXT_CHARS]


def proof(playbook: Playbook) -> str:
    """What has come true, as evidence."""
    assert playbook.verify is not None
    parts = [f"{'no ' * one.never}{one.kind}" for one in playbook.verify.expects]
    return f"{' and '.join(parts)} within {duration_text(playbook.verify.within_us)} after the last act"


def failed(playbook: Playbook, place: Place, why: str) -> str:
    """A run could not do what it was to do."""
    return f"{playbook.name} could not repair {place}: {why}"


def recovered(playbook: Playbook, place: Place, passed_us: int) -> str:
    """What was to come about has."""
    if playbook.verify is None:
        return f"{playbook.name} has done all its steps for {place}, {passed_us / 1e6:.1f} s after the fault; nothing says whether that helped."
    return f"{playbook.name} repaired {place}: recovered in {passed_us / 1e6:.1f} s."


def missing(playbook: Playbook, met: frozenset[int]) -> str:
    """What has not come within the time."""
    assert playbook.verify is not None
    kinds = [one.kind for place, one in enumerate(playbook.verify.expects) if not one.never and place not in met]
    return f"no {' and no '.join(kinds)} came within {duration_text(playbook.verify.within_us)} after it."


def escalated(playbook: Playbook, place: Place, trouble: str) -> str:
    """A run ends without having helped."""
    return f"Not recovered: {playbook.name} did not repair {place}, somebody has to look at it. {trouble:.900}"


def cancelled(playbook: str, place: Place, why: str, *, acted: bool) -> str:
    """A run ends before it is done."""
    left = "What it did until then stays done" if acted else "It had done nothing"
    return f"{playbook} goes on no further with {place}: {why}. {left}."


def condition_held(condition: OnSample, sample: Measured) -> str:
    """A metric stayed beyond its bound."""
    side, bound = ("above", condition.above) if condition.above is not None else ("below", condition.below)
    whose = " of ".join(part for part in (sample.subject, sample.service, sample.host) if part)
    return f"{sample.metric} of {whose} has been {side} {bound:g} for {duration_text(condition.hold_us)}, it is {sample.value:g} now."


def joined(run: Run) -> Run:
    """The run with one more event that would have begun it."""
    return replace(run, joined=run.joined + 1)
