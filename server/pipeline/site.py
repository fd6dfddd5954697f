"""An app as the server has it: the file that says all of it, read with line numbers. Pure.

The file is `reflex.yml`; playbooks/apps.py reads what a repository may say, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from agent.wire.app import VARIABLE_NAME, App
from playbooks.apps import (
    OWN_FILE,
    REPOSITORY_KEYS,
    SECOND_US,
    SERVER_KEYS,
    checked,
    read_parts,
    read_watch,
    said_of,
    texts,
)
from playbooks.fields import Fields
from playbooks.located import Located, parse
from playbooks.problems import PlaybookError, Problem
from server.pipeline.forges import FORGES, Status, status_of

OnFailure = Literal["rollback", "leave"]
ON_FAILURES: tuple[OnFailure, ...] = get_args(OnFailure)
MOST_HOSTS = 500
PATIENCE_US = 120 * SECOND_US
SECRET_NAME = "repository"
"""The name of the secret that the repository is fetched with: a private key, or a token for https."""

STATUS_SECRET = "STATUS"
"""The name of the secret that the forge is told with what became of commits: a token of its API."""


class SiteError(PlaybookError):
    """A file that cannot be used. Its text has one line for each problem: `file:line:column: what is wrong`."""


@dataclass(frozen=True, slots=True)
class Site:
    """An app, the hosts that serve it, and how they follow one another.

    The first host is a barrier: the others get a release once it is kept there, `batch` of them at a time, and no more
    of them once `stop_after` have failed. One that cannot be reached for longer than `patience_s` is gone on without.
    `secrets` names those that the environment takes from the vault. `status` is where the forge is told what became of commits.
    """

    app: App
    hosts: tuple[str, ...]
    batch: int = 1
    stop_after: int = 1
    on_failure: OnFailure = "rollback"
    secrets: tuple[str, ...] = ()
    patience_s: float = 120.0
    status: Status | None = None


def read_site(text: str, file: str) -> Site:
    """The app that a file describes; raises SiteError with every mistake at once."""
    try:
        root = parse(text, file)
    except PlaybookError as error:
        raise SiteError(error.file, error.problems) from None
    problems: list[Problem] = []
    fields = Fields(root, "an app", (*SERVER_KEYS, *REPOSITORY_KEYS), problems)
    plain = _plain(fields, problems)
    hosts = tuple(dict.fromkeys(texts(fields, "hosts", must=True)))
    if len(hosts) > MOST_HOSTS:
        fields.problem(root, f"'hosts' has {len(hosts)} members; at most {MOST_HOSTS}")
    secrets = texts(fields, "secrets")
    for place in fields.items("secrets"):
        if isinstance(place.value, str) and not VARIABLE_NAME.fullmatch(place.value):
            fields.problem(place, f"{place.value!r} is no name of a variable")
    batch = fields.whole("batch", 1, least=1, most=MOST_HOSTS)
    stop_after = fields.whole("stop_after", 1, least=1, most=MOST_HOSTS)
    on_failure = fields.choice("on_failure", ON_FAILURES) or "rollback"
    patience_s = fields.span_us("patience", PATIENCE_US, least_us=SECOND_US) / SECOND_US
    told = fields.get("status")
    status = None if told is None else _status(told, problems)
    app = None if problems else checked(plain, fields, root)
    if problems or app is None:
        raise SiteError(file, problems)
    on = next(one for one in ON_FAILURES if one == on_failure)
    return Site(app, hosts, batch, stop_after, on, secrets, patience_s, status)


def _plain(fields: Fields, problems: list[Problem]) -> dict[str, Any]:
    """The members as a host reads them."""
    parts = read_parts(fields, problems)
    plain: dict[str, Any] = {
        "name": fields.text("app", must=True) or "",
        "repository": fields.text("repository", must=True) or "",
        "ref": fields.text("ref") or "main",
        "user": fields.text("user", must=True) or "",
        "folder": fields.text("folder", must=True) or "",
        "keep": fields.whole("keep", 5, least=1, most=50),
        **parts,
    }
    if (place := fields.get("watch")) is not None:
        plain["watch"] = read_watch(place, problems)
    if own := _own_file(fields):
        plain |= {"own_file": own, "said": list(said_of(parts))}
    return plain


def _status(place: Located, problems: list[Problem]) -> Status | None:
    fields = Fields(place, "status", ("forge", "api", "project"), problems)
    named = fields.choice("forge", FORGES, must=True)
    forge = next((one for one in FORGES if one == named), None)
    if forge is None:
        return None
    try:
        return status_of(forge, fields.text("api") or "", fields.text("project") or "")
    except ValueError as error:
        fields.problem(fields.get(str(error).partition(" ")[0]) or place, str(error))
        return None


def _own_file(fields: Fields) -> str:
    """The file in the repository that says the rest; empty where the server's says all."""
    place = fields.get("from_repository")
    if place is None or place.value is False:
        return ""
    return OWN_FILE if place.value is True else fields.text("from_repository") or ""
