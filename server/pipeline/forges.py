"""What the forge of a repository is told of a deploy: the status of its commit, in the words of each forge's API. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import quote, urlsplit

from server.pipeline.deploys import CATCHING_UP, Deploy

Forge = Literal["github", "gitlab", "gitea", "generic"]
FORGES: tuple[Forge, ...] = get_args(Forge)
StatusState = Literal["pending", "success", "failure", "error"]

PUBLIC: Mapping[str, str] = {"github": "https://api.github.com", "gitlab": "https://gitlab.com/api/v4"}
"""Where the API of a forge is that everybody uses."""

MOST_CHARS = 140
"""Of a description, as GitHub has it; the others take more."""

_GITLAB_STATES: Mapping[StatusState, str] = {
    "pending": "running",
    "success": "success",
    "failure": "failed",
    "error": "canceled",
}
_PROJECT = re.compile(r"[\w.~-]+(/[\w.~-]+)*")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Status:
    """Where the statuses of an app's commits go. `api` is the address of the forge's API; for `generic` all of it."""

    forge: Forge
    api: str
    project: str = ""


@dataclass(frozen=True, slots=True)
class News:
    """What is to be told of one commit. `event` is the one that the deploy began with."""

    app: str
    commit: str
    state: StatusState
    text: str
    event: str


@dataclass(frozen=True, slots=True)
class Call:
    """One request of the API."""

    url: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


def status_of(forge: Forge, api: str, project: str) -> Status:
    """The status settings; raises ValueError, whose text names the member first."""
    api = (api or PUBLIC.get(forge, "")).rstrip("/")
    address = urlsplit(api)
    if not address.hostname or "@" in address.netloc or "?" in api or "#" in api:
        raise ValueError(f"api must be the address of the API of {forge}, such as https://git.example/api/v1")
    if address.scheme != "https" and not (address.scheme == "http" and address.hostname in _LOCAL):
        raise ValueError("api must begin with https:// (http:// only on this machine), as a token is sent there")
    if forge != "generic" and (not _PROJECT.fullmatch(project) or ".." in project or len(project) > 200):
        raise ValueError("project must be the repository's path at the forge, such as team/shop")
    return Status(forge, api, project)


def news_of(deploy: Deploy) -> News | None:
    """What is to be told of a deploy now; None for one whose commit is not known yet, for a rollback, and for a host that
    catches up: what became of the commit has been told."""
    known = [part.commit for part in deploy.parts if part.commit] + [deploy.ref]
    commit = next((one for one in known if _COMMIT.fullmatch(one)), None)
    if (
        commit is None
        or deploy.is_rollback
        or deploy.who == CATCHING_UP
        or (deploy.stage == "queued")
        or not deploy.cause
    ):
        return None
    if not deploy.is_over:
        return News(deploy.app, commit, "pending", f"{deploy.who} deploys {deploy.ref}", deploy.cause)
    state: StatusState = "failure" if deploy.has_failed_somewhere else "success"
    state = "error" if deploy.outcome == "cancelled" else state
    return News(deploy.app, commit, state, f"The deploy of {deploy.app} {deploy.text}", deploy.cause)


def call_of(status: Status, news: News, token: str, public_url: str) -> Call:
    """The request that tells it."""
    text = news.text if len(news.text) <= MOST_CHARS else f"{news.text[: MOST_CHARS - 1]}…"
    target = f"{public_url.rstrip('/')}/#/event/{news.event}" if public_url else ""
    link = {"target_url": target} if target else {}
    context = f"reflex/{news.app}"
    if status.forge == "gitlab":
        url = f"{status.api}/projects/{quote(status.project, safe='')}/statuses/{news.commit}"
        body = {"state": _GITLAB_STATES[news.state], "name": context, "description": text, **link}
        return Call(url, {"PRIVATE-TOKEN": token}, body)
    body = {"state": news.state, "context": context, "description": text, **link}
    if status.forge == "generic":
        body |= {"commit": news.commit, "app": news.app}
        return Call(status.api, {"Authorization": f"Bearer {token}"}, body)
    url = f"{status.api}/repos/{status.project}/statuses/{news.commit}"
    if status.forge == "github":
        return Call(url, {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"}, body)
    return Call(url, {"Authorization": f"token {token}"}, body)


def is_told(status: Status, code: int, answer: str) -> bool:
    """Whether the forge has taken it. GitLab refuses the state that a commit already has, which is as good."""
    return 200 <= code < 300 or (status.forge == "gitlab" and code == 400 and "Cannot transition status" in answer)


def is_hopeless(code: int) -> bool:
    """Whether the same request is refused again: it is wrong, or the token is."""
    return 300 <= code < 500 and code not in (408, 425, 429)
