"""The API of playbooks: what there is, what runs, and what people say to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiohttp import web

from agent.wire import MAX_NAME_CHARS, WorkerRef, event_to_json
from playbooks import Armed, Asked, Decided, Entry, PlaybookError, Problem, Run, Switched, read_playbook
from playbooks.model import HOUR_US, MODES, Mode, OnEvent, acts_of
from playbooks.replay import replay
from server.auth import WHO
from server.body import read_json
from server.brain import Brain
from server.errors import ApiError, bad_request
from server.filters import EventFilter, parse_time
from server.lender import Lender
from server.playbook_files import Book
from server.store.events import EventTable, Page
from server.stored import rfc3339
from server.timeline import json_answer

MAX_BODY_BYTES = 512 * 1024
MOST_REPLAYED = 200_000
REPLAY_PAGE = 2_000
GIVEN_BACK_WITHIN_S = 2.0
"""For so long an answer waits for hosts to say that they run something by themselves no more."""


class PlaybookApi:
    """Answers requests about playbooks."""

    def __init__(self, brain: Brain, events: EventTable, lender: Lender) -> None:
        self._brain = brain
        self._lender = lender
        self._events = events

    async def all(self, _request: web.Request) -> web.Response:
        """GET /v1/playbooks."""
        state, shelf = self._brain.state, self._brain.shelf
        return json_answer(
            {
                "stopped_by": state.killed or None,
                "playbooks": [self._summary(book) for _, book in sorted(shelf.books.items())],
                "broken": [
                    {"file": str(one.file), "in_use": one.in_use, "problems": _problems(one.problems)}
                    for one in shelf.broken
                ],
            }
        )

    async def one(self, request: web.Request) -> web.Response:
        """GET /v1/playbooks/{name}."""
        book = self._book(request)
        return json_answer({**self._summary(book), "text": book.text})

    async def set_mode(self, request: web.Request) -> web.Response:
        """PUT /v1/playbooks/{name}/mode."""
        book = self._book(request)
        body = await _object(request, ("mode",))
        mode = body.get("mode")
        if mode is not None and mode not in MODES:
            raise bad_request(f"mode must be {', '.join(MODES)}, or null for what the file says")
        entries = await self._brain.ask(Armed(book.playbook.name, mode, request[WHO]))
        not_reached = await self._lender.until_reached(GIVEN_BACK_WITHIN_S)
        return json_answer({**self._summary(book), "told": _told(entries), "hosts_not_reached": not_reached})

    async def run(self, request: web.Request) -> web.Response:
        """POST /v1/playbooks/{name}/run."""
        book = self._book(request)
        body = await _object(request, ("host", "service", "worker"))
        host, service = _name(body, "host"), body.get("service")
        if book.playbook.target == "service":
            service = _name(body, "service")
        entries = await self._brain.ask(
            Asked(book.playbook.name, host, service or "", request[WHO], _worker(body.get("worker")))
        )
        begun = next((one.event.id for one in entries if one.event.kind == "playbook.started"), None)
        if begun is None:
            why = next((one.event.text for one in entries), "nothing came of it")
            raise ApiError(409, "not_begun", why)
        return json_answer({"run": begun, "told": _told(entries)}, status=202)

    async def runs(self, _request: web.Request) -> web.Response:
        """GET /v1/runs: those under way."""
        own = [_run(run) for run in self._brain.state.runs.values()]
        return json_answer({"runs": [*own, *self._brain.runs_of_hosts()]})

    async def decide(self, request: web.Request) -> web.Response:
        """POST /v1/runs/{id}/approve and /reject."""
        run_id, approves = request.match_info["id"], request.match_info["decision"] == "approve"
        run = self._brain.state.runs.get(run_id)
        if run is None:
            raise ApiError(404, "not_found", f"no run {run_id:.60} is under way")
        if run.phase != "approval":
            raise ApiError(409, "not_waiting", f"run {run_id} of {run.playbook} does not wait for an approval")
        entries = await self._brain.ask(Decided(run_id, approves, request[WHO]))
        if not entries:
            raise ApiError(409, "not_waiting", f"run {run_id} does not wait for an approval any more")
        return json_answer({"run": run_id, "told": _told(entries)})

    async def stop(self, request: web.Request) -> web.Response:
        """PUT /v1/stop: the kill switch."""
        body = await _object(request, ("stop",))
        stop = body.get("stop")
        if not isinstance(stop, bool):
            raise bad_request('the body must be {"stop": true} or {"stop": false}')
        entries = await self._brain.ask(Switched(stop, request[WHO]))
        not_reached = await self._lender.until_reached(GIVEN_BACK_WITHIN_S)
        stopped_by = self._brain.state.killed or None
        return json_answer({"stopped_by": stopped_by, "told": _told(entries), "hosts_not_reached": not_reached})

    async def check(self, request: web.Request) -> web.Response:
        """POST /v1/playbooks/check: what is wrong with a text."""
        body = await _object(request, ("file", "text"))
        file, text = _file(body), body.get("text")
        if not isinstance(text, str):
            raise bad_request("text must be the playbook's text")
        try:
            playbook = await asyncio.to_thread(read_playbook, text, file)
        except PlaybookError as error:
            return json_answer({"file": file, "name": None, "problems": _problems(error.problems)})
        return json_answer({"file": file, "name": playbook.name, "problems": []})

    async def test(self, request: web.Request) -> web.Response:
        """POST /v1/playbooks/test: what a playbook would have done with what the timeline has."""
        body = await _object(request, ("file", "text", "name", "from", "to", "host", "service"))
        playbook = await self._tested(body)
        now_us = time.time_ns() // 1000
        from_us = parse_time("from", str(body.get("from") or "-1d"), now_us=now_us)
        to_us = parse_time("to", str(body["to"]), now_us=now_us) if body.get("to") else now_us
        hosts = frozenset({str(body["host"])}) if body.get("host") else frozenset[str]()
        services = frozenset({str(body["service"])}) if body.get("service") else frozenset[str]()
        if not from_us < to_us:
            raise bad_request("from must be before to")
        found, before, limited = [], None, False
        while True:
            page = await self._events.page(
                EventFilter(hosts=hosts, services=services), Page(from_us, to_us, before, REPLAY_PAGE)
            )
            found += page
            if len(page) < REPLAY_PAGE:
                break
            before = (page[-1].event.ts_us, page[-1].event.id)
            if len(found) >= MOST_REPLAYED:
                limited = True
                break
        found.reverse()
        happened = [(one.host, one.event) for one in found]
        result = await asyncio.to_thread(replay, playbook, happened, self._brain.kinds())
        return json_answer(
            {
                "playbook": playbook.name,
                "from": rfc3339(from_us),
                "to": rfc3339(to_us),
                "events": len(found),
                "limited": limited,
                "samples": any(not isinstance(one, OnEvent) for one in playbook.on),
                "would": _told(result),
            }
        )

    async def _tested(self, body: Mapping[str, Any]) -> Any:
        if isinstance(body.get("name"), str):
            book = self._brain.shelf.books.get(body["name"])
            if book is None:
                raise ApiError(404, "not_found", f"no playbook {body['name']:.80}")
            return book.playbook
        if not isinstance(body.get("text"), str):
            raise bad_request("either name or text must be given")
        try:
            return await asyncio.to_thread(read_playbook, body["text"], _file(body))
        except PlaybookError as error:
            raise bad_request(str(error)) from None

    def _book(self, request: web.Request) -> Book:
        name = request.match_info["name"]
        book = self._brain.shelf.books.get(name)
        if book is None:
            raise ApiError(404, "not_found", f"no playbook {name:.80}; GET /v1/playbooks lists them")
        return book

    def _summary(self, book: Book) -> dict[str, Any]:
        playbook, state = book.playbook, self._brain.state
        now_us = time.time_ns() // 1000
        mode: Mode = state.modes.get(playbook.name, playbook.mode)
        uses = [use for use in state.uses if use.playbook == playbook.name and now_us - use.at_us < HOUR_US]
        by_hosts = [at_us for _, name, _, at_us in self._brain.uses_of_hosts() if name == playbook.name]
        return {
            "name": playbook.name,
            "title": playbook.title,
            "mode": mode,
            "file_mode": playbook.mode,
            "own": book.is_own,
            "file": str(book.file),
            "target": playbook.target,
            "runs_on": playbook.runs_on,
            "priority": playbook.priority,
            "approval": playbook.approval_us is not None,
            "on": sorted({one.kind if isinstance(one, OnEvent) else one.metric for one in playbook.on}),
            "acts": list(dict.fromkeys(act.action for one in playbook.steps for act in acts_of(one))),
            "limits": {
                "cooldown_s": playbook.limits.cooldown_us // 1_000_000,
                "per_hour": playbook.limits.per_hour,
                "fleet_per_hour": playbook.limits.fleet_per_hour,
            },
            "acted_last_hour": sum(not use.is_shadow for use in uses)
            + sum(now_us - at_us < HOUR_US for at_us in by_hosts),
            "would_have_last_hour": sum(use.is_shadow for use in uses),
            "lent_to": {host: names[playbook.name] for host, names in state.lent.items() if playbook.name in names},
            "runs": [
                *(_run(run) for run in state.runs.values() if run.playbook == playbook.name),
                *(run for run in self._brain.runs_of_hosts() if run["playbook"] == playbook.name),
            ],
        }


def _run(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "playbook": run.playbook,
        "host": run.place.host,
        "service": run.place.service or None,
        "phase": run.phase,
        "begun": rfc3339(run.begun_us),
        "acted": run.acted,
        "joined": run.joined,
        "ran_on": "server",
    }


def _told(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    return [{**event_to_json(one.event), "ts": rfc3339(one.event.ts_us), "host": one.host} for one in entries]


def _problems(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    return [{"line": one.line, "column": one.column, "text": one.text} for one in problems]


async def _object(request: web.Request, keys: tuple[str, ...]) -> Mapping[str, Any]:
    body = await read_json(request, limit=MAX_BODY_BYTES)
    if not isinstance(body, dict) or not set(body) <= set(keys):
        raise bad_request(f"the body must be a JSON object with no other keys than {', '.join(keys)}")
    return body


def _name(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_CHARS:
        raise bad_request(f"{key} must be a name of 1 to {MAX_NAME_CHARS} characters")
    return value


def _file(body: Mapping[str, Any]) -> str:
    file = body.get("file", "playbook.yaml")
    if not isinstance(file, str) or not 0 < len(file) <= MAX_NAME_CHARS or not file.isprintable():
        raise bad_request("file must be a file's name")
    return file


def _worker(value: Any) -> WorkerRef | None:
    if value is None:
        return None
    try:
        return WorkerRef(
            int(value["slot"]), int(value.get("generation", 0)), int(value["pid"]), int(value["start_ticks"])
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise bad_request('worker must be {"slot", "pid", "start_ticks"}') from None
