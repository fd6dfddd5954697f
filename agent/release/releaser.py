"""Takes signed orders: does each phase of a release once, watches what it did, and answers with events."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.acting import ActFailed, Performer
from agent.clock import Clock
from agent.policy import STOP_FILE, AppRules, PolicyError, load_policy
from agent.procfs import ProcFs
from agent.release.afterwards import HOUR_US, WITHIN_US, Deaths, has_regressed
from agent.release.choice import venv_of
from agent.release.failure import ReleaseFailed
from agent.release.gate import FAULTS, Seen, Verdict, judge
from agent.release.hired import Runner, RunnerTrouble
from agent.release.layout import Layout
from agent.release.log import Log
from agent.release.own import merged
from agent.release.prepare import Preparation
from agent.release.records import RECORDS_FILE, OrderRecord, Records
from agent.release.switch import Switch
from agent.release.telling import (
    COMMIT_CHARS,
    TOLD_EVERY_US,
    Teller,
    evidence_of,
    facts_of,
    later,
    not_seen,
    services_of,
    ways_of,
)
from agent.release.tidy import foreign_of, releases_of, tidy
from agent.release.watch import Observer
from agent.release.words import build_environment
from agent.release.workshop import is_there
from agent.reporter import Reporter
from agent.service import Service
from agent.wire import (
    Event,
    Order,
    Row,
    Scalar,
    WireError,
    is_signed_order,
    order_from_json,
)
from agent.wire.app import App, When, longest_switch_s

AHEAD_US = 60_000_000
MOST_WHY_CHARS = 300

log = logging.getLogger(__name__)


class OrderRefused(Exception):
    """An order that is not carried out: `reason` is a word of docs/deploys.md, the text a sentence's end."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(slots=True)
class _Under:
    """An order that is under way."""

    order: Order
    task: asyncio.Task[None]
    is_cancelled: bool = False


class Releaser:
    """All releases of this host."""

    def __init__(
        self, host: str, host_key: str, state_dir: Path, policy_file: Path, runner_socket: Path, performer: Performer,
        procfs: ProcFs, services: Mapping[int, Service], reporter: Reporter, clock: Clock,
        send: Callable[[object], None],
    ) -> None:  # fmt: skip
        """Reads what is remembered. `send` says something to the server at once, if it listens."""
        self._host = host
        self._key_hash = hashlib.sha256(host_key.encode()).hexdigest()
        self._stop_file = state_dir / STOP_FILE
        self._policy_file = policy_file
        self._runner_socket = runner_socket
        self._performer = performer
        self._procfs = procfs
        self._services = services
        self._clock = clock
        self._send = send
        self._records = Records(state_dir / RECORDS_FILE)
        self._teller = Teller(host, procfs, services, reporter, clock, self._records)
        self._unbelieved_us = 0
        self._deaths = Deaths()
        self._under: dict[str, _Under] = {}
        self._next: dict[str, Order] = {}
        self._is_stopping = False
        self._observers: dict[str, Observer] = {}
        self._looks: dict[str, asyncio.Task[None]] = {}

    def open(self) -> None:
        """Tells of orders that an earlier end of the agent cut off; the server orders them again."""
        for id_, record in self._records.cut():
            serves = self._teller.serves(record.folder, record.services)
            runs = f"its services run {serves}" if self._teller.running(record.services) else "no service of it is seen"
            text = (
                f"The agent on {self._host} ended in the middle of the {record.phase} of {record.app}; {runs}. "
                "It goes on when the server orders it again."
            )
            attrs = {"order": id_, "phase": record.phase, "app": record.app, "release": record.release}
            self._teller.report("release.interrupted", "warning", text, None, {**attrs, "serves": serves})

    async def stop(self) -> None:
        """Cuts off what is under way; the next start tells of it."""
        self._is_stopping = True
        tasks = [one.task for one in self._under.values()] + list(self._looks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def status(self) -> dict[str, object]:
        """What the host says of its releases with every batch; docs/api.md names the keys."""
        return {
            name: {"serving": app.serving, "before": app.before, "bad": sorted(app.bad)}
            for name, app in self._records.apps.items()
        }

    def notice(self, event: Event) -> None:
        """Something happened on this host."""
        for observer in self._observers.values():
            observer.notice(event)
        if event.service and event.kind == "worker.exited" and event.attrs.get("death") in FAULTS:
            self._deaths.add(event.service, event.ts_us)
            self._look_back(event, event.service)

    def _look_back(self, death: Event, service: str) -> None:
        """A release that was kept and turns bad within a day is told once."""
        for name, app in self._records.apps.items():
            if service not in app.usual or app.regressed == app.serving or name in self._under:
                continue
            lately = self._deaths.lately(service, death.ts_us, WITHIN_US)
            if has_regressed(lately, app.usual[service], switched_us=app.switched_us, now_us=death.ts_us):
                app.regressed = app.serving
                self._teller.regressed(name, service, lately, death)

    def rows(self, rows: Sequence[Row]) -> None:
        """Something was measured on this host."""
        for observer in self._observers.values():
            observer.rows(rows)

    # Orders.

    def take(self, value: object, signature: object) -> None:
        """One order of the server; its outcome comes as an event."""
        try:
            order = self._believed(value, signature)
        except OrderRefused as refused:
            log.warning("an order was refused: %s", refused)
            now_us = self._clock.now_us()
            if now_us - self._unbelieved_us < TOLD_EVERY_US:
                return
            self._unbelieved_us = now_us
            text = f"An order to {self._host} was refused as {refused.reason}: {refused}."
            self._teller.report("release.refused", "warning", text, None, {"reason": refused.reason})
            return
        known = self._records.orders.get(order.id)
        if known is not None and known.outcome is not None:
            self._teller.again(order.id, known)
        elif order.phase == "cancel":
            self._cancel(order)
        elif all(one.order.id != order.id for one in self._under.values()):
            self._take_on(order)

    def _believed(self, value: object, signature: object) -> Order:
        try:
            order = order_from_json(value)
        except WireError as error:
            raise OrderRefused("malformed", f"it cannot be read: {error}") from None
        if not isinstance(signature, str) or not is_signed_order(order, signature, self._key_hash):
            raise OrderRefused("forged", f"the signature of order {order.id} is wrong")
        return order

    def _cancel(self, order: Order) -> None:
        """What is prepared is dropped; what is switched goes back, in order."""
        waits = self._next.get(order.app.name)
        if waits is not None and waits.id == order.release:
            del self._next[order.app.name]
            self._teller.end(waits, "release.failed", "warning", "was cancelled", None, reason="cancelled")
        for one in self._under.values():
            if one.order.id == order.release:
                one.is_cancelled = True
                if one.order.phase == "prepare":
                    one.task.cancel()

    def _take_on(self, order: Order) -> None:
        """Begins an order, or lets it wait for the end of another one of its app; the latest of those that wait."""
        try:
            self._check_time(order)
        except OrderRefused as refused:
            self._teller.end(order, "release.refused", "warning", f"refused: {refused}", None, reason=refused.reason)
            return
        if order.app.name not in self._under:
            self._begin(order)
            return
        if (waits := self._next.get(order.app.name)) is not None and waits.id != order.id:
            text = "refused: another order for it is under way, and a later one waits"
            self._teller.end(waits, "release.refused", "warning", text, None, reason="busy")
        self._next[order.app.name] = order

    def _begin(self, order: Order) -> None:
        is_cut = order.id in self._records.orders
        try:
            self._check(order)
            self._note(order)
            self._records.save()
        except OrderRefused as refused:
            self._unobserve(order.app.name)
            self._teller.end(order, "release.refused", "warning", f"refused: {refused}", None, reason=refused.reason)
            return
        except OSError as error:
            self._unobserve(order.app.name)
            text = f"failed: what this host remembers of releases cannot be written: {error.strerror}"
            self._teller.end(order, "release.failed", "warning", text, None)
            return
        task = asyncio.ensure_future(self._answer(order, is_cut=is_cut))
        self._under[order.app.name] = _Under(order, task)

    def _note(self, order: Order) -> None:
        """Remembers what is begun; what was cut off of this app before is not gone on with any more."""
        orders, name = self._records.orders, order.app.name
        for id_ in [id_ for id_, one in self._records.cut() if one.app == name and id_ != order.id]:
            del orders[id_]
        record = orders.setdefault(order.id, OrderRecord(order.phase, name, order.release))
        record.folder, record.services = order.app.folder, services_of(order.app)

    def _check_time(self, order: Order) -> None:
        now_us = self._clock.now_us()
        if order.host != self._host:
            raise OrderRefused("foreign", f"it is for the host {order.host}, and this is {self._host}")
        if now_us >= order.expires_us or order.issued_us > now_us + AHEAD_US:
            raise OrderRefused(
                "expired", "it is not good at this time by the clock of this host; do the clocks differ?"
            )

    def _check(self, order: Order) -> None:
        app = order.app
        if self._stop_file.exists():
            raise OrderRefused("killed", f"acting is stopped on this host by {self._stop_file}")
        if refused := self._rules(app).refusal(app):
            raise OrderRefused("policy", refused)

    def _rules(self, app: App) -> AppRules:
        """What the host lets be done with an app; raises OrderRefused."""
        try:
            policy = load_policy(self._policy_file)
        except PolicyError as error:
            raise OrderRefused("policy", f"the policy of this host cannot be used: {error}") from None
        if policy.stop:
            raise OrderRefused("killed", f"acting is stopped on this host by {self._policy_file}")
        if app.name not in policy.apps:
            raise OrderRefused("policy", f"the policy of this host names no app {app.name} ([apps.{app.name}])")
        return policy.apps[app.name]

    async def _answer(self, order: Order, *, is_cut: bool) -> None:
        """Does the phase. However it ends, an event tells of it, unless the agent itself is being stopped."""
        name = order.app.name
        told = Log(
            [order.key, *order.secrets.values()],
            self._clock.now_us,
            lambda at_us, line: self._send(
                {"log": {"order": order.id, "deploy": order.deploy, "line": line, "ts_us": at_us}}
            ),
        )
        is_prepared = False
        try:
            if order.phase == "prepare":
                await self._prepare(order, told)
                is_prepared = True
            elif order.phase == "switch":
                await self._switch(order, told, is_cut=is_cut)
            else:
                await self._roll_back(order, told, is_cut=is_cut)
        except ReleaseFailed as failed:
            of = {"commit": failed.commit} if failed.commit else None
            self._teller.end(
                order, "release.failed", "warning", f"failed at {failed.step}: {failed}", told, of=of, step=failed.step
            )
        except OrderRefused as refused:
            self._teller.end(order, "release.refused", "warning", f"refused: {refused}", told, reason=refused.reason)
        except (ActFailed, RunnerTrouble, OSError) as error:
            self._teller.end(order, "release.failed", "warning", f"failed: {error}", told)
        except asyncio.CancelledError:
            if order.phase == "prepare":
                self._teller.end(order, "release.failed", "warning", "was cancelled", told, reason="cancelled")
            raise
        except Exception as defect:
            log.exception("a defect in the %s of %s", order.phase, name)
            self._teller.end(
                order, "release.failed", "warning", f"failed: the agent met a defect: {defect!r:.200}", told
            )
        finally:
            self._under.pop(name, None)
            if not is_prepared:
                self._unobserve(name)
            if not self._is_stopping and (follows := self._next.pop(name, None)) is not None:
                self._begin(follows)

    # Phases.

    async def _prepare(self, order: Order, told: Log) -> None:
        app, record = order.app, self._records.app(order.app.name)
        self._observe(order).see_as(self._as_of(app, record.serving))
        kinds = {service.name: service.kind for service in self._services.values() if service.stopped_event is None}
        of_app = {one.service for one in app.web} | {one.service for one in app.jobs}
        record.ran = sorted({*record.ran, *(of_app & kinds.keys())})
        preparation = Preparation(
            order, self._runner(app.name, told), known=record.commits, kinds=kinds, venvs=self._venvs(app), say=told.say,
            bad={} if order.force else record.bad, stepped=self._stepper(told),
        )  # fmt: skip
        began = time.monotonic()
        prepared = await preparation.run()
        record.commits[prepared.release] = prepared.commit.id
        if (found := prepared.found) is not None:
            record.serving = found.release
            record.commits |= {found.release: found.commit} if found.commit else {}
        if prepared.own:
            record.own[prepared.release] = dict(prepared.own)
        took_s = time.monotonic() - began
        commit = prepared.commit
        text = (
            f"is built, checked and booted beside what serves, after {took_s:.1f} s: release {prepared.release}, "
            f"commit {commit.id[:COMMIT_CHARS]} by {commit.author}: {commit.subject}"
        )
        text = "; ".join([text, *prepared.notes])
        within_s = longest_switch_s(self._as_of(app, prepared.release))
        self._teller.end(
            order,
            "release.prepared",
            "info",
            text,
            told,
            of=facts_of(prepared),
            took_s=round(took_s, 2),
            switch_s=within_s,
        )

    async def _switch(self, order: Order, told: Log, *, is_cut: bool) -> None:
        app, record = order.app, self._records.app(order.app.name)
        if order.release not in releases_of(Layout(app.folder)):
            raise ReleaseFailed("switch", f"there is no release {order.release} in {app.folder}")
        observer = self._observe(order)
        before: dict[str, Seen] = {} if is_cut else observer.turn()
        switch = self._switcher(order, told, is_cut=is_cut)
        known = self._records.orders[order.id]
        if known.goes_back:
            await self._take_back(order, told, switch, Verdict("worse", (known.goes_back,), ()), order.cause)
            return
        order = replace(order, app=self._as_of(app, order.release))
        app = order.app
        await self._migrate("before", order, told)
        now_us = self._clock.now_us()
        usual = {one.service: self._deaths.lately(one.service, now_us, HOUR_US) for one in app.web}
        record.usual = usual | {one.service: self._deaths.lately(one.service, now_us, HOUR_US) for one in app.jobs}
        record.switched_us = now_us
        began = time.monotonic()
        self._note_before(known, switch, order.release)
        done = await switch.to(order.release, before=known.before)
        if done.before and done.before != order.release:
            record.before = done.before
        record.serving = order.release
        gone = done.gone(record.ran)
        record.ran = sorted({*record.ran, *(name for name, way in done.ways.items() if way != "none")})
        self._records.save()
        switched = self._teller.switched(order, done, time.monotonic() - began)
        await self._migrate("after", order, told)
        observer.see_as(app)
        observer.turn()
        if not done.is_seen:
            await self._keep_unseen(order, told, switched, gone)
            return
        verdict = await self._watch(order, observer, before)
        if verdict.state == "worse":
            await self._take_back(order, told, switch, verdict, switched)
            return
        await self._keep(order, told, verdict, switched, gone)

    def _note_before(self, known: OrderRecord, switch: Switch, to: str) -> None:
        """Remembers what served before the link changes: an order that is cut off in the middle goes on with that."""
        current, recorded = switch.current or "", self._records.app(known.app).serving
        known.release, known.before = to, known.before or (current if current != to else recorded)
        self._records.save()

    async def _watch(self, order: Order, observer: Observer, before: Mapping[str, Seen]) -> Verdict:
        """Judges once a second, and ends early only for what is worse."""
        watch, began = order.app.watch, time.monotonic()
        while True:
            if self._under[order.app.name].is_cancelled:
                return Verdict("worse", ("it was cancelled",), ())
            is_over = time.monotonic() - began >= watch.for_s
            verdicts = []
            for name, after in observer.seen.items():
                verdicts.append(judge(before.get(name), after, watch, is_over=is_over))
            reasons = tuple(reason for one in verdicts for reason in one.reasons)
            compared = tuple(said for one in verdicts for said in one.compared)
            if reasons:
                return Verdict("worse", reasons, compared)
            if is_over:
                known = any(one.state == "same" for one in verdicts)
                return Verdict("same" if known else "unknown", (), compared)
            await asyncio.sleep(1.0)

    async def _take_back(self, order: Order, told: Log, switch: Switch, verdict: Verdict, cause: str) -> None:
        record, why = self._records.app(order.app.name), "; ".join(verdict.reasons)
        told.say(f"worse than the release before: {why}")
        commit = record.commits.get(order.release, order.release)
        if not self._under[order.app.name].is_cancelled:
            record.bad[commit] = told.clean(why)[:MOST_WHY_CHARS]
        self._records.orders[order.id].goes_back = told.clean(why)
        self._records.save()
        if not record.before:
            text = f"is worse than it may be ({why}), and there is no release to go back to: {order.release} goes on serving"
            self._teller.end(order, "release.failed", "critical", text, told, step="watch", cause=cause)
            return
        began = time.monotonic()
        done = await switch.to(record.before, before=order.release, is_back=True)
        took_s = time.monotonic() - began
        record.serving, record.before = record.before, ""
        back = (
            f"{record.serving} answers all requests again {done.web_s:.1f} s after that was seen{later(done, took_s)}"
            if done.is_seen
            else f"{record.serving} is current again, and nothing that runs it is seen"
        )
        back += not_seen(done.gone(record.ran)) if done.is_seen else ""
        text = f"was worse and is taken back: {why}. {back}"
        text += f"; commit {commit[:COMMIT_CHARS]} is remembered as bad" if commit in record.bad else ""
        self._teller.end(
            order, "release.rolled_back", "warning" if done.is_seen else "critical", text, told, *evidence_of(verdict),
            cause=cause, took_s=round(took_s, 2), web_s=round(done.web_s, 2), commit=commit, ways=ways_of(done),
            seen=done.is_seen,
        )  # fmt: skip

    async def _keep(self, order: Order, told: Log, verdict: Verdict, cause: str, gone: Sequence[str]) -> None:
        text = f"serves, and in {order.app.watch.for_s:g} s of watching no change for the worse was found"
        if verdict.state == "unknown":
            text = f"serves, and in {order.app.watch.for_s:g} s of watching nothing could be measured"
        await self._end_kept(order, told, verdict, text + not_seen(gone), cause, seen=True, is_wrong=bool(gone))

    async def _keep_unseen(self, order: Order, told: Log, cause: str, gone: Sequence[str]) -> None:
        text = f"is current, and nothing that runs it is seen, so nothing was watched{not_seen(gone)}"
        await self._end_kept(order, told, Verdict("unknown", (), ()), text, cause, seen=False, is_wrong=bool(gone))

    async def _end_kept(
        self, order: Order, told: Log, verdict: Verdict, text: str, cause: str, *, seen: bool, is_wrong: bool
    ) -> None:  # fmt: skip
        app, record = order.app, self._records.app(order.app.name)
        kept = {record.serving, record.before}
        try:
            await tidy(Layout(app.folder), self._runner(app.name, told), keep=app.keep, besides=kept, say=told.say)
        except RunnerTrouble as trouble:
            told.say(f"old releases could not be removed: {trouble}")
        there = releases_of(Layout(app.folder))
        record.own = {name: own for name, own in record.own.items() if name in there}
        commit = record.commits.get(order.release, "")
        record.bad.pop(commit, None)
        self._teller.end(
            order, "release.kept", "warning" if is_wrong else "info", text, told, *evidence_of(verdict), cause=cause,
            verdict=verdict.state, commit=commit, seen=seen,
        )  # fmt: skip

    async def _roll_back(self, order: Order, told: Log, *, is_cut: bool) -> None:
        app, record, known = order.app, self._records.app(order.app.name), self._records.orders[order.id]
        target, layout = order.release or known.release or record.before, Layout(app.folder)
        if not target or target not in (*releases_of(layout), *foreign_of(layout)):
            raise ReleaseFailed("rollback", f"there is no release {target or 'before this one'} to go back to")
        switch = self._switcher(order, told, is_cut=is_cut)
        began = time.monotonic()
        self._note_before(known, switch, target)
        done = await switch.to(target, before=known.before, is_back=True)
        took_s = time.monotonic() - began
        record.before, record.serving = known.before, target
        gone = done.gone(record.ran)
        text = f"serves {target} again instead of {known.before}, after {took_s:.1f} s, as it was asked to"
        if not done.is_seen:
            text = f"made {target} current again instead of {known.before}, as it was asked to; nothing that runs it is seen"
        commit: dict[str, Scalar] = {"commit": record.commits[target]} if target in record.commits else {}
        self._teller.end(
            order, "release.rolled_back", "warning" if gone else "info", text + not_seen(gone), told, of=commit, took_s=round(took_s, 2), ways=ways_of(done), seen=done.is_seen,
        )  # fmt: skip

    def _as_of(self, app: App, release: str) -> App:
        """The app as one of its releases has it, where the server says nothing."""
        try:
            return merged(app, self._records.app(app.name).own.get(release, {}))
        except WireError as error:
            log.warning(
                "what %s of %s says does not fit the app any more and does not count: %s", app.own_file, release, error
            )
            return app

    async def _migrate(self, when: When, order: Order, told: Log) -> None:
        """Migrates if it is time to. What was cut off in the middle is run again: only its own end is known."""
        migrate, app, known = order.app.migrate, order.app, self._records.orders[order.id]
        if not order.migrates or migrate is None or migrate.when != when or known.has_migrated:
            return
        folder = Layout(app.folder).release(order.release)
        environment = build_environment(app, Layout(app.folder), order.release, order.secrets)
        own = f"{folder}/venv/bin/{migrate.command[0]}"
        argv = (own, *migrate.command[1:]) if "/" not in migrate.command[0] and is_there(own) else migrate.command
        told.say(f"$ {' '.join(migrate.command)}")
        runner = self._runner(app.name, told)
        done = await runner.run(argv, folder, environment, seconds=migrate.within_s, on_line=told.say)
        if done.code != 0:
            last = next((line for line in reversed(done.last) if line.strip()), "it said nothing")
            raise ReleaseFailed("migrate", f"{' '.join(migrate.command)} did not succeed: {last[:MOST_WHY_CHARS]}")
        known.has_migrated = True
        self._records.save()

    # What is seen.

    def _observe(self, order: Order) -> Observer:
        name = order.app.name
        if name not in self._observers:
            self._observers[name] = Observer(order.app, self._procfs, self._services)
            self._looks[name] = asyncio.ensure_future(self._observers[name].look())
        return self._observers[name]

    def _unobserve(self, name: str) -> None:
        self._observers.pop(name, None)
        if (look := self._looks.pop(name, None)) is not None:
            look.cancel()

    # What it is done with.

    def _venvs(self, app: App) -> tuple[str, ...]:
        """The virtual environments that the app's services run from."""
        views = [self._performer.view(web.service, None) for web in app.web]
        return tuple(venv for view in views if view is not None and (venv := venv_of(view.argv)))

    def _runner(self, app: str, told: Log) -> Runner:
        return Runner(self._runner_socket, app, clean=told.clean)

    def _switcher(self, order: Order, told: Log, *, is_cut: bool) -> Switch:
        """Raises OrderRefused when the policy has changed under the order."""
        return Switch(
            order, self._runner(order.app.name, told), self._performer, supervisor=self._rules(order.app).supervisor,
            say=told.say, stepped=self._stepper(told), is_cut=is_cut, as_of=self._as_of,
        )  # fmt: skip

    def _stepper(self, told: Log) -> Callable[[str, float], None]:
        return lambda step, seconds: told.say(f"── {step}: done in {seconds:.2f} s")
