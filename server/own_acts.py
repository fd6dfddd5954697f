"""Acts that the server does itself for playbooks: telling people. What became of one comes back as an event."""

from __future__ import annotations

import secrets
import time

from agent.wire import MAX_TEXT_CHARS, Event, Evidence, Scalar, Severity, uuid7
from playbooks import Serve
from server.errors import StoreError
from server.notices import Notices
from server.pipeline.acts import DeployActs
from server.pipeline.engine import Rejected


class OwnActs:
    """Carries them out. Nothing here raises: what fails is told."""

    def __init__(self, notices: Notices, deploys: DeployActs) -> None:
        self._notices = notices
        self._deploys = deploys

    async def carry_out(self, serve: Serve) -> Event:
        """The outcome of one act."""
        began_ns = time.monotonic_ns()
        if serve.action != "notify":
            return await self._deploy(serve, began_ns)
        channel = str(serve.params.get("channel", ""))
        where = f"{serve.service} on {serve.host}" if serve.service else serve.host
        told, troubles = await self._notices.tell(f"Reflex: {where}", str(serve.params["text"]), channel)
        if troubles:
            return _outcome(serve, "action.failed", "warning", f"failed: {'; '.join(troubles)}")
        took_ms = round((time.monotonic_ns() - began_ns) / 1e6, 1)
        if not told:
            said = "reached nobody but this timeline: no channel is set up (docs/playbooks.md, Telling people)"
            said = f"{said}. It says: {serve.params['text']}"
            return _outcome(serve, "action.done", "info", said, took_ms=took_ms)
        return _outcome(
            serve, "action.done", "info", f"told {', '.join(told)}: {serve.params['text']}", took_ms=took_ms
        )

    async def _deploy(self, serve: Serve, began_ns: int) -> Event:
        """An act upon the app that a service belongs to."""
        service, why = serve.service or "", f"step {serve.step} of run {serve.run}"
        try:
            if serve.action == "deploy.hold":
                said = await self._deploys.hold(serve.host, service, int(serve.params.get("minutes", 60)), why)
            elif serve.action == "deploy.rollback":
                said = await self._deploys.roll_back(serve.host, service, why, serve.cause)
            else:
                text = "refused: the server has no such act"
                return _outcome(serve, "action.refused", "warning", text, reason="unknown_action")
        except (Rejected, StoreError) as trouble:
            return _outcome(serve, "action.failed", "warning", f"failed: {trouble}")
        took_ms = round((time.monotonic_ns() - began_ns) / 1e6, 1)
        return _outcome(serve, "action.done", "info", said, took_ms=took_ms)


def refused(serve: Serve, why: str) -> Event:
    """The outcome of an act that is not done."""
    return _outcome(serve, "action.refused", "warning", f"refused: {why}", reason="policy")


def _outcome(serve: Serve, kind: str, severity: Severity, said: str, **attrs: Scalar) -> Event:
    now_us = time.time_ns() // 1000
    where = f"{serve.service} ({serve.host})" if serve.service else serve.host
    text = f"{serve.action} for {where} {said}"
    return Event(
        id=uuid7(now_us, secrets.randbits(62)),
        ts_us=now_us,
        kind=kind,
        severity=severity,
        text=(text if text.endswith((".", "?", "!")) else f"{text}.")[:MAX_TEXT_CHARS],
        service=serve.service,
        cause=serve.cause,
        evidence=(Evidence("server", f"{serve.action}, step {serve.step} of run {serve.run}"),),
        attrs={"command": serve.id, "run": serve.run, "step": serve.step, "action": serve.action, **attrs},
    )
