"""The API of apps and their deploys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from aiohttp import web

from agent.wire import MAX_NAME_CHARS
from agent.wire.app import MOST_VARIABLE_CHARS, VARIABLE_NAME
from server.auth import WHO
from server.body import read_json
from server.errors import ApiError, bad_request
from server.pipeline.deploys import Cancelled, Deploy, Held, Hold, Input, Push, deploy_to_json
from server.pipeline.engine import Rejected
from server.pipeline.pipeline import AppFile, Pipeline
from server.pipeline.site import SECRET_NAME, Site, SiteError, read_site
from server.stored import rfc3339
from server.timeline import json_answer

MAX_BODY_BYTES = 256 * 1024
MOST_SHOWN = 100
LONGEST_HOLD_S = 30 * 24 * 3600
_HEADERS = {"Content-Type": "application/x-ndjson", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class DeployApi:
    """Answers requests about apps and deploys."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    # Apps.

    async def apps(self, _request: web.Request) -> web.Response:
        """GET /v1/apps."""
        return json_answer({"apps": [self._app(name, one) for name, one in sorted(self._pipeline.apps.items())]})

    async def app(self, request: web.Request) -> web.Response:
        """GET /v1/apps/{app}."""
        name, file = self._named(request)
        return json_answer({**self._app(name, file), "text": file.text})

    async def put_app(self, request: web.Request) -> web.Response:
        """PUT /v1/apps/{app}: takes it on, or its new file."""
        name = request.match_info["app"]
        text = await _text(request)
        site = await asyncio.to_thread(_site, text, f"{name}.yml")
        if site.app.name != name:
            raise bad_request(f"the file is that of {site.app.name}, and not of {name}")
        await self._pipeline.put_app(name, text, request[WHO], site)
        return json_answer(self._app(name, self._pipeline.apps[name]))

    async def drop_app(self, request: web.Request) -> web.Response:
        """DELETE /v1/apps/{app}: forgets it and its secrets; what serves goes on."""
        name, _ = self._named(request)
        if any(one.app == name and not one.is_over for one in self._pipeline.state.deploys.values()):
            raise ApiError(409, "busy", f"a deploy of {name} is under way")
        await self._pipeline.drop_app(name)
        return json_answer({"app": name})

    async def check(self, request: web.Request) -> web.Response:
        """POST /v1/apps/check: what is wrong with a file."""
        text = await _text(request)
        try:
            site = await asyncio.to_thread(read_site, text, "reflex.yml")
        except SiteError as error:
            problems = [{"line": one.line, "column": one.column, "text": one.text} for one in error.problems]
            return json_answer({"problems": problems})
        return json_answer({"problems": [], "app": site.app.name})

    async def put_secret(self, request: web.Request) -> web.Response:
        """PUT /v1/apps/{app}/secrets/{name}: sets it; nothing ever answers with its value."""
        app, _ = self._named(request)
        name, body = request.match_info["name"], await _object(request, ("value",))
        value = body.get("value")
        if not VARIABLE_NAME.fullmatch(name):
            raise bad_request(f"{name:.60} is no name of a secret; it is one of a variable, or {SECRET_NAME}")
        if not isinstance(value, str) or not 0 < len(value) <= MOST_VARIABLE_CHARS:
            raise bad_request(f"value must be a text of 1 to {MOST_VARIABLE_CHARS} characters")
        await self._pipeline.put_secret(app, name, value)
        return json_answer({"app": app, "secrets": self._pipeline.secret_names(app)})

    async def drop_secret(self, request: web.Request) -> web.Response:
        """DELETE /v1/apps/{app}/secrets/{name}."""
        app, _ = self._named(request)
        await self._pipeline.put_secret(app, request.match_info["name"], None)
        return json_answer({"app": app, "secrets": self._pipeline.secret_names(app)})

    async def hold(self, request: web.Request) -> web.Response:
        """PUT /v1/apps/{app}/hold: deploys of it wait, or go on."""
        app, _ = self._named(request)
        body = await _object(request, ("hold", "why", "for_s"))
        wants, why, for_s = body.get("hold"), body.get("why", ""), body.get("for_s", 0)
        if not isinstance(wants, bool) or not isinstance(why, str) or len(why) > MAX_NAME_CHARS:
            raise bad_request("hold must be true or false, and why a short text")
        if isinstance(for_s, bool) or not isinstance(for_s, int | float) or not 0 <= for_s <= LONGEST_HOLD_S:
            raise bad_request(f"for_s must be a number of seconds, {LONGEST_HOLD_S} at most; 0 is until it is lifted")
        now_us = time.time_ns() // 1000
        hold = Hold(request[WHO], why, now_us, now_us + int(for_s * 1e6) if for_s else 0) if wants else None
        await self._ask(Held(app, request[WHO], hold))
        return json_answer({"app": app, "hold": self._hold(app)})

    # Deploys.

    async def deploy(self, request: web.Request) -> web.Response:
        """POST /v1/apps/{app}/deploy."""
        app, file = self._named(request)
        body = await _object(request, ("ref", "why", "force", "hosts"))
        return await self.push(app, file, body, request[WHO])

    async def roll_back(self, request: web.Request) -> web.Response:
        """POST /v1/apps/{app}/rollback: to the release before, or to the one that is named."""
        app, _ = self._named(request)
        body = await _object(request, ("release", "why", "hosts"))
        push = Push(
            app, _short(body, "release"), request[WHO], _short(body, "why"), hosts=_hosts(body), is_rollback=True
        )
        return await self._begin(push)

    async def push(self, app: str, file: AppFile, body: Mapping[str, Any], who: str) -> web.Response:
        """A push by whomever; 202 with the deploy."""
        missing = sorted(set(file.site.secrets) - set(self._pipeline.secret_names(app)))
        if missing:
            raise ApiError(
                409,
                "secrets_missing",
                f"secrets of {app} are not set: {', '.join(missing)}; reflexctl app secret sets them",
            )
        force = body.get("force", False)
        if not isinstance(force, bool):
            raise bad_request("force must be true or false")
        ref = _short(body, "ref") or file.site.app.ref
        return await self._begin(Push(app, ref, who, _short(body, "why"), force, _hosts(body)))

    async def _begin(self, push: Push) -> web.Response:
        before = set(self._pipeline.state.deploys)
        await self._ask(push)
        begun = next(one for id_, one in self._pipeline.state.deploys.items() if id_ not in before)
        return json_answer({"deploy": _deploy(begun)}, status=202)

    async def deploys(self, request: web.Request) -> web.Response:
        """GET /v1/deploys?app=: the latest first."""
        app = request.query.get("app")
        found = [one for one in self._pipeline.state.deploys.values() if app in (None, one.app)]
        found.sort(key=lambda one: one.at_us, reverse=True)
        return json_answer({"deploys": [_deploy(one) for one in found[:MOST_SHOWN]]})

    async def one(self, request: web.Request) -> web.Response:
        """GET /v1/deploys/{id}."""
        return json_answer(_deploy(self._deploy_named(request)))

    async def cancel(self, request: web.Request) -> web.Response:
        """POST /v1/deploys/{id}/cancel."""
        deploy = self._deploy_named(request)
        await self._ask(Cancelled(deploy.id, request[WHO]))
        return json_answer(_deploy(self._pipeline.state.deploys[deploy.id]))

    async def log(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/deploys/{id}/log: lines of JSON; with `?follow=1` until the deploy is over."""
        deploy = self._deploy_named(request)
        if request.query.get("follow") != "1":
            whole = b"".join(orjson.dumps(one) + b"\n" for one in self._pipeline.logs.lines(deploy.id))
            return web.Response(body=whole, headers=_HEADERS)
        response = web.StreamResponse(headers=_HEADERS)
        await response.prepare(request)
        lines = self._pipeline.logs.follow(deploy.id)
        upcoming: asyncio.Task[dict[str, Any]] | None = None
        try:
            while True:
                upcoming = upcoming or asyncio.ensure_future(anext(lines))
                done, _ = await asyncio.wait([upcoming], timeout=1.0)
                if done:
                    await response.write(orjson.dumps(upcoming.result()) + b"\n")
                    upcoming = None
                elif self._pipeline.state.deploys.get(deploy.id, deploy).is_over:
                    return response
        except ConnectionError:
            return response
        finally:
            if upcoming is not None:
                upcoming.cancel()
            await asyncio.gather(*([upcoming] if upcoming else []), return_exceptions=True)
            await lines.aclose()

    # The small change.

    async def _ask(self, given: Input) -> None:
        try:
            await self._pipeline.ask(given)
        except Rejected as rejected:
            raise ApiError(409, "rejected", f"{rejected}") from None

    def _named(self, request: web.Request) -> tuple[str, AppFile]:
        name = request.match_info["app"]
        file = self._pipeline.apps.get(name)
        if file is None:
            raise ApiError(404, "not_found", f"there is no app {name:.100}; reflexctl app add takes one on")
        return name, file

    def _deploy_named(self, request: web.Request) -> Deploy:
        deploy = self._pipeline.state.deploys.get(request.match_info["id"])
        if deploy is None:
            raise ApiError(404, "not_found", f"no deploy {request.match_info['id']:.60} is known")
        return deploy

    def _app(self, name: str, file: AppFile) -> dict[str, Any]:
        deploys = [one for one in self._pipeline.state.deploys.values() if one.app == name]
        at_work = next((one for one in deploys if not one.is_over and one.stage != "queued"), None)
        return {
            "app": name,
            "hosts": list(file.site.hosts),
            "ref": file.site.app.ref,
            "repository": file.site.app.repository,
            "by": file.by,
            "since": rfc3339(file.at_us),
            "secrets": self._pipeline.secret_names(name),
            "secrets_missing": sorted(set(file.site.secrets) - set(self._pipeline.secret_names(name))),
            "lock": None
            if at_work is None
            else {"deploy": at_work.id, "who": at_work.who, "why": at_work.why, "since": rfc3339(at_work.at_us)},
            "hold": self._hold(name),
        }

    def _hold(self, app: str) -> dict[str, Any] | None:
        hold = self._pipeline.state.holds.get(app)
        if hold is None:
            return None
        until = rfc3339(hold.until_us) if hold.until_us else None
        return {"who": hold.who, "why": hold.why, "since": rfc3339(hold.since_us), "until": until}


def _deploy(deploy: Deploy) -> dict[str, Any]:
    plain = deploy_to_json(deploy)
    for name in ("at_us", "ended_us"):
        value = plain.pop(name)
        plain[name.removesuffix("_us")] = rfc3339(value) if value else None
    for part in plain["parts"]:
        since_us = part.pop("since_us")
        part["since"] = rfc3339(since_us) if since_us else None
    return plain


def _site(text: str, file: str) -> Site:
    try:
        return read_site(text, file)
    except SiteError as error:
        raise bad_request(str(error)) from None


async def _text(request: web.Request) -> str:
    body = await _object(request, ("text",))
    text = body.get("text")
    if not isinstance(text, str):
        raise bad_request("text must be the file")
    return text


async def _object(request: web.Request, keys: Sequence[str]) -> Mapping[str, Any]:
    body = await read_json(request, limit=MAX_BODY_BYTES)
    if not isinstance(body, dict) or not set(body) <= set(keys):
        raise bad_request(f"the body must be a JSON object with no other keys than {', '.join(keys)}")
    return body


def _short(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key, "")
    if not isinstance(value, str) or len(value) > MAX_NAME_CHARS or not (value.isprintable() or not value):
        raise bad_request(f"{key} must be a text of at most {MAX_NAME_CHARS} characters")
    return value


def _hosts(body: Mapping[str, Any]) -> tuple[str, ...]:
    value = body.get("hosts", [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise bad_request("hosts must be a list of names")
    return tuple(dict.fromkeys(value))
