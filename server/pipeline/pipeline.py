"""Carries the pipeline: what comes in goes to the engine, what it decides is written down, then sent and told."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import orjson

from agent.wire import Event, Order, event_to_json, uuid7
from server.commands import CommandHub
from server.errors import StoreError
from server.filters import EventFilter
from server.pipeline.deploys import (
    Answer,
    Deploy,
    Heard,
    Hold,
    Input,
    Present,
    State,
    Tick,
    Wanted,
    deploy_from_json,
    deploy_to_json,
)
from server.pipeline.engine import Rejected, step
from server.pipeline.forges import News, Status, news_of
from server.pipeline.logs import Logs
from server.pipeline.site import SECRET_NAME, STATUS_SECRET, Site, SiteError, read_site
from server.pipeline.statuses import Statuses, news_to_json
from server.pipeline.vault import Vault
from server.recorder import Recorder
from server.state import OutboxRow, PartRow
from server.state import State as Rows
from server.store.events import EventTable
from server.stored import StoredEvent

ORDER_LIFE_US = 300_000_000
MOST_NAMED = 20
TICK_S = 1.0
PAGE = 500
RETRY_S = 1.0
KINDS = frozenset(f"release.{one}" for one in ("prepared", "switched", "kept", "failed", "refused", "rolled_back"))

log = logging.getLogger(__name__)


@dataclass(slots=True)
class AppFile:
    """An app as it was given: the text of its file, who gave it and when (UTC, us)."""

    text: str
    by: str
    at_us: int
    site: Site


class Pipeline:
    """One for all apps."""

    def __init__(
        self, rows: Rows, events: EventTable, recorder: Recorder, hub: CommandHub, vault: Vault, *, public_url: str = ""
    ) -> None:
        self._rows = rows
        self._events = events
        self._recorder = recorder
        self._hub = hub
        self._vault = vault
        self.logs = Logs()
        self._statuses = Statuses(self._status_of, self._forget_status, public_url=public_url)
        self.apps: dict[str, AppFile] = {}
        self._secrets: dict[str, dict[str, str]] = {}
        self._state = State(seed=secrets.token_hex(16))
        self._place = 0
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> State:
        """What the engine knows now."""
        return self._state

    @property
    def sites(self) -> dict[str, Site]:
        """All apps by name."""
        return {name: one.site for name, one in self.apps.items()}

    # Its life.

    async def open(self) -> None:
        """Remembers. Raises StoreError."""
        parts: dict[str, dict[str, Any]] = {}
        for row in await asyncio.to_thread(self._rows.pipeline):
            parts.setdefault(row.part, {})[row.key] = orjson.loads(row.value or "null")
        for name, one in parts.get("app", {}).items():
            try:
                self.apps[name] = AppFile(one["text"], one["by"], one["at_us"], read_site(one["text"], f"{name}.yml"))
            except SiteError as error:
                log.error("the app %s cannot be used any more: %s", name, error)
        for key, token in parts.get("secret", {}).items():
            app, _, name = key.partition("/")
            self._secrets.setdefault(app, {})[name] = token
        lost = [key for key, token in parts.get("secret", {}).items() if self._vault.open(token) is None]
        if lost:
            log.error(
                "%d secrets cannot be opened by vault.key and count as not set (%s): put that file back from its backup and "
                "start again, or set them anew",
                len(lost),
                ", ".join(lost[:MOST_NAMED]),
            )
        for deploy_id, value in parts.get("status", {}).items():
            self._statuses.put(deploy_id, News(**value))
        one = parts.get("one", {})
        self._place = one["place"] if "place" in one else await self._events.last_arrival()
        self._state = State(
            seed=one.get("seed", self._state.seed),
            serial=one.get("serial", 0),
            deploys={id_: deploy_from_json(value) for id_, value in parts.get("deploy", {}).items()},
            holds={app: Hold(**value) for app, value in parts.get("hold", {}).items()},
        )
        now_us = _now_us()
        known = {host for site in self.sites.values() for host in site.hosts}
        known |= {part.host for one in self._state.deploys.values() if not one.is_over for part in one.parts}
        self._state = replace(self._state, gone_us=dict.fromkeys(known, now_us))
        for deploy in self._state.deploys.values():
            if not deploy.is_over:
                self.logs.begin(deploy.id)
        await self._save({}, [], seed=True)
        while True:
            found = await self._events.since(EventFilter(kinds=KINDS), arrival=self._place, limit=PAGE)
            for stored in found:
                await self._do(Heard(stored.host, stored.event), arrival=stored.arrival)
            if len(found) < PAGE:
                return

    async def run(self) -> None:
        """Lets time pass, and tells forges, until cancelled."""
        telling = asyncio.ensure_future(self._statuses.run())
        try:
            while True:
                await asyncio.sleep(TICK_S)
                if any(not one.is_over for one in self._state.deploys.values()) or self._state.holds:
                    await self._do(Tick())
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def close(self) -> None:
        """Lets what is being sent end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=RETRY_S)

    # What comes in.

    def take(self, events: Sequence[StoredEvent]) -> None:
        """These events have just become visible."""
        for stored in events:
            if stored.event.kind in KINDS and "deploy" in stored.event.attrs:
                self._spawn(self._do_quietly(Heard(stored.host, stored.event), arrival=stored.arrival))

    def said(self, host: str, line: Mapping[str, Any]) -> None:
        """One line of a log; a host has something to say of its own deploys only."""
        deploy = self.state.deploys.get(str(line.get("deploy", "")))
        if deploy is not None and any(part.host == host for part in deploy.parts):
            self.logs.add(host, line)

    async def connected(self, host: str) -> None:
        """A host's channel has opened."""
        await self._do_quietly(Present(host, is_there=True))

    def gone(self, host: str) -> None:
        """A host's channel has closed."""
        self._spawn(self._do_quietly(Present(host, is_there=False)))

    async def ask(self, given: Input) -> Answer:
        """What a person's input leads to, once that is written down. Raises Rejected and StoreError."""
        return await self._do(given)

    async def put_app(self, name: str, text: str, who: str, site: Site) -> None:
        """Takes an app on, or its new file. Raises StoreError."""
        one = {"text": text, "by": who, "at_us": _now_us()}
        await asyncio.to_thread(self._rows.save_pipeline, [PartRow("app", name, _text(one))])
        self.apps[name] = AppFile(text, who, one["at_us"], site)  # type: ignore[arg-type]

    async def drop_app(self, name: str) -> None:
        """Forgets an app and its secrets. Raises StoreError."""
        rows = [PartRow("app", name, None), PartRow("hold", name, None)]
        rows += [PartRow("secret", f"{name}/{one}", None) for one in self._secrets.get(name, {})]
        await asyncio.to_thread(self._rows.save_pipeline, rows)
        self.apps.pop(name, None)
        self._secrets.pop(name, None)

    async def put_secret(self, app: str, name: str, value: str | None) -> None:
        """Sets a secret, or (None) forgets it. Raises StoreError."""
        token = None if value is None else self._vault.close(value)
        row = PartRow("secret", f"{app}/{name}", None if token is None else _text(token))
        await asyncio.to_thread(self._rows.save_pipeline, [row])
        if token is None:
            self._secrets.get(app, {}).pop(name, None)
        else:
            self._secrets.setdefault(app, {})[name] = token

    def secret_names(self, app: str) -> list[str]:
        """Which secrets an app has. One that the vault's key does not open is none: its value is lost."""
        return sorted(name for name in self._secrets.get(app, {}) if self.secret(app, name) is not None)

    def secret(self, app: str, name: str) -> str | None:
        """A secret itself, for what the server does with it."""
        token = self._secrets.get(app, {}).get(name)
        return None if token is None else self._vault.open(token)

    # How it is decided, and what goes out.

    async def _do_quietly(self, given: Input, *, arrival: int = 0) -> None:
        while True:
            try:
                await self._do(given, arrival=arrival)
            except StoreError as error:
                log.error("deploys stand still, because what is decided cannot be written down: %s", error)
                await asyncio.sleep(RETRY_S)
                continue
            except Rejected as rejected:
                log.warning("nothing came of an input: %s", rejected)
            return

    async def _do(self, given: Input, *, arrival: int = 0) -> Answer:
        async with self._lock:
            answer = step(self._state, self.sites, given, _now_us())
            before, self._place = self._state, max(self._place, arrival)
            changed = {id_: deploy for id_, deploy in answer.state.deploys.items() if before.deploys.get(id_) != deploy}
            if changed or answer.entries or answer.state.holds != before.holds or arrival:
                gone = before.deploys.keys() - answer.state.deploys.keys()
                rows = [PartRow("deploy", id_, None) for id_ in gone]
                for app in before.holds.keys() | answer.state.holds.keys():
                    hold = answer.state.holds.get(app)
                    held = None if hold is None else _text({name: getattr(hold, name) for name in Hold.__slots__})
                    rows.append(PartRow("hold", app, held))
                news = {id_: one for id_, deploy in changed.items() if (one := self._news(before, deploy)) is not None}
                rows += [PartRow("status", id_, _text(news_to_json(one))) for id_, one in news.items()]
                outbox = [OutboxRow(one.event.id, one.host, _text(event_to_json(one.event))) for one in answer.entries]
                await self._save(changed, outbox, rows=rows, serial=answer.state.serial)
                for id_, one in news.items():
                    self._statuses.put(id_, one)
            self._state = answer.state
        for deploy in changed:
            self.logs.begin(deploy)
        if answer.entries:
            self._spawn(self._tell([StoredEvent(one.host, one.event) for one in answer.entries]))
        for wanted in answer.orders:
            self._spawn(self._send(wanted))
        return answer

    def _news(self, before: State, deploy: Deploy) -> News | None:
        """What the forge is to be told anew of a deploy."""
        news, old = news_of(deploy), before.deploys.get(deploy.id)
        was = None if old is None else news_of(old)
        is_same = news is None or (was is not None and (was.commit, was.state) == (news.commit, news.state))
        return None if is_same or not self._statuses.is_wanted(deploy.app) else news

    def _status_of(self, app: str) -> tuple[Status | None, str | None]:
        file = self.apps.get(app)
        return (None, None) if file is None else (file.site.status, self.secret(app, STATUS_SECRET))

    async def _forget_status(self, deploy: str) -> None:
        await asyncio.to_thread(self._rows.save_pipeline, [PartRow("status", deploy, None)])

    async def _save(
        self,
        changed: Mapping[str, Deploy],
        outbox: Iterable[OutboxRow],
        *,
        rows: Sequence[PartRow] = (),
        serial: int | None = None,
        seed: bool = False,
    ) -> None:
        written = [*rows, PartRow("one", "place", str(self._place))]
        written += [PartRow("deploy", id_, _text(deploy_to_json(one))) for id_, one in changed.items()]
        written += [] if serial is None else [PartRow("one", "serial", str(serial))]
        written += [PartRow("one", "seed", _text(self._state.seed))] if seed else []
        await asyncio.to_thread(self._rows.save_pipeline, written, list(outbox))

    async def _send(self, wanted: Wanted) -> None:
        """An order with the app as it is now. What cannot be sent now is sent when the host comes back."""
        file = self.apps.get(wanted.app)
        if file is None:
            return
        opened = {name: self.secret(wanted.app, name) for name in file.site.secrets}
        if missing := [name for name, value in opened.items() if value is None]:
            log.error("secrets of %s are missing: %s", wanted.app, ", ".join(missing))
            if wanted.phase == "prepare":
                self._spawn(self._do_quietly(Heard(wanted.host, _unprepared(wanted, missing))))
                return
        now_us = _now_us()
        order = Order(
            id=wanted.id,
            deploy=wanted.deploy,
            phase=wanted.phase,
            host=wanted.host,
            issued_us=now_us,
            expires_us=now_us + ORDER_LIFE_US,
            cause=wanted.cause or wanted.deploy,
            app=replace(file.site.app, ref=wanted.ref or file.site.app.ref),
            release=wanted.release,
            migrates=wanted.migrates,
            force=wanted.force,
            secrets={name: value for name, value in opened.items() if value is not None},
            key=self.secret(wanted.app, SECRET_NAME) or "",
        )
        await self._hub.send_order(wanted.host, order)

    async def _tell(self, entries: Sequence[StoredEvent]) -> None:
        """What fails here is in the outbox, which somebody else empties."""
        with suppress(StoreError):
            await self._recorder.record(entries)
            await asyncio.to_thread(self._rows.clear_outbox, [one.event.id for one in entries])

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _unprepared(wanted: Wanted, missing: Sequence[str]) -> Event:
    """What the host would answer to an order without all that the app wants; it is not sent."""
    now_us = _now_us()
    text = f"The prepare of {wanted.app} on {wanted.host} failed: secrets of it are not set: {', '.join(missing)}."
    attrs = {"order": wanted.id, "deploy": wanted.deploy}
    return Event(uuid7(now_us, secrets.randbits(62)), now_us, "release.failed", "warning", text, attrs=attrs)


def _text(value: object) -> str:
    return orjson.dumps(value).decode()


def _now_us() -> int:
    return time.time_ns() // 1000
