"""POST /v1/hooks/{app}: a push, told by GitHub, GitLab, Gitea or anybody who signs; each with the secret `WEBHOOK` of the app."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from server.body import parse_json, read_body
from server.errors import ApiError, bad_request, try_later
from server.pipeline.api import DeployApi
from server.pipeline.pipeline import Pipeline
from server.secret import new_secret
from server.timeline import json_answer

SECRET = "WEBHOOK"
MAX_BODY_BYTES = 4 * 1024 * 1024
MOST_WHO = 80
MOST_FIELDS = 16
BODY_S = 30.0
REFUSE_S = 1.0
MOST_REFUSING = 64
_BRANCH = "refs/heads/"
_TAG = "refs/tags/"
_SIGNED_BY = ("X-Hub-Signature-256", "X-Gitea-Signature", "X-Forgejo-Signature", "X-Reflex-Signature")
"""Headers with HMAC-SHA256 of the body, in hex, with or without `sha256=`."""

_TOKEN = "X-Gitlab-Token"


class Hooks:
    """Believes who knows the secret, and begins a deploy when the branch of an app was pushed to.

    Who is not believed waits for the answer, and only so many can wait: guessing is slow, and keeps nobody else out.
    """

    def __init__(self, pipeline: Pipeline, api: DeployApi) -> None:
        self._pipeline = pipeline
        self._api = api
        self._nobodys = new_secret("session")
        self._refusing = 0

    async def receive(self, request: web.Request) -> web.Response:
        """202 with the deploy; 200 where there is nothing to do. An unknown app and a wrong signature look the same."""
        body = await _body(request)
        name = request.match_info["app"]
        file, secret = self._pipeline.apps.get(name), self._pipeline.secret(name, SECRET)
        is_right = is_believed(request.headers, body, secret or self._nobodys)
        if file is None or secret is None or not is_right:
            raise await self._not_believed()
        said = parse_json(_payload(request, body))
        if not isinstance(said, dict):
            raise bad_request("the body must be a JSON object")
        ref = str(said.get("ref", ""))
        pushed = ref.removeprefix(_BRANCH).removeprefix(_TAG)
        if not pushed or pushed != file.site.app.ref:
            why = f"{pushed} was pushed, and {file.site.app.ref} is deployed" if pushed else "this tells of no push"
            return json_answer({"deploy": None, "why": why})
        if said.get("deleted") is True or (str(said.get("after", "")).strip("0") == "" and "after" in said):
            return json_answer({"deploy": None, "why": f"{pushed} was deleted"})
        wanted = {"ref": pushed, "why": _why(said)}
        return await self._api.push(name, file, wanted, f"a push by {_who(said)}")

    async def _not_believed(self) -> ApiError:
        if self._refusing >= MOST_REFUSING:
            return try_later(429, "too_many_attempts", "too many wrong signatures at once", after_s=round(REFUSE_S))
        self._refusing += 1
        try:
            await asyncio.sleep(REFUSE_S)
        finally:
            self._refusing -= 1
        return ApiError(401, "not_believed", "the signature is wrong, or the app has no secret WEBHOOK")


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_S):
            return bytes(await read_body(request, limit=MAX_BODY_BYTES))
    except TimeoutError:
        raise ApiError(408, "too_slow", f"the body did not come within {BODY_S:g} s") from None


def _payload(request: web.Request, body: bytes) -> bytes:
    """The JSON itself: GitHub's webhooks send it inside of a form unless they are set to do otherwise."""
    if request.content_type != "application/x-www-form-urlencoded" or body.lstrip().startswith(b"{"):
        return body
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=MOST_FIELDS)
    except ValueError:
        raise bad_request("the form cannot be read") from None
    if len(found := fields.get("payload", [])) != 1:
        raise bad_request("the form must have one field `payload`; or send application/json")
    return found[0].encode()


def is_believed(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Whether the sender knows the secret."""
    right = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    for name in _SIGNED_BY:
        given = headers.get(name)
        if given is not None:
            return hmac.compare_digest(_bytes(given.removeprefix("sha256=").lower()), right.encode())
    token = headers.get(_TOKEN)
    return token is not None and hmac.compare_digest(_bytes(token), secret.encode())


def _bytes(header: str) -> bytes:
    """A header as it came, whatever bytes that were."""
    return header.encode("utf-8", "surrogateescape")


def _who(said: Mapping[str, Any]) -> str:
    """Who pushed, as the forges name them."""
    for key in ("pusher", "sender"):
        person = said.get(key)
        if isinstance(person, dict):
            for name in ("name", "login", "username", "full_name"):
                if isinstance(person.get(name), str) and person[name]:
                    return _printable(person[name])
    told = said.get("user_name") or said.get("user_username")
    return _printable(told) if isinstance(told, str) and told else "somebody"


def _why(said: Mapping[str, Any]) -> str:
    """The first line of the latest commit."""
    head = said.get("head_commit")
    commits = said.get("commits")
    latest = head if isinstance(head, dict) else commits[-1] if isinstance(commits, list) and commits else {}
    message = latest.get("message") if isinstance(latest, dict) else None
    return _printable(message.partition("\n")[0]) if isinstance(message, str) else ""


def _printable(text: str) -> str:
    return "".join(one for one in text if one.isprintable())[:MOST_WHO]
