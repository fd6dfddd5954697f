"""What a file says of an app, as a host reads it: shared by the server's file of an app and by that of its repository. Pure.

Commands are words, not shell: quotes group, nothing is expanded. Only what is said is in the result; what is not said has
the standard of agent/wire/app.py.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from agent.wire import WireError
from agent.wire.app import PASTS, STRATEGIES, VARIABLE_NAME, WHENS, App, app_from_json
from playbooks.fields import Fields, type_of
from playbooks.located import Key, Located, parse
from playbooks.problems import PlaybookError, Problem

SECOND_US = 1_000_000
OWN_FILE = "reflex.yml"
"""The usual name of the file in a repository."""

REPOSITORY_KEYS = ("shared", "build", "checks", "migrate", "web", "celery", "environment")
"""What the repository of an app may say of it."""

SERVER_KEYS = (
    "app", "repository", "ref", "from_repository", "hosts", "batch", "stop_after", "on_failure", "user", "folder", "keep",
    "watch", "secrets", "status", "patience",
)  # fmt: skip
"""What only the server's file says: who the app is, where it goes, and when a release is bad."""

_BUILD = ("python", "requirements", "commands", "within", "least_free_mb")
_MIGRATE = ("command", "when", "within")
_WEB = ("service", "app", "strategy", "health", "boot", "restart_may_fail_requests", "start")
_HEALTH = ("path", "address", "status", "contains", "within", "host")
_CELERY = ("service", "drain", "past", "boot", "start")
_START = ("supervisor", "unit")
_WATCH = ("for", "deaths", "errors_percent", "slower", "memory_ratio", "cpu_ratio", "backlog_ratio")
_NOT_OF_PARTS = {
    "build": ("least_free_mb",),
    "web": ("restart_may_fail_requests", "start"),
    "celery": ("start",),
    "health": ("address",),
}
"""Members of a repository's parts that only the server's file may say: what they do reaches beyond the app's user."""


def read_own(text: str, file: str, services: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What the file of a repository says, as plain values of the wire; raises PlaybookError with every mistake at once.

    `services` are those of the server's file, under `web` and `celery`: a repository says how they are run, and names no
    other, which may be another app's.
    """
    root = parse(text, file)
    problems: list[Problem] = []
    fields = Fields(root, "the repository's file", (*REPOSITORY_KEYS, *SERVER_KEYS), problems)
    _refuse(root, SERVER_KEYS, problems)
    plain = read_parts(fields, problems)
    _refuse(fields.get("build"), _NOT_OF_PARTS["build"], problems)
    for web in fields.items("web"):
        _refuse(web, _NOT_OF_PARTS["web"], problems)
        _refuse(_member(web, "health"), _NOT_OF_PARTS["health"], problems)
    for jobs in fields.items("celery"):
        _refuse(jobs, _NOT_OF_PARTS["celery"], problems)
    for key, name in (("web", "web"), ("celery", "jobs")):
        for place, one in zip(fields.items(key), plain.get(name, ()), strict=True):
            if one["service"] and one["service"] not in services[key]:
                known = ", ".join(services[key]) or "none"
                text = f"{one['service']!r} is no service of the server's file, which names {known} under {key!r}"
                problems.append(Problem(place.line, place.column, text))
    if not problems:
        checked({**_NOBODY, **plain}, fields, root)
    if problems:
        raise PlaybookError(file, problems)
    return plain


_NOBODY = {"name": "a", "repository": "/r", "ref": "r", "user": "u", "folder": "/srv/a"}
"""The rest of an app, so that what a repository says can be read as one."""


def _refuse(place: Located | None, names: Sequence[str], problems: list[Problem]) -> None:
    if place is None or not isinstance(place.value, dict):
        return
    for key in place.value:
        if key.name in names:
            problems.append(Problem(key.line, key.column, f"{key.name!r} is for the server's file of the app to say"))


def _member(place: Located, name: str) -> Located | None:
    members: dict[Key, Located] = place.value if isinstance(place.value, dict) else {}
    return next((value for key, value in members.items() if key.name == name), None)


def checked(plain: Mapping[str, Any], fields: Fields, root: Located) -> App | None:
    """What a host makes of it; its complaint is put where the member stands."""
    try:
        return app_from_json(plain)
    except WireError as error:
        name = error.where.partition(".")[0].partition("[")[0]
        name = {"name": "app", "jobs": "celery"}.get(name, name)
        fields.problem(fields.get(name) or root, f"{error.where} {error.problem}")
        return None


def read_parts(fields: Fields, problems: list[Problem]) -> dict[str, Any]:
    """The parts that say how an app is built and run, as far as they are there."""
    plain: dict[str, Any] = {}
    if fields.has("shared"):
        plain["shared"] = list(texts(fields, "shared"))
    if fields.has("checks"):
        plain["checks"] = [_words(place, "checks", problems) for place in fields.items("checks")]
    if fields.has("web"):
        plain["web"] = [_web(place, problems) for place in fields.items("web")]
    if fields.has("celery"):
        plain["jobs"] = [_jobs(place, problems) for place in fields.items("celery")]
    if fields.has("environment"):
        plain["environment"] = _environment(fields, problems)
    for name, read in (("build", _build), ("migrate", _migrate)):
        if (place := fields.get(name)) is not None:
            plain[name] = read(place, problems)
    return plain


def said_of(plain: Mapping[str, Any]) -> tuple[str, ...]:
    """The members of the parts that a file says, by dots: the repository's file changes none of them."""
    found = [name for name in ("shared", "checks", "migrate") if name in plain]
    found += [f"build.{name}" for name in plain.get("build", {})]
    for part in ("web", "jobs"):
        for index, one in enumerate(plain.get(part, ())):
            found += [f"{part}.{index}.{name}" for name in one if name != "health"]
            found += [f"{part}.{index}.health.{name}" for name in one.get("health", {})]
    return tuple(found)


def _build(place: Located, problems: list[Problem]) -> dict[str, Any]:
    fields = Fields(place, "build", _BUILD, problems)
    found: dict[str, Any] = {**_seconds(fields, {"within": "within_s"}), **_given(fields, ("python", "requirements"))}
    if fields.has("commands"):
        found["commands"] = [_words(one, "commands", problems) for one in fields.items("commands")]
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
    if fields.has("restart_may_fail_requests"):
        found["restart_may_fail_requests"] = fields.flag("restart_may_fail_requests")
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


def read_watch(place: Located, problems: list[Problem]) -> dict[str, Any]:
    """How much worse a release may be, which is not for the release to say."""
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


def texts(fields: Fields, name: str, *, must: bool = False) -> tuple[str, ...]:
    """The texts of a list."""
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
