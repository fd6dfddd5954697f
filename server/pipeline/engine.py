"""Decides what follows in deploys: one at a time for an app, every host built before one switches, the first a barrier. Pure.

What a host was ordered is sent again, under the same id, whenever it can be reached and nothing is known of the end: a
restart of either side loses nothing and does nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from agent.wire import MAX_TEXT_CHARS, Event, Evidence, Scalar, Severity, serial_id
from agent.wire.app import LONGEST_S, longest_prepare_s, longest_switch_s
from agent.wire.order import Phase
from server.pipeline.deploys import (
    AT_WORK,
    CATCHING_UP,
    OVER,
    Answer,
    Cancelled,
    Deploy,
    Entry,
    Heard,
    Held,
    Input,
    Outcome,
    Part,
    PartState,
    Present,
    Push,
    Stage,
    State,
    Wanted,
    named_on,
)
from server.pipeline.site import Site
from server.pipeline.telling import because, deploy_object, deploy_subject, left_out, what_serves, where_it_is

SECOND_US = 1_000_000
SLACK_US = 300 * SECOND_US
"""How much longer than its app allows a phase may take."""

MOST_KEPT = 200
"""Deploys that are over and remembered."""

_GOOD: Mapping[str, PartState] = {
    "release.prepared": "prepared",
    "release.kept": "kept",
}


class Rejected(ValueError):
    """What somebody asks for cannot be; the text is a sentence's end."""


def step(state: State, sites: Mapping[str, Site], given: Input, now_us: int) -> Answer:
    """What follows from one input. Raises Rejected for what somebody asks in vain."""
    turn = _Turn(state, sites, now_us)
    if isinstance(given, Push):
        turn.push(given)
    elif isinstance(given, Heard):
        turn.heard(given.host, given.event)
    elif isinstance(given, Present):
        turn.present_is(given.host, is_there=given.is_there)
    elif isinstance(given, Cancelled):
        turn.cancel(given)
    elif isinstance(given, Held):
        turn.held(given)
    turn.go_on()
    return turn.answer()


def outstanding(state: State, host: str) -> tuple[Wanted, ...]:
    """Orders of a host of whose end nothing is known, to be sent again when it can be reached."""
    found = []
    for deploy in state.deploys.values():
        for part in deploy.parts:
            if not deploy.is_over and part.host == host and part.state in AT_WORK:
                found.append(_wanted(deploy, part))
    return tuple(found)


class _Turn:
    """Mutable for the length of one input."""

    def __init__(self, state: State, sites: Mapping[str, Site], now_us: int) -> None:
        self._state = state
        self._sites = sites
        self._now_us = now_us
        self._serial = state.serial
        self._deploys = dict(state.deploys)
        self._holds = dict(state.holds)
        self._present = state.present
        self._gone_us = dict(state.gone_us)
        self._orders: list[Wanted] = []
        self._entries: list[Entry] = []

    def answer(self) -> Answer:
        over = [one.id for one in self._deploys.values() if one.is_over]
        for id_ in over[: max(len(over) - MOST_KEPT, 0)]:
            del self._deploys[id_]
        state = replace(
            self._state,
            serial=self._serial,
            deploys=self._deploys,
            holds=self._holds,
            present=self._present,
            gone_us=self._gone_us,
        )
        return Answer(state, tuple(self._orders), tuple(self._entries))

    # What comes in.

    def push(self, push: Push) -> None:
        site = self._sites.get(push.app)
        if site is None:
            raise Rejected(f"there is no app {push.app}")
        unknown = [host for host in push.hosts if host not in site.hosts]
        if unknown:
            raise Rejected(f"{push.app} is not served by {', '.join(unknown)}; its hosts are {', '.join(site.hosts)}")
        hosts = push.hosts or site.hosts
        for waiting in [one for one in self._deploys.values() if one.app == push.app and one.stage == "queued"]:
            if {part.host for part in waiting.parts} <= set(hosts):
                self._finish(waiting, "cancelled", f"was overtaken by a later push of {push.ref}")
        deploy = Deploy(
            id=self._new_id(),
            app=push.app,
            ref=push.ref,
            who=push.who,
            why=push.why,
            at_us=self._now_us,
            force=push.force,
            is_rollback=push.is_rollback,
            cause=push.cause,
            parts=tuple(Part(host) for host in hosts),
        )
        self._put(deploy)
        if why := self._in_the_way(deploy) or self._awaited(deploy.first.host, site):
            text = f"{deploy_subject(deploy)} waits: {why}."
            deploy = replace(deploy, cause=self._tell("deploy.queued", "info", text, deploy))
            self._put(deploy)

    def heard(self, host: str, event: Event) -> None:
        deploy = self._deploys.get(str(event.attrs.get("deploy", "")))
        part = None if deploy is None else deploy.part(str(event.attrs.get("order", "")))
        if (
            deploy is None
            or part is None
            or deploy.is_over
            or part.host != host
            or part.state not in (*AT_WORK, "away")
        ):
            return
        release = str(event.attrs.get("release", "")) or part.release
        commit, serves = (str(event.attrs.get(name, "")) for name in ("commit", "serves"))
        part = replace(
            part, release=release, said=event.text, commit=commit or part.commit, serves=serves or part.serves
        )
        if isinstance(within_s := event.attrs.get("switch_s"), int | float):
            part = replace(part, switch_s=min(float(within_s), float(LONGEST_S)))
        part = replace(part, is_unseen=event.attrs.get("seen", not part.is_unseen) is False)
        if event.kind == "release.switched":
            self._put(deploy.with_part(replace(part, has_switched=True)))
            return
        if event.kind not in (
            "release.prepared",
            "release.kept",
            "release.failed",
            "release.refused",
            "release.rolled_back",
        ):
            return
        is_back = event.kind == "release.rolled_back"
        after: PartState = _GOOD.get(event.kind, "failed")
        if part.state == "going_back" or (is_back and deploy.is_rollback):
            after = ("kept" if deploy.is_rollback else "went_back") if is_back else "failed"
        has_switched = after == "kept" and not is_back
        part = replace(part, state=after, order="", ended_by=event.kind, has_switched=has_switched, is_unsure=False)
        self._put(deploy.with_part(part))

    def present_is(self, host: str, *, is_there: bool) -> None:
        self._present = self._present | {host} if is_there else self._present - {host}
        if is_there:
            self._gone_us.pop(host, None)
            self._orders += outstanding(replace(self._state, deploys=self._deploys), host)
            self._catch_up(host)
        else:
            self._gone_us.setdefault(host, self._now_us)

    def _catch_up(self, host: str) -> None:
        """A host that was away when its app was deployed, or left in the middle, gets what the others have."""
        for app, site in self._sites.items():
            found = [one for one in self._deploys.values() if one.app == app and one.part_of(host) is not None]
            mine = sorted(found, key=lambda one: one.at_us)
            if host not in site.hosts or not mine or not mine[-1].is_over:
                continue
            if missed := _missed(mine, host):
                commit, why = missed
                self.push(Push(app, commit, CATCHING_UP, why, hosts=(host,)))

    def cancel(self, given: Cancelled) -> None:
        deploy = self._deploys.get(given.deploy)
        if deploy is None or deploy.is_over:
            raise Rejected(f"no deploy {given.deploy:.60} is under way")
        if deploy.stage == "queued":
            self._finish(deploy, "cancelled", f"was cancelled by {given.who} before it began")
            return
        self._put(replace(deploy, cancelled_by=given.who))
        for part in deploy.parts:
            if part.state in ("preparing", "switching"):
                cancel = replace(_wanted(deploy, part), phase="cancel", release=part.order, id=self._new_id())
                self._orders.append(cancel)

    def held(self, given: Held) -> None:
        if given.app not in self._sites:
            raise Rejected(f"there is no app {given.app}")
        site = self._sites[given.app]
        if given.hold is None:
            if self._holds.pop(given.app, None) is not None:
                text = f"Deploys of {given.app} go on: {given.who} has ended the hold."
                self._tell_host("deploy.held", "info", text, site.hosts[0], {"app": given.app})
            return
        self._holds[given.app] = given.hold
        text = f"Deploys of {given.app} are held by {given.who}{because(given.hold.why)}."
        self._tell_host("deploy.held", "info", text, site.hosts[0], {"app": given.app})

    # What follows.

    def go_on(self) -> None:
        """Lets every deploy do what it can do now."""
        for app, hold in list(self._holds.items()):
            if hold.until_us and hold.until_us <= self._now_us:
                self.held(Held(app, "its end", None))
        for id_ in list(self._deploys):
            self._go_on(id_)

    def _go_on(self, id_: str) -> None:
        stages: Mapping[Stage, Callable[[Deploy, Site], None]] = {
            "queued": self._queued,
            "prepare": self._prepare,
            "first": self._first,
            "rest": self._rest,
            "back": self._back,
        }
        while not (deploy := self._deploys[id_]).is_over:
            site = self._sites.get(deploy.app)
            if site is None:
                self._finish(deploy, "failed", "has no app any more")
                return
            self._give_up(deploy, site)
            before = self._deploys[id_]
            stages[before.stage](before, site)
            if self._deploys[id_] == before:
                return

    def _in_the_way(self, deploy: Deploy) -> str:
        """Why a deploy may not begin now; empty if it may."""
        other = next((one for one in self._deploys.values() if one.app == deploy.app and _is_at_work(one)), None)
        if other is not None and other.id != deploy.id:
            return f"{other.who} deploys {other.ref} of it{because(other.why)}"
        hold = self._holds.get(deploy.app)
        if hold is not None and not deploy.is_rollback:
            return f"deploys of {deploy.app} are held by {hold.who}{because(hold.why)}"
        return ""

    def _queued(self, deploy: Deploy, site: Site) -> None:
        if self._in_the_way(deploy) or self._awaited(deploy.first.host, site):
            return
        there = [part.host for part in deploy.parts if part.host in self._present]
        if deploy.first.host not in there:
            why = f"was not begun: its first host {deploy.first.host} cannot be reached, and no other gets a release before it"
            self._begun(deploy)
            self._finish(self._deploys[deploy.id], "failed", why)
            return
        self._begun(deploy)

    def _begun(self, deploy: Deploy) -> None:
        verb = "roll back" if deploy.is_rollback else "deploy"
        hosts = ", ".join(part.host for part in deploy.parts)
        text = f"{deploy.who} began to {verb} {deploy.app} to {deploy.ref or 'the release before'} on {hosts}{because(deploy.why)}."
        cause = self._tell("deploy.started", "info", text, deploy)
        self._put(replace(deploy, stage="back" if deploy.is_rollback else "prepare", cause=cause))

    def _awaited(self, host: str, site: Site) -> str:
        """Why a host that cannot be reached now may come back in time; empty if it is there, or is away for good."""
        gone_us = self._gone_us.get(host)
        if host in self._present or gone_us is None or self._now_us - gone_us > site.patience_s * SECOND_US:
            return ""
        return f"{host} cannot be reached at the moment"

    def _prepare(self, deploy: Deploy, site: Site) -> None:
        """Every host that can be reached builds; none switches before all have."""
        waiting = [part for part in deploy.parts if part.state == "waiting"]
        if waiting and not deploy.cancelled_by:
            for part in waiting:
                self._send_or_miss(deploy.id, part, site, "prepare", "preparing")
            return
        if any(part.state in AT_WORK for part in deploy.parts):
            return
        failed = [part for part in deploy.parts if part.state == "failed"]
        if deploy.cancelled_by:
            self._finish(deploy, "cancelled", f"was cancelled by {deploy.cancelled_by} before anything was switched")
        elif failed or deploy.first.state != "prepared":
            said = failed[0].said if failed else f"{deploy.first.host} cannot be reached any more"
            self._finish(deploy, "failed", f"was not switched to anywhere: {said}")
        elif len({part.commit for part in deploy.parts if part.state == "prepared"}) > 1:
            self._finish(deploy, "failed", f"was not switched to: {deploy.ref} moved while hosts were fetching it")
        else:
            text = f"{deploy_subject(deploy)} is built everywhere that it goes to; {deploy.first.host} switches first."
            self._tell("deploy.step", "info", text, deploy)
            self._put(replace(deploy, stage="first"))

    def _first(self, deploy: Deploy, _site: Site) -> None:
        first = deploy.first
        if first.state == "prepared" and deploy.cancelled_by:
            self._finish(deploy, "cancelled", f"was cancelled by {deploy.cancelled_by} before anything was switched")
        elif first.state == "prepared":
            self._send(deploy.id, first, "switch", "switching", migrates=True)
        elif first.state == "kept":
            rest = [part.host for part in deploy.parts if part.state == "prepared"]
            if rest:
                text = f"{first.host} keeps {deploy_object(deploy)}; {', '.join(rest)} follow."
                self._tell("deploy.step", "info", text, deploy)
            self._put(replace(deploy, stage="rest"))
        elif first.state in OVER:
            self._finish(
                deploy,
                _outcome_of(deploy),
                f"did not stay on its first host: {first.said or f'{first.host} cannot be reached'}",
            )

    def _rest(self, deploy: Deploy, site: Site) -> None:
        failed = [part for part in deploy.parts if part.state == "failed"]
        at_work = [part for part in deploy.parts if part.state in AT_WORK]
        next_ones = [part for part in deploy.parts if part.state == "prepared"]
        if len(failed) >= site.stop_after or deploy.cancelled_by:
            if not at_work:
                self._stop(deploy, site, failed)
            return
        if next_ones:
            ready = [part for part in next_ones if not self._awaited(part.host, site)]
            for part in ready[: max(site.batch - len(at_work), 0)]:
                self._send_or_miss(deploy.id, part, site, "switch", "switching")
            return
        if not at_work:
            self._kept(deploy, failed)

    def _stop(self, deploy: Deploy, site: Site, failed: Sequence[Part]) -> None:
        """No host follows; those that have switched go back, if the app says so, so that all serve the same."""
        why = failed[0].said if failed else f"it was cancelled by {deploy.cancelled_by}"
        if site.on_failure == "rollback":
            text = f"{deploy_subject(deploy)} goes no further, and hosts that have it go back: {why}"
            self._tell("deploy.step", "warning", text, deploy)
            self._put(replace(deploy, stage="back", text=why))
            return
        have = where_it_is([part for part in deploy.parts if part.has_switched and not part.is_unsure])
        self._finish(deploy, _outcome_of(deploy), f"goes no further, and {have}: {why}")

    def _back(self, deploy: Deploy, site: Site) -> None:
        begin = [part for part in deploy.parts if part.state == ("waiting" if deploy.is_rollback else "kept")]
        if begin and not (deploy.is_rollback and deploy.cancelled_by):
            for part in begin:
                release = named_on(self._deploys.values(), deploy, part.host) if deploy.is_rollback else ""
                self._send_or_miss(deploy.id, replace(part, release=release), site, "rollback", "going_back")
            return
        if any(part.state in AT_WORK for part in deploy.parts):
            return
        if deploy.is_rollback:
            self._kept(deploy, [part for part in deploy.parts if part.state == "failed"])
            return
        outcome: Outcome = "cancelled" if deploy.cancelled_by else "rolled_back"
        self._finish(deploy, outcome, f"was taken back: {deploy.text}")

    def _kept(self, deploy: Deploy, failed: Sequence[Part]) -> None:
        kept = [part for part in deploy.parts if part.state == "kept"]
        away = [part.host for part in deploy.parts if part.state == "away"]
        text = where_it_is(kept)
        text += f"; {', '.join(away)} could not be reached and follow when they can" if away else ""
        text += f"; not on {', '.join(part.host for part in failed)}: {failed[0].said}" if failed else ""
        self._finish(deploy, "kept" if kept else "failed", text)

    def _give_up(self, deploy: Deploy, site: Site) -> None:
        """Hosts that cannot be reached, or take longer than they may, hold nobody up for ever."""
        for part in deploy.parts:
            if part.state not in AT_WORK:
                continue
            gone_us = self._gone_us.get(part.host)
            if gone_us is not None and self._now_us - max(gone_us, part.since_us) > site.patience_s * SECOND_US:
                self._mark_away(deploy.id, part)
            elif self._now_us - part.since_us > _longest_us(site, part):
                said = f"{part.host} did not come to an end in time."
                late = replace(part, state="failed", order="", said=said, is_unsure=part.state != "preparing")
                self._put(self._deploys[deploy.id].with_part(late))

    # The small change.

    def _mark_away(self, id_: str, part: Part) -> None:
        deploy = self._deploys[id_]
        was = f" in the middle of {part.state.replace('_', ' ')}" if part.state in AT_WORK else ""
        text = f"{part.host} cannot be reached{was}, so {deploy_object(deploy)} goes on without it."
        self._tell("deploy.step", "warning", text, deploy, host=part.host)
        is_unsure = part.state in ("switching", "going_back", "kept")
        self._put(deploy.with_part(replace(part, state="away", said=text, is_unsure=is_unsure)))

    def _send_or_miss(self, id_: str, part: Part, site: Site, phase: Phase, state: PartState) -> None:
        """Orders a host to do something; one that cannot be reached is waited for a while, and then gone on without."""
        if part.host in self._present:
            self._send(id_, part, phase, state)
        elif not self._awaited(part.host, site):
            self._mark_away(id_, part)

    def _send(self, id_: str, part: Part, phase: Phase, state: PartState, *, migrates: bool = False) -> None:
        deploy = self._deploys[id_]
        part = replace(part, state=state, order=self._new_id(), since_us=self._now_us)
        self._put(deploy.with_part(part))
        self._orders.append(replace(_wanted(deploy, part), phase=phase, migrates=migrates))

    def _finish(self, deploy: Deploy, outcome: Outcome, how: str) -> None:
        hosts_differ = what_serves(deploy)
        severity: Severity = "info" if outcome in ("kept", "cancelled") and not hosts_differ else "warning"
        how = " ".join([how if how.endswith(".") else f"{how}.", *([hosts_differ] if hosts_differ else [])])
        text = f"{deploy_subject(deploy)} {how}"
        mixed: dict[str, Scalar] = {"serves": hosts_differ} if hosts_differ else {}
        self._tell("deploy.finished", severity, text, deploy, {"outcome": outcome, **mixed})
        self._put(replace(deploy, stage="done", outcome=outcome, text=how, ended_us=self._now_us))
        for part in deploy.parts:
            if (part.state == "away" or part.is_unsure) and part.host in self._present:
                self._catch_up(part.host)

    def _put(self, deploy: Deploy) -> None:
        self._deploys[deploy.id] = deploy

    def _tell(
        self,
        kind: str,
        severity: Severity,
        text: str,
        deploy: Deploy,
        attrs: Mapping[str, Scalar] | None = None,
        *,
        host: str = "",
    ) -> str:
        named: dict[str, Scalar] = {"deploy": deploy.id, "app": deploy.app, "ref": deploy.ref, "who": deploy.who}
        commit = next((part.commit for part in deploy.parts if part.commit), "")
        named |= {"commit": commit} if commit else {}
        host = host or deploy.first.host
        return self._tell_host(kind, severity, text, host, {**named, **(attrs or {})}, cause=deploy.cause or None)

    def _tell_host(
        self,
        kind: str,
        severity: Severity,
        text: str,
        host: str,
        attrs: Mapping[str, Scalar],
        *,
        cause: str | None = None,
    ) -> str:
        event = Event(
            id=self._new_id(),
            ts_us=self._now_us,
            kind=kind,
            severity=severity,
            text=text[:MAX_TEXT_CHARS],
            cause=cause,
            evidence=(Evidence("pipeline", f"asked for by {attrs['who']}"),) if "who" in attrs else (),
            attrs=dict(attrs),
        )
        self._entries.append(Entry(host, event))
        return event.id

    def _new_id(self) -> str:
        self._serial += 1
        return serial_id(self._state.seed, self._serial, self._now_us)


def _wanted(deploy: Deploy, part: Part) -> Wanted:
    """The order that a host is at."""
    phases: Mapping[PartState, Phase] = {"preparing": "prepare", "switching": "switch", "going_back": "rollback"}
    return Wanted(
        id=part.order,
        deploy=deploy.id,
        app=deploy.app,
        ref=deploy.ref,
        host=part.host,
        phase=phases.get(part.state, "prepare"),
        cause=deploy.cause,
        release="" if part.state == "preparing" else part.release,
        migrates=part.state == "switching" and part.host == deploy.first.host,
        force=deploy.force,
    )


def _longest_us(site: Site, part: Part) -> int:
    """By what the app allows; of a release that is gone back to, the server does not know what its repository says."""
    app = site.app
    if part.state == "preparing":
        seconds = longest_prepare_s(app)
    elif part.state == "going_back" and app.own_file:
        seconds = float(LONGEST_S)
    else:
        seconds = max(longest_switch_s(app), part.switch_s)
    return int(seconds * SECOND_US) + SLACK_US


def _missed(deploys: Sequence[Deploy], host: str) -> tuple[str, str] | None:
    """The commit that a host of these deploys, oldest first, should serve and may not, and why; None if it does."""
    why = ""
    for deploy in reversed(deploys):
        part = deploy.part_of(host)
        assert part is not None
        if deploy.outcome == "kept":
            commit = next((one.commit for one in deploy.parts if one.state == "kept" and one.commit), "")
            why = why or (left_out(deploy, part) if part.state == "away" or part.is_unsure else "")
            return (commit, why) if commit and why else None
        why = why or (left_out(deploy, part) if part.is_unsure else "")
    return None


def _is_at_work(deploy: Deploy) -> bool:
    return deploy.stage not in ("queued", "done")


def _outcome_of(deploy: Deploy) -> Outcome:
    if deploy.cancelled_by:
        return "cancelled"
    return "rolled_back" if deploy.first.ended_by == "release.rolled_back" else "failed"
