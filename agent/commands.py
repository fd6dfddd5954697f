"""Takes signed commands: refuses what must not be done, does each one at most once, and answers with its outcome."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from agent.acting import ActFailed, Performer
from agent.actions import ACTIONS
from agent.actions.action import Action, CannotAct, Context, ServiceView
from agent.actions.steps import Step
from agent.clock import Clock
from agent.command_journal import Journal
from agent.ids import new_event_id
from agent.policy import STOP_FILE, Policy, PolicyError, load_policy
from agent.reflexes import Reflexes
from agent.reporter import Reporter
from agent.rollup import NS_PER_TICK
from agent.wire import (
    MAX_TEXT_CHARS,
    Command,
    Event,
    Evidence,
    Refusal,
    Scalar,
    Severity,
    WireError,
    command_from_json,
    is_signed,
)

AHEAD_US = 60_000_000
"""How far the server's clock may be ahead of the host's."""

MOST_AT_ONCE = 16
MOST_ANSWERED = 1_000
FORGED_TOLD_EVERY_US = 10_000_000
JOURNAL_FILE = "commands.jsonl"

log = logging.getLogger(__name__)


class Refused(Exception):
    """A command that is not carried out: `reason` is one of those of docs/actions.md, the text a sentence's end."""

    def __init__(self, reason: Refusal, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Commands:
    """All commands to this host."""

    def __init__(
        self, host: str, host_key: str, state_dir: Path, policy_file: Path, performer: Performer, reporter: Reporter,
        clock: Clock, reflexes: Reflexes | None = None,
    ) -> None:  # fmt: skip
        """Opens the journal, and tells of commands that an earlier end of the agent cut off; raises OSError."""
        self._host = host
        self._key_hash = hashlib.sha256(host_key.encode()).hexdigest()
        self._stop_file = state_dir / STOP_FILE
        self._policy_file = policy_file
        self._performer = performer
        self._reporter = reporter
        self._clock = clock
        self._busy: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._forged_us = 0
        self._answered: OrderedDict[str, None] = OrderedDict()
        """Commands that were refused or planned lately. Whoever repeats what was signed must not fill the timeline."""

        self._reflexes = reflexes
        self._journal = Journal(state_dir / JOURNAL_FILE, clock.now_us())
        for command in self._journal.cut:
            self._tell(command, "action.failed", "unknown: the agent ended while it acted")

    def own(self, command: Command) -> None:
        """A command of this host's own engine: all checks but that of a signature."""
        self._begin(command)

    def fail(self, command: Command, why: str) -> None:
        """A command of this host's own engine that cannot even be begun."""
        self._tell(command, "action.failed", why)

    def take(self, envelope: object) -> None:
        """One message of the server; its outcome comes as an event."""
        try:
            command = self._believed(envelope)
        except Refused as refused:
            self.tell_unbelieved(refused.reason, str(refused))
            return
        self._begin(command)

    def _begin(self, command: Command) -> None:
        """What is not good any more is refused at once, so that whoever repeats it keeps no other command out."""
        try:
            self._check_fresh(command)
        except Refused as refused:
            self._tell_refused(command, refused)
            return
        task = asyncio.ensure_future(self._answer(command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Acts that are under way are cut off; the next start tells of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._journal.close()

    def _believed(self, envelope: object) -> Command:
        """The command, whose signature is right; raises Refused."""
        if not isinstance(envelope, dict):
            raise Refused("malformed", "it is no JSON object")
        try:
            command = command_from_json(envelope.get("command"))
        except WireError as error:
            raise Refused("malformed", f"it cannot be read: {error}") from None
        signature = envelope.get("signature")
        if not isinstance(signature, str):
            raise Refused("malformed", "it has no signature")
        if not is_signed(command, signature, self._key_hash):
            raise Refused("forged", f"the signature of {command.action:.60} (command {command.id}) is wrong")
        return command

    async def _answer(self, command: Command) -> None:
        claimed = False
        try:
            self._check_fresh(command)
            if not command.dry_run:
                self._journal.reserve(command)
                await asyncio.to_thread(self._journal.begin, command)
                claimed = True
            await self._act(command)
        except Refused as refused:
            self._tell_refused(command, refused)
        except OSError as error:
            self._tell(command, "action.failed", f"the journal of commands cannot be written: {error.strerror}")
        except Exception as defect:
            log.exception("a defect in %s", command.action)
            self._tell(command, "action.failed", f"the agent met a defect of its own: {defect!r:.200}")
        if claimed:
            self._journal.end(command, self._clock.now_us())

    def _tell_refused(self, command: Command, refused: Refused) -> None:
        """Once for each command."""
        key = f"{command.id} refused"
        if key in self._answered:
            log.warning("command %s came again and was refused again: %s", command.id, refused)
            return
        self._note_answered(key)
        self._tell(command, "action.refused", str(refused), reason=refused.reason)

    def _note_answered(self, key: str) -> None:
        self._answered[key] = None
        if len(self._answered) > MOST_ANSWERED:
            self._answered.popitem(last=False)

    def _check_fresh(self, command: Command) -> None:
        now_us = self._clock.now_us()
        if command.host != self._host:
            raise Refused("foreign", f"it is for the host {command.host}, and this is {self._host}")
        if now_us >= command.expires_us:
            late_s = (now_us - command.expires_us) / 1e6
            raise Refused("expired", f"it expired {late_s:.1f} s ago by the clock of this host")
        if command.issued_us > now_us + AHEAD_US:
            raise Refused("expired", "it was issued in the future by the clock of this host; do the clocks differ?")
        if command.id in self._journal or command.id in self._answered:
            raise Refused("replayed", f"command {command.id} was taken before")
        if not self._journal.has_room(now_us) or len(self._tasks) > MOST_AT_ONCE:
            raise Refused("busy", "there are too many commands at once")

    async def _act(self, command: Command) -> None:
        action, policy = self._allowed(command)
        service = self._service_of(command)
        context = Context(service, command.target, policy.commands)
        try:
            steps = action.steps(context, command.params)
        except CannotAct as cannot:
            raise Refused(cannot.reason, str(cannot)) from None
        if command.dry_run:
            self._note_answered(command.id)
            self._tell(command, "action.planned", _in_words(steps), steps=len(steps))
            return
        key = service.name if service is not None else f"{command.action} {dict(command.params)}"
        if key in self._busy:
            raise Refused("busy", f"another act upon {key} is under way")
        if self._reflexes is not None and (holder := self._reflexes.holder(command)) is not None:
            raise Refused("busy", f"{holder} is at work on {key}, on this host")
        self._busy.add(key)
        self._note_taken(command, is_over=False)
        try:
            await self._perform(command, steps, service)
        finally:
            self._busy.discard(key)
            self._note_taken(command, is_over=True)

    def _note_taken(self, command: Command, *, is_over: bool) -> None:
        if self._reflexes is not None:
            self._reflexes.taken(command, is_over=is_over)

    def _allowed(self, command: Command) -> tuple[Action, Policy]:
        action = ACTIONS.get(command.action)
        if action is None:
            raise Refused("unknown_action", f"this agent has no action {command.action:.60}")
        if self._stop_file.exists():
            raise Refused("killed", f"acting is stopped on this host by {self._stop_file}")
        try:
            policy = load_policy(self._policy_file)
        except PolicyError as error:
            raise Refused("policy", f"the policy of this host cannot be used, so nothing is allowed: {error}") from None
        if policy.stop:
            raise Refused("killed", f"acting is stopped on this host by {self._policy_file}")
        if refusal := policy.refusal(action, command.service):
            raise Refused("policy", refusal)
        return action, policy

    def _service_of(self, command: Command) -> ServiceView | None:
        """The service that is named, else that of the target: an act upon a process of none is refused."""
        if command.service is not None:
            service = self._performer.view(command.service, command.target)
            if service is None and ACTIONS[command.action].spec.on_stopped:
                service = self._performer.stopped(command.service)
            if service is None:
                raise Refused("stale", f"no service {command.service} runs on this host")
            if command.target is None and self._began_us(service) > command.issued_us:
                text = f"{command.service} has another master than when this was decided, or the clocks differ"
                raise Refused("stale", text)
            return service
        if command.target is None:
            return None
        service = self._performer.of_target(command.target)
        if service is None:
            raise Refused("stale", f"pid {command.target.pid} is no process of a service, or another one by now")
        if refusal := self._allowed_for(command, service):
            raise Refused("policy", refusal)
        return service

    def _began_us(self, service: ServiceView) -> int:
        return self._clock.boot_to_us(service.master.start_ticks * NS_PER_TICK)

    def _allowed_for(self, command: Command, service: ServiceView) -> str | None:
        return load_policy(self._policy_file).refusal(ACTIONS[command.action], service.name)

    async def _perform(self, command: Command, steps: tuple[Step, ...], service: ServiceView | None) -> None:
        began_ns = self._clock.monotonic_ns()
        plan = Evidence("plan", _in_words(steps))
        try:
            told = await self._performer.perform(steps, service)
        except CannotAct as cannot:
            raise Refused(cannot.reason, str(cannot)) from None
        except ActFailed as failed:
            text = f"{failed}{self._left(service)}"
            self._tell(command, "action.failed", text, plan, took_ms=self._since_ms(began_ns))
            return
        took_ms = self._since_ms(began_ns)
        text = "; ".join([f"done in {took_ms / 1000:.1f} s", *told])
        self._tell(command, "action.done", text, plan, took_ms=took_ms, **self._changed(service))

    def _since_ms(self, began_ns: int) -> float:
        return round((self._clock.monotonic_ns() - began_ns) / 1e6, 1)

    def _left(self, before: ServiceView | None) -> str:
        """How a service was left after a failure."""
        if before is None:
            return ""
        now = self._performer.view(before.name, before.master)
        if now is None:
            return f"; {before.name} does not run now"
        ready = sum(worker.is_ready for worker in now.workers)
        return (
            f"; it is left with {len(now.workers)} workers, {ready} of them ready, and had {len(before.workers)} before"
        )

    def _changed(self, before: ServiceView | None) -> dict[str, Scalar]:
        now = None if before is None else self._performer.view(before.name, None)
        if before is None or now is None:
            return {}
        old = {worker.target for worker in before.workers}
        fresh = [worker.target.pid for worker in now.workers if worker.target not in old]
        return {"workers": len(now.workers), **({"new_pid": fresh[0]} if fresh else {})}

    def _tell(self, command: Command, kind: str, said: str, evidence: Evidence | None = None, **attrs: Scalar) -> None:
        subject = command.service or self._host
        pid = "" if command.target is None else f", pid {command.target.pid}"
        severity: Severity = "info" if kind in ("action.done", "action.planned") else "warning"
        verb = {"action.refused": "refused: ", "action.failed": "failed: ", "action.planned": "would "}.get(kind, "")
        text = f"{command.action} on {subject} ({self._host}{pid}) {verb}{said}."
        self._report(kind, severity, text, command, attrs, evidence)

    def tell_unbelieved(self, reason: str, why: str) -> None:
        """At most once in a while: whoever can send many must not fill the timeline."""
        now_us = self._clock.now_us()
        log.warning("a command was refused: %s", why)
        if now_us - self._forged_us >= FORGED_TOLD_EVERY_US:
            self._forged_us = now_us
            text = f"A command to {self._host} was refused as {reason}: {why}."
            self._report("action.refused", "warning", text, None, {"reason": reason})

    def _report(
        self,
        kind: str,
        severity: Severity,
        text: str,
        command: Command | None,
        attrs: Mapping[str, Scalar],
        evidence: Evidence | None = None,
    ) -> None:
        now_us = self._clock.now_us()
        named: dict[str, Scalar] = {}
        if command is not None:
            named = {"command": command.id, "run": command.run, "step": command.step, "action": command.action}
            named |= {} if command.target is None else {"pid": command.target.pid}
        event = Event(
            id=new_event_id(now_us),
            ts_us=now_us,
            kind=kind,
            severity=severity,
            text=text[:MAX_TEXT_CHARS],
            service=None if command is None else command.service,
            cause=None if command is None else command.cause,
            evidence=() if evidence is None else (evidence,),
            attrs={**named, **attrs},
        )
        self._reporter.events((event,))


def _in_words(steps: tuple[Step, ...]) -> str:
    words = "; then ".join(step.words for step in steps) or "do nothing: it is so already"
    return words if len(words) < MAX_TEXT_CHARS - 400 else f"{words[: MAX_TEXT_CHARS - 400]} …"
