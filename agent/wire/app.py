"""What a host has to know of an app to release it: where it lies, how it is built, checked, switched to and watched. Pure.

Durations are in seconds, commands are lists of words that no shell reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from agent.wire.checks import MAX_NAME_CHARS, WireError, mapping_of, shown, text_of

MOST_COMMANDS = 30
MOST_WORDS = 100
MOST_WORD_CHARS = 4_000
MOST_SERVICES = 10
MOST_VARIABLES = 200
MOST_VARIABLE_CHARS = 32_768
MOST_KEPT = 50
MOST_SAID = 500
LONGEST_S = 6 * 3600

Argv = tuple[str, ...]
Strategy = Literal["auto", "handover", "reload", "restart"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
"""How the web changes releases: a second master takes over, the master reads the release anew, or it is started again."""

When = Literal["before", "after"]
WHENS: tuple[When, ...] = get_args(When)
Past = Literal["leave", "kill"]
PASTS: tuple[Past, ...] = get_args(Past)
"""What becomes of a Celery node that still has tasks when its time to finish them is up."""

APP_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
USER_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}\$?")
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
PROGRAM = re.compile(r"[\w.@-]{1,100}(:[\w.@-]{1,100})?")
UNIT = re.compile(r"[\w.@:-]{1,200}\.service")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Health:
    """A request that a healthy release answers. `address` is `HOST:PORT` or a socket's path; empty: the service's own."""

    path: str = "/"
    address: str = ""
    status: int = 200
    contains: str = ""
    within_s: float = 2.0
    host: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    """Who starts a service that does not run: a program of supervisor, or a unit of systemd; one of the two is empty."""

    supervisor: str = ""
    unit: str = ""

    @property
    def name(self) -> str:
        """The program or the unit, as the policy of a host names it."""
        return self.supervisor or self.unit


@dataclass(frozen=True, slots=True)
class Web:
    """A service that answers requests. `app` is what is imported, such as `shop.wsgi:application`.

    `restart_may_fail_requests` allows a restart by its manager where nothing better serves the new code.
    """

    service: str
    app: str = ""
    strategy: Strategy = "auto"
    health: Health | None = None
    boot_s: float = 60.0
    restart_may_fail_requests: bool = False
    start: Start | None = None


@dataclass(frozen=True, slots=True)
class Jobs:
    """A Celery node, or its beat."""

    service: str
    drain_s: float = 300.0
    past: Past = "leave"
    boot_s: float = 60.0
    start: Start | None = None


@dataclass(frozen=True, slots=True)
class Build:
    """How a release becomes runnable. `requirements` is a file in the repository; empty: whichever of the usual is there."""

    python: str = "python3"
    requirements: str = ""
    commands: tuple[Argv, ...] = ()
    within_s: float = 1800.0
    least_free_mb: int = 500


@dataclass(frozen=True, slots=True)
class Migrate:
    """The command that changes the database, and whether it runs before or after the switch."""

    command: Argv
    when: When = "before"
    within_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class Watch:
    """How long a release is watched after the switch, and how much worse than the one before it may be.

    `deaths` are workers that died of a fault; memory and CPU are ratios to the release before.
    """

    for_s: float = 300.0
    deaths: int = 0
    errors_percent: float = 1.0
    slower_ms: float = 250.0
    memory_ratio: float = 1.5
    cpu_ratio: float = 2.0
    backlog_ratio: float = 3.0


@dataclass(frozen=True, slots=True)
class App:
    """All of it. `own_file` is a file in the repository that says what the server does not; empty: the server says all.

    `said` are the members that the server says, by dots (`build.python`, `web.0.boot_s`): the repository changes none of them.
    """

    name: str
    repository: str
    ref: str
    user: str
    folder: str
    build: Build = Build()
    checks: tuple[Argv, ...] = ()
    migrate: Migrate | None = None
    web: tuple[Web, ...] = ()
    jobs: tuple[Jobs, ...] = ()
    shared: tuple[str, ...] = ()
    keep: int = 5
    watch: Watch = Watch()
    environment: Mapping[str, str] = field(default_factory=dict)
    own_file: str = ""
    said: tuple[str, ...] = ()


def app_to_json(app: App) -> dict[str, Any]:
    """The app as plain values, ready for orjson."""
    left_out = () if app.own_file else ("own_file", "said")
    return {name: _plain(getattr(app, name)) for name in App.__slots__ if name not in left_out}


def app_from_json(value: object) -> App:
    """The app that `value` describes; raises WireError."""
    obj = _Object(value, "app", App)
    name = obj.text("name")
    if not APP_NAME.fullmatch(name):
        raise WireError("name", f"must be of a-z, 0-9, dot, _ and -, not {shown(name)}")
    user = obj.text("user")
    if not USER_NAME.fullmatch(user):
        raise WireError("user", f"must be a user's name, not {shown(user)}")
    return App(
        name=name,
        repository=_repository(obj.text("repository", most=1_000)),
        ref=_ref(obj.text("ref")),
        user=user,
        folder=folder_of(obj.text("folder", most=1_000)),
        build=obj.part("build", _build, Build()),
        checks=obj.argvs("checks"),
        migrate=obj.part("migrate", _migrate, None),
        web=obj.each("web", _web, most=MOST_SERVICES),
        jobs=obj.each("jobs", _jobs, most=MOST_SERVICES),
        shared=tuple(inside_of(one, "shared") for one in obj.words("shared", most=MOST_COMMANDS)),
        keep=obj.whole("keep", 5, least=1, most=MOST_KEPT),
        watch=obj.part("watch", _watch, Watch()),
        environment=variables_of(obj.get("environment", {}), "environment"),
        own_file=obj.part("own_file", _own_file, ""),
        said=obj.words("said", most=MOST_SAID),
    )


def longest_prepare_s(app: App) -> float:
    """How long the app allows that a release of it is made; what its repository may say is not known before."""
    if app.own_file:
        return float(LONGEST_S)
    return app.build.within_s * (2 + len(app.build.commands) + len(app.checks))


def longest_switch_s(app: App) -> float:
    """How long the app allows that a release of it is switched to, watched, and taken back."""
    drains = sum(one.drain_s + 3 * one.boot_s for one in app.jobs) + sum(3 * one.boot_s for one in app.web)
    return 2 * drains + app.watch.for_s + (app.migrate.within_s if app.migrate is not None else 0)


def folder_of(path: str) -> str:
    """A folder that an app may have for itself; raises WireError."""
    parts = path.split("/")
    if not path.startswith("/") or len(parts) < 3 or any(one in ("", ".", "..") for one in parts[1:]):
        raise WireError("folder", f"must be a full path of two folders or more, such as /srv/shop, not {shown(path)}")
    if not path.isprintable() or any(one in path for one in "\"'\\ :"):
        raise WireError("folder", f"must have no spaces, quotes or colons, as units and venvs take none: {shown(path)}")
    return path


def inside_of(path: str, where: str) -> str:
    """A path inside of a release; raises WireError."""
    if path.startswith("/") or any(one in ("", ".", "..") for one in path.split("/")) or not path.isprintable():
        raise WireError(where, f"must be a path inside of the release, such as media, not {shown(path)}")
    return path


def variables_of(value: object, where: str) -> dict[str, str]:
    """Variables of an environment; raises WireError."""
    obj = mapping_of(value, where)
    if len(obj) > MOST_VARIABLES:
        raise WireError(where, f"has {len(obj)} variables; the limit is {MOST_VARIABLES}")
    for name, text in obj.items():
        if not VARIABLE_NAME.fullmatch(name):
            raise WireError(where, f"{shown(name)} is no name of a variable")
        if not isinstance(text, str) or "\0" in text or len(text) > MOST_VARIABLE_CHARS:
            raise WireError(f"{where}.{name}", f"must be a text of at most {MOST_VARIABLE_CHARS} characters")
    return dict(obj)


def _own_file(value: object) -> str:
    if not isinstance(value, str):
        raise WireError("from_repository", f"must be a path in the repository, not {shown(value)}")
    return inside_of(value, "from_repository") if value else ""


def _repository(text: str) -> str:
    if text.startswith("-") or not text.isprintable() or " " in text:
        raise WireError("repository", f"must be an address or a path that git can fetch from, not {shown(text)}")
    if re.match(r"https?://[^/@]*:[^/@]*@", text):
        raise WireError("repository", "must not contain a password; give it as the secret of the app")
    if "::" in text.partition("/")[0]:
        raise WireError("repository", "must not name a remote helper")
    return text


def _ref(text: str) -> str:
    if text.startswith("-") or not re.fullmatch(r"[\w./@+-]{1,200}", text) or ".." in text:
        raise WireError("ref", f"must be a branch, a tag or a commit, not {shown(text)}")
    return text


def _build(value: object) -> Build:
    obj, standard = _Object(value, "build", Build), Build()
    requirements = obj.text("requirements", default="")
    return Build(
        python=obj.text("python", default=standard.python),
        requirements=inside_of(requirements, "requirements") if requirements else "",
        commands=obj.argvs("commands"),
        within_s=obj.number("within_s", standard.within_s),
        least_free_mb=obj.whole("least_free_mb", standard.least_free_mb, least=0, most=10_000_000),
    )


def _migrate(value: object) -> Migrate:
    obj = _Object(value, "migrate", Migrate)
    return Migrate(
        argv_of(obj.get("command"), "migrate.command"),
        obj.choice("when", WHENS, "before"),
        obj.number("within_s", 1800.0),
    )


def _web(value: object) -> Web:
    obj, standard = _Object(value, "web", Web), Web("")
    return Web(
        service=obj.text("service"),
        app=obj.text("app", default=""),
        strategy=obj.choice("strategy", STRATEGIES, "auto"),
        health=obj.part("health", _health, None),
        boot_s=obj.number("boot_s", standard.boot_s),
        restart_may_fail_requests=obj.flag("restart_may_fail_requests"),
        start=obj.part("start", _start, None),
    )


def _start(value: object) -> Start:
    obj = _Object(value, "start", Start)
    start = Start(obj.text("supervisor", default=""), obj.text("unit", default=""))
    if bool(start.supervisor) == bool(start.unit):
        raise WireError("start", "must name one who starts it: a program of supervisor, or a unit")
    if start.supervisor and not PROGRAM.fullmatch(start.supervisor):
        raise WireError("start.supervisor", f"must be a program such as shop-web, not {shown(start.supervisor)}")
    if start.unit and not UNIT.fullmatch(start.unit):
        raise WireError("start.unit", f"must be a unit such as shop-web.service, not {shown(start.unit)}")
    return start


def _health(value: object) -> Health:
    obj, standard = _Object(value, "health", Health), Health()
    path = obj.text("path", default=standard.path)
    if not path.startswith("/") or not path.isprintable() or " " in path:
        raise WireError("health.path", f"must begin with a slash, not {shown(path)}")
    address, host, contains = (obj.text(name, default="") for name in ("address", "host", "contains"))
    for name, text in (("address", address), ("host", host), ("contains", contains)):
        if not text.isprintable():
            raise WireError(f"health.{name}", f"must be of printable characters, not {shown(text)}")
    return Health(
        path=path,
        address=address,
        status=obj.whole("status", standard.status, least=100, most=599),
        contains=contains,
        within_s=obj.number("within_s", standard.within_s, most=60),
        host=host,
    )


def _jobs(value: object) -> Jobs:
    obj, standard = _Object(value, "jobs", Jobs), Jobs("")
    return Jobs(
        service=obj.text("service"),
        drain_s=obj.number("drain_s", standard.drain_s),
        past=obj.choice("past", PASTS, "leave"),
        boot_s=obj.number("boot_s", standard.boot_s),
        start=obj.part("start", _start, None),
    )


def _watch(value: object) -> Watch:
    obj, standard = _Object(value, "watch", Watch), Watch()
    return Watch(
        for_s=obj.number("for_s", standard.for_s),
        deaths=obj.whole("deaths", standard.deaths, least=0, most=10_000),
        **{
            name: obj.number(name, getattr(standard, name))
            for name in ("errors_percent", "slower_ms", "memory_ratio", "cpu_ratio", "backlog_ratio")
        },
    )


def argv_of(value: object, where: str) -> Argv:
    """One command; raises WireError."""
    if not isinstance(value, list) or not 0 < len(value) <= MOST_WORDS:
        raise WireError(where, f"must be a list of 1 to {MOST_WORDS} words")
    for word in value:
        if not isinstance(word, str) or "\0" in word or len(word) > MOST_WORD_CHARS:
            raise WireError(where, f"must have words of at most {MOST_WORD_CHARS} characters, not {shown(word)}")
    if not value[0]:
        raise WireError(where, "must begin with a program")
    return tuple(value)


class _Object:
    """A mapping of which each member is checked. `kind` is the dataclass whose members it may have."""

    def __init__(self, value: object, where: str, kind: Any) -> None:
        self._obj = mapping_of(value, where)
        self._where = where
        for name in self._obj:
            if name not in kind.__slots__:
                raise WireError(f"{where}.{name:.60}", f"is not known; there are {', '.join(kind.__slots__)}")

    def get(self, name: str, default: object = None) -> object:
        return self._obj.get(name, default)

    def text(self, name: str, *, default: str | None = None, most: int = MAX_NAME_CHARS) -> str:
        if default is not None and self._obj.get(name, "") == "":
            return default
        return text_of(self._obj, name, most)

    def number(self, name: str, default: float, *, most: float = LONGEST_S) -> float:
        value = self._obj.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            raise WireError(f"{self._where}.{name}", f"must be a number above 0, {most:g} at most, not {shown(value)}")
        return float(value)

    def whole(self, name: str, default: int, *, least: int, most: int) -> int:
        value = self._obj.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise WireError(f"{self._where}.{name}", f"must be a whole number from {least} to {most}")
        return value

    def flag(self, name: str) -> bool:
        value = self._obj.get(name, False)
        if not isinstance(value, bool):
            raise WireError(f"{self._where}.{name}", "must be true or false")
        return value

    def choice(self, name: str, known: tuple[_T, ...], default: _T) -> _T:
        value = self._obj.get(name, default)
        if value not in known:
            raise WireError(f"{self._where}.{name}", f"must be one of {', '.join(map(str, known))}, not {shown(value)}")
        return known[known.index(value)]

    def words(self, name: str, *, most: int) -> tuple[str, ...]:
        value = self._obj.get(name, [])
        if not isinstance(value, list) or len(value) > most or not all(isinstance(one, str) for one in value):
            raise WireError(name, f"must be a list of at most {most} texts")
        return tuple(value)

    def argvs(self, name: str) -> tuple[Argv, ...]:
        value = self._obj.get(name, [])
        if not isinstance(value, list) or len(value) > MOST_COMMANDS:
            raise WireError(name, f"must be a list of at most {MOST_COMMANDS} commands")
        return tuple(argv_of(one, name) for one in value)

    def part(self, name: str, read: Callable[[object], _T], default: _T) -> _T:
        value = self._obj.get(name)
        return default if value is None else read(value)

    def each(self, name: str, read: Callable[[object], _T], *, most: int) -> tuple[_T, ...]:
        value = self._obj.get(name, [])
        if not isinstance(value, list) or len(value) > most:
            raise WireError(name, f"must be a list of at most {most}")
        return tuple(read(one) for one in value)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "__slots__"):
        return {name: _plain(getattr(value, name)) for name in value.__slots__}
    return value
