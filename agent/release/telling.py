"""Tells what becomes of releases: sentences, events, and the outcome that whoever orders the same again is told."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence

from agent.clock import Clock
from agent.ids import new_event_id
from agent.naming import release_folder
from agent.procfs import ProcFs
from agent.release.gate import Verdict
from agent.release.layout import Layout
from agent.release.log import Log
from agent.release.prepare import Prepared
from agent.release.records import MOST_ORDERS, OrderRecord, Records
from agent.release.switched import Switched
from agent.release.tidy import serving
from agent.reporter import Reporter
from agent.service import Service
from agent.wire import MAX_TEXT_CHARS, Event, Evidence, Order, Scalar, Severity, event_from_json, event_to_json
from agent.wire.app import App

TOLD_EVERY_US = 10_000_000
"""How often an order that cannot be believed is told of, and the same outcome told again."""

MOST_COMPARED = 6
MOST_TOLD_COMMITS = 10
COMMIT_CHARS = 12

log = logging.getLogger(__name__)


class Teller:
    """Speaks for all releases of this host."""

    def __init__(
        self, host: str, procfs: ProcFs, services: Mapping[int, Service], reporter: Reporter, clock: Clock, records: Records
    ) -> None:  # fmt: skip
        """`services` are those of the host as they are now; outcomes are kept in `records`."""
        self._host = host
        self._procfs = procfs
        self._services = services
        self._reporter = reporter
        self._clock = clock
        self._records = records
        self._told_again: OrderedDict[str, int] = OrderedDict()

    def serves(self, folder: str, services: Collection[str]) -> str:
        """The release that these services run, with commas where they run several; what the link names where none runs."""
        return ", ".join(self.running(services)) or serving(Layout(folder)) or ""

    def running(self, services: Collection[str]) -> list[str]:
        """Releases that masters of these services have as their working folder now."""
        living = [s for s in self._services.values() if s.name in services and s.stopped_event is None]
        processes = [one for one in (self._procfs.process(s.master_pid) for s in living) if one is not None]
        return sorted({release for one in processes if (release := release_folder(one.folder)) is not None})

    def regressed(self, name: str, service: str, lately: int, death: Event) -> None:
        app = self._records.apps[name]
        text = (
            f"Release {app.serving} of {name} on {self._host} has turned bad: {lately} workers of {service} died of faults within "
            f"10 minutes, and {app.usual[service]} in the hour before it was switched to. The last one: {death.text}"
        )
        now_us = self._clock.now_us()
        commit = app.commits.get(app.serving, "")
        event = Event(
            id=new_event_id(now_us),
            ts_us=now_us,
            kind="release.regressed",
            severity="critical",
            text=text[:MAX_TEXT_CHARS],
            service=service,
            release=app.serving,
            cause=death.id,
            evidence=(
                Evidence("deaths", f"{lately} in 10 minutes, {app.usual[service]} in the hour before the switch"),
            ),
            attrs={"app": name, "release": app.serving, "before": app.before, "commit": commit},
        )
        self._reporter.events((event,))

    def again(self, id_: str, known: OrderRecord) -> None:
        """The same event: whoever has it already knows that by its id."""
        assert known.outcome is not None
        now_us = self._clock.now_us()
        if now_us - self._told_again.get(id_, 0) < TOLD_EVERY_US:
            return
        self._told_again[id_] = now_us
        if len(self._told_again) > MOST_ORDERS:
            self._told_again.popitem(last=False)
        self._reporter.events((event_from_json(known.outcome),))

    def switched(self, order: Order, done: Switched, took_s: float) -> str:
        ways = ", ".join(f"{service} by {way}" for service, way in done.ways.items())
        before = f" instead of {done.before}" if done.before else ""
        text = f"{order.app.name} on {self._host} serves release {order.release}{before}, after {took_s:.1f} s ({ways})"
        watched = f"It is watched for {order.app.watch.for_s:g} s."
        if not done.is_seen:
            text = f"Release {order.release} of {order.app.name} is current on {self._host}{before}"
            watched = "Nothing that runs it is seen, so nothing is watched."
        text = ". ".join(["; ".join([text, *done.notes]), watched])
        attrs: dict[str, Scalar] = {"before": done.before or "", "took_s": round(took_s, 2), "ways": ways_of(done)}
        attrs["serves"], attrs["seen"] = self.serves(order.app.folder, services_of(order.app)), done.is_seen
        return self.report("release.switched", "info", text, order, attrs)

    def end(
        self, order: Order, kind: str, severity: Severity, said: str, told: Log | None, *evidence: Evidence,
        cause: str | None = None, of: Mapping[str, Scalar] | None = None, **attrs: Scalar,
    ) -> None:  # fmt: skip
        """Tells the outcome, and keeps it for whoever orders the same again."""
        attrs |= of or {}
        attrs["serves"] = self.serves(order.app.folder, services_of(order.app))
        if told is not None:
            artifact = told.artifact(new_event_id(self._clock.now_us()))
            self._reporter.artifact(artifact)
            attrs["artifact"] = artifact.id
        clean = said if told is None else told.clean(said)
        text = f"The {order.phase} of {order.app.name} on {self._host} {clean}."
        if kind in ("release.kept", "release.prepared"):
            text = f"{order.app.name} on {self._host} {clean}." if kind == "release.prepared" else text
            text = (
                f"Release {order.release} of {order.app.name} on {self._host} {clean}."
                if kind == "release.kept"
                else text
            )
        elif kind == "release.rolled_back" and order.phase == "switch":
            text = f"Release {order.release} of {order.app.name} on {self._host} {clean}."
        record = self._records.orders.setdefault(order.id, OrderRecord(order.phase, order.app.name, order.release))
        evidence = evidence or (Evidence("release log", _proof(attrs)),)
        event = self._event(kind, severity, text, order, attrs, evidence, cause)
        record.outcome = event_to_json(event)
        try:
            self._records.save()
        except OSError as error:
            log.error("what this host remembers of releases cannot be written: %s", error.strerror)
        self._reporter.events((event,))

    def report(self, kind: str, severity: Severity, text: str, order: Order | None, attrs: Mapping[str, Scalar]) -> str:
        evidence = () if order is None else (Evidence("procfs", _proof(attrs)),)
        event = self._event(kind, severity, text, order, attrs, evidence, None)
        self._reporter.events((event,))
        return event.id

    def _event(
        self, kind: str, severity: Severity, text: str, order: Order | None, attrs: Mapping[str, Scalar],
        evidence: tuple[Evidence, ...], cause: str | None,
    ) -> Event:  # fmt: skip
        now_us, named = self._clock.now_us(), dict[str, Scalar]()
        if order is not None:
            named = {"order": order.id, "deploy": order.deploy, "phase": order.phase, "app": order.app.name}
            named |= {"release": order.release} if order.release else {}
        return Event(
            id=new_event_id(now_us),
            ts_us=now_us,
            kind=kind,
            severity=severity,
            text=text[:MAX_TEXT_CHARS],
            release=str(attrs.get("release", order.release if order is not None else "")) or None,
            cause=cause or (None if order is None else order.cause),
            evidence=evidence,
            attrs={**named, **attrs},
        )


def services_of(app: App) -> list[str]:
    """What says which release of an app serves: what answers requests, else its Celery nodes."""
    return [one.service for one in app.web] or [one.service for one in app.jobs]


def facts_of(prepared: Prepared) -> dict[str, Scalar]:
    """What a release is, as attributes."""
    commits = "\n".join(
        f"{one.id[:COMMIT_CHARS]} {one.author}: {one.subject}" for one in prepared.commits[:MOST_TOLD_COMMITS]
    )
    return {
        "release": prepared.release,
        "commit": prepared.commit.id,
        "author": prepared.commit.author,
        "subject": prepared.commit.subject,
        "commits": commits,
        "commits_count": len(prepared.commits),
    }


def _proof(attrs: Mapping[str, Scalar]) -> str:
    """What stands behind an event, in a few words: the commit, how each service changed, or the step that ended it."""
    known = (f"{name} {attrs[name]}" for name in ("commit", "ways", "step", "reason") if attrs.get(name))
    return ", ".join(known) or "what the programs of this phase said"


def not_seen(gone: Sequence[str]) -> str:
    """That services which were seen before are not seen now, as the end of a sentence; nothing where there are none."""
    if not gone:
        return ""
    has, which = ("have", "do not run") if len(gone) > 1 else ("has", "does not run")
    return f"; {', '.join(gone)}, which {has} been seen here before, {which}, or under another name (reflexctl hosts)"


def later(done: Switched, took_s: float) -> str:
    """When Celery had followed, where it took longer."""
    return f", Celery runs it after {took_s:.1f} s" if took_s > done.web_s + 1 else ""


def ways_of(done: Switched) -> str:
    return ", ".join(f"{service}: {way}" for service, way in done.ways.items())


def evidence_of(verdict: Verdict) -> tuple[Evidence, ...]:
    return tuple(Evidence("release gate", said) for said in (*verdict.reasons, *verdict.compared)[:MOST_COMPARED])
