"""An app as the server has it: the file that says all of it, read with line numbers. Pure.

The file is `reflex.yml`. Commands in it are words, not shell: quotes group, nothing is expanded.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from agent.wire import WireError
from agent.wire.app import (
    PASTS,
    STRATEGIES,
    VARIABLE_NAME,
    WHENS,
    App,
    app_from_json,
)
from playbooks.fields import Fields, type_of
from playbooks.located import Located, parse
from playbooks.problems import PlaybookError, Problem

OnFailure = Literal["rollback", "leave"]
ON_FAILURES: tuple[OnFailure, ...] = get_args(OnFailure)
MOST_HOSTS = 500
SECOND_US = 1_000_000
PATIENCE_US = 120 * SECOND_US
SECRET_NAME = "repository"
"""The name of the secret that the repository is fetched with: a private key, or a token for https."""

_KEYS = (
    "app", "repository", "ref", "hosts", "batch", "stop_after", "on_failure", "user", "folder", "shared", "keep", "build",
    "checks", "migrate", "web", "celery", "watch", "environment", "secrets", "patience",
)  # fmt: skip
_BUILD = ("python", "requirements", "commands", "within", "least_free_mb")
_MIGRATE = ("command", "when", "within")
_WEB = ("service", "app", "strategy", "health", "boot", "restart_may_fail_requests", "start")
_HEALTH = ("path", "address", "status", "contains", "within", "host")
_CELERY = ("service", "drain", "past", "boot", "start")
_START = ("supervisor", "unit")
_WATCH = ("for", "deaths", "errors_percent", "slower", "memory_ratio", "cpu_ratio", "backlog_ratio")


class SiteError(PlaybookError):
    """A file that cannot be used. Its text has one line for each problem: `file:line:column: what is wrong`."""


@dataclass(frozen=True, slots=True)
class Site:
    """An app, the hosts that serve it, and how they follow one another.

    The first host is a barrier: the others get a release once it is kept there, `batch` of them at a time, and no more
    of them once `stop_after` have failed. One that cannot be reached for longer than `patience_s` is gone on without.
    `secrets` names those that the environment takes from the vault.
    """

    app: App
    hosts: tuple[str, ...]
    batch: int = 1
    stop_after: int = 1
    on_failure: OnFailure = "rollback"
    secrets: tuple[str, ...] = ()
    patience_s: float = 120.0


def read_site(text: str, file: str) -> Site:
    """The app that a file describes; raises SiteError with every mistake at once."""
    try:
        root = parse(text, file)
    except PlaybookError as error:
        raise SiteError(error.file, error.problems) from None
    problems: list[Problem] = []
    fields = Fields(root, "an app", _KEYS, problems)
    plain = _plain(fields, problems)
    hosts = tuple(dict.fromkeys(_texts(fields, "hosts", must=True)))
    if len(hosts) > MOST_HOSTS:
        fields.problem(root, f"'hosts' has {len(hosts)} members; at most {MOST_HOSTS}")
    secrets = _texts(fields, "secrets")
    for place in fields.items("secrets"):
        if isinstance(place.value, str) and not VARIABLE_NAME.fullmatch(place.value):
            fields.problem(place, f"{place.value!r} is no name of a variable")
    batch = fields.whole("batch", 1, least=1, most=MOST_HOSTS)
    stop_after = fields.whole("stop_after", 1, least=1, most=MOST_HOSTS)
    on_failure = fields.choice("on_failure", ON_FAILURES) or "rollback"
    patience_s = fields.span_us("patience", PATIENCE_US, least_us=SECOND_US) / SECOND_US
    app = None if problems else _checked(plain, fields, root)
    if problems or app is None:
        raise SiteError(file, problems)
    on = next(one for one in ON_FAILURES if one == on_failure)
    return Site(app, hosts, batch, stop_after, on, secrets, patience_s)


def _checked(plain: Mapping[str, Any], fields: Fields, root: Located) -> App | None:
    """What a host would make of it; its complaint is put where the member stands."""
    try:
        return app_from_json(plain)
    except WireError as error:
        name = error.where.partition(".")[0].partition("[")[0]
        fields.problem(
            fields.get({"name": "app", "jobs": "celery"}.get(name, name)) or root, f"{error.where} {error.problem}"
        )
        return None


def _plain(fields: Fields, problems: list[Problem]) -> dict[str, Any]:
    """The members as a host reads them."""
    plain: dict[str, Any] = {
        "name": fields.text("app", must=True) or "",
        "repository": fields.text("repository", must=True) or "",
        "ref": fields.text("ref") or "main",
        "user": fields.text("user", must=True) or "",
        "folder": fields.text("folder", must=True) or "",
        "shared": list(_texts(fields, "shared")),
        "keep": fields.whole("keep", 5, least=1, most=50),
        "checks": [_words(place, "checks", problems) for place in fields.items("checks")],
        "web": [_web(place, problems) for place in fields.items("web")],
        "jobs": [_jobs(place, problems) for place in fields.items("celery")],
        "environment": _environment(fields, problems),
    }
    for name, read in (("build", _build), ("migrate", _migrate), ("watch", _watch)):
        if (place := fields.get(name)) is not None:
            plain[name] = read(place, problems)
    return plain


def _build(place: Located, problems: list[Problem]) -> dict[str, Any]:
    fields = Fields(place, "build", _BUILD, problems)
    commands = [_words(one, "commands", problems) for one in fields.items("commands")]
    found: dict[str, Any] = {"commands": commands, **_seconds(fields, {"within": "within_s"})}
    found |= _given(fields, ("python", "requirements"))
    if fields.has("least_free_mb"):
        found["least_free_mb"] = fields.whole("least_free_mb", 500, least=0, most=10_000_000)
    return found


def _migrate(place: Located, problems: list[Problem]) -> dict[str, Any]:
    fields = Fields(place, "migrate", _MIGRATE, problems)
    command = fields.must("command")
    found: dict[str, Any] = {"command": [] if command is None else _words(command, "command", problems)}
    when = fields.choice("when", WHENS)
    return {**found, **({"when": when} if when else {}), **_seconds(fields, {"within": "within_s"})}


def _web(place: Located, problems: list[Problem]) -> dict[str, Any]:
    fields = Fields(place, "web", _WEB, problems)
    found: dict[str, Any] = {"service": fields.text("service", must=True) or "", **_given(fields, ("app",))}
    strategy = fields.choice("strategy", STRATEGIES)
    found |= {"strategy": strategy} if strategy else {}
    found |= {"restart_may_fail_requests": fields.flag("restart_may_fail_requests")}
    if (health := fields.get("health")) is not None:
        found["health"] = _health(health, problems)
    return {**found, **_start(fields, problems), **_seconds(fields, {"boot": "boot_s"})}


def _start(fields: Fields, problems: list[Problem]) -> dict[str, Any]:
    """Who starts the service, if the file says so."""
    place = fields.get("start")
    return {} if place is None else {"start": _given(Fields(place, "start", _START, problems), _START)}


def _health(place: Located, problems: list[Problem]) -> dict[str, Any]:
    fields = Fields(place, "health", _HEALTH, problems)
    found: dict[str, Any] = _given(fields, ("path", "address", "contains", "host"))
    if fields.has("status"):
        found["status"] = fields.whole("status", 200, least=100, most=599)
    return {**found, **_seconds(fields, {"within": "within_s"})}


def _jobs(place: Located, problems: list[Problem]) -> dict[str, Any]:
    fields = Fields(place, "celery", _CELERY, problems)
    found: dict[str, Any] = {"service": fields.text("service", must=True) or ""}
    past = fields.choice("past", PASTS)
    found |= {**({"past": past} if past else {}), **_start(fields, problems)}
    return {**found, **_seconds(fields, {"drain": "drain_s", "boot": "boot_s"})}


def _watch(place: Located, problems: list[Problem]) -> dict[str, Any]:
    fields = Fields(place, "watch", _WATCH, problems)
    found: dict[str, Any] = _seconds(fields, {"for": "for_s"})
    if fields.has("deaths"):
        found["deaths"] = fields.whole("deaths", 0, least=0, most=10_000)
    if fields.has("slower"):
        found["slower_ms"] = fields.span_us("slower", 0) / 1000
    for name in ("errors_percent", "memory_ratio", "cpu_ratio", "backlog_ratio"):
        if (value := fields.number(name)) is not None:
            found[name] = value
    return found


def _environment(fields: Fields, problems: list[Problem]) -> dict[str, str]:
    """Variables; numbers and truth values count as their text."""
    place = fields.get("environment")
    if place is None:
        return {}
    if not isinstance(place.value, dict):
        problems.append(Problem(place.line, place.column, f"'environment' must be a mapping, not {type_of(place)}"))
        return {}
    found = {}
    for key, value in place.value.items():
        if isinstance(value.value, dict | tuple) or value.value is None:
            problems.append(Problem(value.line, value.column, f"{key.name!r} must be a text, not {type_of(value)}"))
        elif not VARIABLE_NAME.fullmatch(key.name):
            problems.append(Problem(key.line, key.column, f"{key.name!r} is no name of a variable"))
        else:
            found[key.name] = str(value.value).lower() if isinstance(value.value, bool) else str(value.value)
    return found


def _words(place: Located, name: str, problems: list[Problem]) -> list[str]:
    """A command: a text as a shell would split it, or a list of its words."""
    if isinstance(place.value, tuple):
        return [str(one.value) for one in place.value]
    if not isinstance(place.value, str) or not place.value.strip():
        problems.append(Problem(place.line, place.column, f"{name!r} must be commands, not {type_of(place)}"))
        return []
    try:
        words = shlex.split(place.value)
    except ValueError as error:
        problems.append(Problem(place.line, place.column, f"{name!r}: {error}"))
        return []
    if odd := next((word for word in words if word in ("|", "||", "&&", ">", "<", ";", "&")), None):
        text = f"{name!r}: {odd!r} would be a word of the command: no shell reads it; write two commands, or a script"
        problems.append(Problem(place.line, place.column, text))
    return words


def _texts(fields: Fields, name: str, *, must: bool = False) -> tuple[str, ...]:
    found = []
    for place in fields.items(name, must=must, least=1 if must else 0):
        if isinstance(place.value, str) and place.value:
            found.append(place.value)
        else:
            fields.problem(place, f"{name!r} must have texts, not {type_of(place)}")
    return tuple(found)


def _given(fields: Fields, names: Sequence[str]) -> dict[str, Any]:
    return {name: text for name in names if (text := fields.text(name)) is not None}


def _seconds(fields: Fields, names: Mapping[str, str]) -> dict[str, float]:
    return {to: fields.span_us(name, 0) / SECOND_US for name, to in names.items() if fields.has(name)}
