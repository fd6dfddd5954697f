"""POST /v1/hosts/{host}/act: an operator asks a host for one act; the outcome comes on the timeline."""

from __future__ import annotations

import secrets
import time
from typing import Any

from aiohttp import web

from agent.wire import (
    MAX_NAME_CHARS,
    Command,
    Event,
    Target,
    WireError,
    command_from_json,
    command_to_json,
    params_from_json,
    target_from_json,
    uuid7,
)
from server.body import read_json
from server.commands import CommandHub
from server.errors import ApiError, bad_request
from server.hosts import Hosts
from server.recorder import Recorder
from server.stored import StoredEvent
from server.timeline import json_answer

MAX_BODY_BYTES = 64 * 1024
LIFE_S, MOST_LIFE_S = 60, 600
_KEYS = ("action", "service", "params", "target", "dry_run", "expires_s")


class Acts:
    """Makes commands of what operators ask for."""

    def __init__(self, hub: CommandHub, hosts: Hosts, recorder: Recorder) -> None:
        self._hub = hub
        self._hosts = hosts
        self._recorder = recorder

    async def ask(self, request: web.Request) -> web.Response:
        """202 with the command's id; raises ApiError 400, 404 or 503."""
        host = request.match_info["host"]
        if host not in self._hosts.by_name:
            raise ApiError(404, "not_found", f"no host {host:.100} was ever heard")
        command, asked = _read(host, await read_json(request, limit=MAX_BODY_BYTES))
        await self._recorder.record([StoredEvent(host, asked)])
        sent = await self._hub.send(host, command)
        answer = {"command": command.id, "asked": asked.id, "sent": sent, "expires_us": command.expires_us}
        return json_answer(answer, status=202)


def _read(host: str, body: Any) -> tuple[Command, Event]:
    """The command and the event that tells who asked; raises ApiError 400."""
    if not isinstance(body, dict) or not set(body) <= set(_KEYS):
        raise bad_request(f"the body must be a JSON object with no other keys than {', '.join(_KEYS)}")
    life_s = body.get("expires_s", LIFE_S)
    if isinstance(life_s, bool) or not isinstance(life_s, int) or not 1 <= life_s <= MOST_LIFE_S:
        raise bad_request(f"expires_s must be a whole number from 1 to {MOST_LIFE_S}")
    now_us = time.time_ns() // 1000
    asked_id = uuid7(now_us, secrets.randbits(62))
    try:
        command = Command(
            id=uuid7(now_us, secrets.randbits(62)),
            issued_us=now_us,
            expires_us=now_us + life_s * 1_000_000,
            host=host,
            run=asked_id,
            step="by-hand",
            action=body.get("action", ""),
            params=params_from_json(body.get("params", {})),
            service=body.get("service"),
            target=target_from_json(body.get("target")),
            cause=asked_id,
            dry_run=body.get("dry_run", False),
        )
        command = command_from_json(command_to_json(command))
    except WireError as error:
        raise bad_request(f"the act cannot be asked for: {error}") from None
    return command, _asked(command)


def _asked(command: Command) -> Event:
    subject = command.service or command.host
    named = ", ".join(f"{name} {value}" for name, value in command.params.items())[:MAX_NAME_CHARS]
    where = f"{subject} ({command.host}{_pid(command.target)})"
    text = f"An operator asked for {command.action} on {where}."
    if command.dry_run:
        text = f"An operator asked what {command.action} on {where} would do."
    attrs: dict[str, Any] = {"command": command.id, "action": command.action, "params": named}
    return Event(command.cause, command.issued_us, "action.asked", "info", text, service=command.service, attrs=attrs)


def _pid(target: Target | None) -> str:
    return "" if target is None else f", pid {target.pid}"
