"""From the text of a playbook to its value: every mistake at once, each where it stands."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from agent.wire import ACTS, KINDS, METRICS, ActSpec, Param, Scalar
from playbooks.expressions import Template
from playbooks.fields import Fields, type_of
from playbooks.located import Located, parse
from playbooks.model import (
    HOUR_US,
    MINUTE_US,
    MODES,
    PLACES,
    SECOND_US,
    TARGETS,
    Act,
    Expect,
    Limits,
    Mode,
    Of,
    OnEvent,
    OnSample,
    Place,
    Playbook,
    Recurring,
    Retry,
    Step,
    Together,
    Trigger,
    Verify,
    acts_of,
)
from playbooks.problems import PlaybookError, Problem
from playbooks.windows import Window, parse_days, parse_minute, parse_zone

KEYS = (
    *("name", "title", "on", "if", "target", "steps", "verify", "else", "limits", "recurring", "priority", "approval"),
    *("windows", "mode", "runs_on"),
)
TRIGGER_KEYS = ("event", "where", "times", "within", "metric", "above", "below", "for")
STEP_KEYS = ("id", "action", "with", "when", "each", "timeout", "retry", "together")
VERIFY_KEYS = ("within", "expect")
EXPECT_KEYS = ("event", "never", "where")
LIMIT_KEYS = ("cooldown", "per_hour", "fleet_per_hour")
RECURRING_KEYS = ("times", "within")
RETRY_KEYS = ("times", "pause")
APPROVAL_KEYS = ("within",)
WINDOW_KEYS = ("days", "from", "until", "zone")

MOST_STEPS = 50
MOST_TIMEOUT_US = 10 * MINUTE_US
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_STEP_ID = re.compile(r"[a-z][a-z0-9_-]{0,40}")


def read_playbook(text: str, file: str) -> Playbook:
    """The playbook of a file; raises PlaybookError with all that is wrong."""
    place = parse(text, file)
    problems: list[Problem] = []
    playbook = _Reading(problems).playbook(place)
    if problems or playbook is None:
        raise PlaybookError(file, problems)
    return replace(playbook, digest=hashlib.blake2b(text.encode(), digest_size=16).hexdigest())


class _Reading:
    """One pass over a file. Where something is wrong, a stand-in is used and a problem is noted."""

    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems

    def _fields(self, place: Located, what: str, known: Sequence[str]) -> Fields:
        return Fields(place, what, known, self._problems)

    def playbook(self, place: Located) -> Playbook | None:
        fields = self._fields(place, "a playbook", KEYS)
        name = fields.text("name", must=True, most=64)
        if name is not None and not _NAME.fullmatch(name):
            fields.problem(cast(Located, fields.get("name")), f"{name!r} is no name: small letters, digits and -")
        on = tuple(
            trigger for one in fields.items("on", must=True, least=1) if (trigger := self._trigger(one)) is not None
        )
        steps = self._steps(fields, "steps", must=True)
        otherwise = self._steps(fields, "else")
        self._unique_ids(fields, (*steps, *otherwise))
        approval = fields.get("approval")
        if fields.get("runs_on") is not None and fields.choice("runs_on", PLACES) == "host":
            self._may_run_on_host(fields, on)
        return Playbook(
            name=name or "",
            title=fields.text("title", must=True, most=200) or "",
            on=on,
            steps=steps,
            condition=fields.expression("if"),
            target=cast(Of, fields.choice("target", TARGETS) or "service"),
            verify=self._verify(fields),
            otherwise=otherwise,
            limits=self._limits(fields),
            recurring=self._recurring(fields),
            priority=fields.whole("priority", 50, least=0, most=100),
            approval_us=None if approval is None else self._approval_us(approval),
            windows=tuple(window for one in fields.items("windows") if (window := self._window(one)) is not None),
            mode=cast(Mode, fields.choice("mode", MODES) or "shadow"),
            runs_on=cast(Place, fields.choice("runs_on", PLACES) or "server"),
        )

    def _may_run_on_host(self, fields: Fields, on: Sequence[Trigger]) -> None:
        """A host has nobody to ask, and keeps no samples."""
        place = cast(Located, fields.get("runs_on"))
        if fields.has("approval"):
            fields.problem(place, "a playbook that waits for an approval cannot run on the host: nobody there gives it")
        if any(isinstance(one, OnSample) for one in on):
            fields.problem(place, "a playbook with a `metric` cannot run on the host; give it an `event`")

    def _trigger(self, place: Located) -> Trigger | None:
        fields = self._fields(place, "a trigger", TRIGGER_KEYS)
        if fields.has("event") == fields.has("metric"):
            fields.problem(place, "a trigger has an `event` or a `metric`, and not both")
            return None
        if fields.has("event"):
            for name in ("above", "below", "for"):
                if (wrong := fields.get(name)) is not None:
                    fields.problem(wrong, f"{name!r} belongs to a trigger with a `metric`")
            kind = fields.choice("event", list(KINDS))
            times = fields.whole("times", 1, least=2, most=100)
            if fields.has("times") != fields.has("within"):
                fields.problem(place, "'times' and 'within' belong together: so many of these events within a time")
            within_us = fields.span_us("within", 0, least_us=SECOND_US)
            return None if kind is None else OnEvent(kind, fields.expression("where"), times, within_us)
        metric = fields.choice("metric", list(METRICS))
        above, below = fields.number("above"), fields.number("below")
        if fields.has("above") == fields.has("below"):
            fields.problem(place, "a trigger with a `metric` has `above` or `below`, and not both")
        for name in ("where", "times", "within"):
            if (wrong := fields.get(name)) is not None:
                fields.problem(wrong, f"{name!r} belongs to a trigger with an `event`")
        hold_us = fields.span_us("for", MINUTE_US, least_us=SECOND_US)
        return None if metric is None else OnSample(metric, above, below, hold_us)

    def _steps(self, fields: Fields, name: str, *, must: bool = False) -> tuple[Step, ...]:
        items = fields.items(name, must=must, least=1)
        if len(items) > MOST_STEPS:
            fields.problem(items[MOST_STEPS], f"{name!r} has {len(items)} members; at most {MOST_STEPS}")
        found = [self._step(item, place) for place, item in enumerate(items[:MOST_STEPS], 1)]
        return tuple(step for step in found if step is not None)

    def _step(self, place: Located, number: int) -> Step | None:
        fields = self._fields(place, "a step", STEP_KEYS)
        step_id = self._id(fields, number)
        if not fields.has("together"):
            return self._act(fields, step_id)
        for name in STEP_KEYS:
            if name not in ("id", "together") and (wrong := fields.get(name)) is not None:
                fields.problem(wrong, f"{name!r} belongs to the steps inside of `together`")
        acts = []
        for inside, item in enumerate(fields.items("together", least=2), 1):
            inner = self._fields(item, "a step inside of `together`", [key for key in STEP_KEYS if key != "together"])
            if (wrong := inner.get("each")) is not None:
                inner.problem(wrong, "'each' works on one worker after the other, so not inside of `together`")
            act = self._act(inner, f"{step_id}-{inside}" if not inner.has("id") else self._id(inner, inside))
            if act is not None:
                acts.append(act)
        return Together(step_id, tuple(acts))

    def _id(self, fields: Fields, number: int) -> str:
        found = fields.text("id")
        if found is None:
            return f"step-{number}"
        if not _STEP_ID.fullmatch(found):
            fields.problem(cast(Located, fields.get("id")), f"{found!r} is no id: small letters, digits, _ and -")
        return found

    def _act(self, fields: Fields, step_id: str) -> Act | None:
        name = fields.choice("action", list(ACTS), must=True)
        if name is None:
            return None
        action, each = ACTS[name], fields.flag("each")
        if each and not action.on_worker:
            fields.problem(cast(Located, fields.get("each")), f"'each' is for acts on one worker; {name} is none")
        return Act(
            id=step_id,
            action=name,
            params=self._params(fields, name, action),
            when=fields.expression("when"),
            each=each,
            timeout_us=self._timeout_us(fields),
            retry=self._retry(fields),
        )

    def _timeout_us(self, fields: Fields) -> int:
        timeout_us = fields.span_us("timeout", MINUTE_US, least_us=SECOND_US)
        if timeout_us > MOST_TIMEOUT_US:
            fields.problem(cast(Located, fields.get("timeout")), "'timeout' is longer than 10m, as no command may be")
        return timeout_us

    def _params(self, fields: Fields, name: str, action: ActSpec) -> dict[str, Scalar | Template]:
        place = fields.get("with")
        members = self._fields(place, f"'with' of {name}", list(action.params)) if place is not None else None
        found: dict[str, Scalar | Template] = {}
        for key, parameter in action.params.items():
            value = None if members is None else members.get(key)
            if value is None:
                if parameter.required:
                    fields.problem(place or fields.place, f"{name} needs {key!r}: {parameter.text}")
                continue
            assert members is not None
            taken = self._param(members, value, parameter)
            if taken is not None:
                found[key] = taken
        return found

    def _param(self, fields: Fields, place: Located, parameter: Param) -> Scalar | Template | None:
        value = place.value
        if isinstance(value, str) and "{{" in value:
            return fields.template(place, parameter.name)
        try:
            if not isinstance(value, str | int | float | bool):
                raise ValueError(f"{parameter.name} must be {parameter.word}, not {type_of(place)}")
            return parameter.read(value)
        except ValueError as error:
            fields.problem(place, str(error))
            return None

    def _unique_ids(self, fields: Fields, steps: tuple[Step, ...]) -> None:
        ids = [act.id for step in steps for act in acts_of(step)] + [s.id for s in steps if isinstance(s, Together)]
        for twice in sorted({one for one in ids if ids.count(one) > 1 and not one.startswith("step-")}):
            fields.problem(fields.place, f"two steps have the id {twice!r}")

    def _verify(self, fields: Fields) -> Verify | None:
        place = fields.get("verify")
        if place is None:
            return None
        members = self._fields(place, "'verify'", VERIFY_KEYS)
        members.must("within")
        expects = [self._expect(one) for one in members.items("expect", must=True, least=1)]
        within_us = members.span_us("within", MINUTE_US, least_us=SECOND_US)
        return Verify(within_us, tuple(one for one in expects if one is not None))

    def _expect(self, place: Located) -> Expect | None:
        fields = self._fields(place, "a member of 'expect'", EXPECT_KEYS)
        if fields.has("event") == fields.has("never"):
            fields.problem(place, "a member of 'expect' has an `event` that must come, or a `never` that must not")
            return None
        never = fields.has("never")
        kind = fields.choice("never" if never else "event", list(KINDS))
        return None if kind is None else Expect(kind, fields.expression("where"), never)

    def _limits(self, fields: Fields) -> Limits:
        place = fields.get("limits")
        if place is None:
            return Limits()
        members = self._fields(place, "'limits'", LIMIT_KEYS)
        return Limits(
            cooldown_us=members.span_us("cooldown", Limits().cooldown_us),
            per_hour=members.whole("per_hour", Limits().per_hour, least=1, most=1_000),
            fleet_per_hour=members.whole("fleet_per_hour", Limits().fleet_per_hour, least=1, most=10_000),
        )

    def _recurring(self, fields: Fields) -> Recurring:
        place = fields.get("recurring")
        if place is None:
            return Recurring()
        members = self._fields(place, "'recurring'", RECURRING_KEYS)
        within_us = members.span_us("within", Recurring().within_us, least_us=MINUTE_US)
        return Recurring(members.whole("times", Recurring().times, least=2, most=100), within_us)

    def _retry(self, fields: Fields) -> Retry:
        place = fields.get("retry")
        if place is None:
            return Retry()
        members = self._fields(place, "'retry'", RETRY_KEYS)
        members.must("times")
        return Retry(members.whole("times", 1, least=1, most=5), members.span_us("pause", Retry().pause_us))

    def _approval_us(self, place: Located) -> int:
        return self._fields(place, "'approval'", APPROVAL_KEYS).span_us("within", HOUR_US, least_us=SECOND_US)

    def _window(self, place: Located) -> Window | None:
        fields = self._fields(place, "a window", WINDOW_KEYS)
        days = fields.parsed("days", parse_days) if fields.has("days") else frozenset(range(7))
        begins, ends = fields.parsed("from", parse_minute, must=True), fields.parsed("until", parse_minute, must=True)
        zone = fields.parsed("zone", parse_zone) if fields.has("zone") else "UTC"
        if days is None or begins is None or ends is None or zone is None:
            return None
        if begins == ends:
            fields.problem(place, "a window must not end when it begins")
            return None
        return Window(days, begins, ends, zone)
