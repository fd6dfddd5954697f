"""What the owner of a host lets the server do to it: a TOML file that has the last word.

```
deny = ["gunicorn.scale"]                 # patterns; deny goes before allow
allow = ["gunicorn.*", "command.run"]     # without it: what docs/actions.md lists as allowed by default
stop = false                              # true: refuse everything
[services."shop-*"]                       # the same, for services whose name fits; goes before the host's
allow = ["gunicorn.recycle_worker"]
[commands.clear-cache]
argv = ["/usr/local/bin/clear-cache", "--all"]
user = "shop"
timeout_s = 60
[apps.shop]                               # an app that may be deployed here; without this table none may
user = "shop"                             # whom its builds, checks and commands run as
folder = "/srv/shop"                      # the folder that is its own
repository = "git@git.example:shop.git"   # if it is there, releases come from nowhere else
starts = ["shop-web", "shop-jobs.service"]  # programs of supervisor, and units, that a deploy may start
supervisor = "/run/supervisor.sock"       # where supervisor listens, if not there
```
"""

from __future__ import annotations

import pwd
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from agent.actions.action import Action, NamedCommand
from agent.wire import WireError
from agent.wire.app import App, folder_of

MOST_BYTES = 64 * 1024
STOP_FILE = "stop-acting"
SUPERVISOR_SOCKET = "/run/supervisor.sock"
"""Where the supervisor of Debian and its like listens."""

_RULE_KEYS = ("allow", "deny")
_KEYS = (*_RULE_KEYS, "stop", "services", "commands", "apps")
_APP_KEYS = ("user", "folder", "repository", "starts", "supervisor")
_COMMAND_KEYS = ("argv", "user", "timeout_s")


class PolicyError(ValueError):
    """The policy file cannot be used; the text names file, line and what was meant."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Patterns of action names. `allow` None: what is allowed by default."""

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AppRules:
    """What a host lets be deployed. `repository` empty: from wherever the server says.

    `starts` are the programs of the supervisor that listens at `supervisor`, and the units, that a deploy may start.
    """

    user: str
    folder: str
    repository: str = ""
    starts: tuple[str, ...] = ()
    supervisor: str = SUPERVISOR_SOCKET

    def refusal(self, app: App) -> str | None:
        """Why an app may not be deployed as the server has it, as a sentence's end; None when it may."""
        wanted = {"user": (app.user, self.user), "folder": (app.folder, self.folder)}
        wanted |= {"repository": (app.repository, self.repository)} if self.repository else {}
        for name, (asked, allowed) in wanted.items():
            if asked != allowed:
                return f"the policy of this host has {allowed} as its {name}, not {asked}"
        for start in (*(web.start for web in app.web), *(jobs.start for jobs in app.jobs)):
            if start is not None and start.name not in self.starts:
                what = f"{start.name} is not among what {app.name} may start"
                return f"{what} by the policy of this host ([apps.{app.name}], starts)"
        return None


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one host; of `services`, by pattern, the first that fits goes before the host's own."""

    rules: Rules = Rules()
    services: Mapping[str, Rules] = field(default_factory=dict)
    commands: Mapping[str, NamedCommand] = field(default_factory=dict)
    stop: bool = False
    apps: Mapping[str, AppRules] = field(default_factory=dict)

    def refusal(self, action: Action, service: str | None) -> str | None:
        """Why an action is not allowed, as a sentence's end; None when it is."""
        of_service = next((rules for name, rules in self.services.items() if fnmatchcase(service or "", name)), Rules())
        for rules in (of_service, self.rules):
            if pattern := _fitting(rules.deny, action.name):
                return f"the policy of this host denies {pattern}"
        allow = of_service.allow if of_service.allow is not None else self.rules.allow
        if allow is None:
            return None if action.spec.by_default else f"{action.name} must be allowed by the policy file of this host"
        return None if _fitting(allow, action.name) else f"the policy of this host does not allow {action.name}"


def load_policy(path: Path) -> Policy:
    """What the file says; the defaults where there is none. Raises PolicyError."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1).decode()
        if len(text) > MOST_BYTES:
            raise PolicyError(f"{path} is larger than {MOST_BYTES} bytes")
        table = tomllib.loads(text)
    except FileNotFoundError:
        return Policy()
    except OSError as error:
        raise PolicyError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, PolicyError):
            raise
        raise PolicyError(f"{path} is not TOML: {error}") from None
    return _Reader(path, text).policy(table)


class _Reader:
    """Makes a policy of a TOML table, and says where what is wrong."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.split("\n")

    def policy(self, table: Mapping[str, Any]) -> Policy:
        self._known(table, _KEYS, "")
        stop = table.get("stop", False)
        if not isinstance(stop, bool):
            raise self._wrong("stop", "must be true or false")
        return Policy(
            self._rules(table),
            {name: self._service(name, rules) for name, rules in self._tables(table, "services")},
            {name: self._command(name, command) for name, command in self._tables(table, "commands")},
            stop,
            {name: self._app(name, app) for name, app in self._tables(table, "apps")},
        )

    def _tables(self, table: Mapping[str, Any], key: str) -> list[tuple[str, Mapping[str, Any]]]:
        value = table.get(key, {})
        if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
            raise self._wrong(key, f"must be written as tables: [{key}.NAME]")
        return list(value.items())

    def _service(self, name: str, table: Mapping[str, Any]) -> Rules:
        self._known(table, _RULE_KEYS, name)
        return self._rules(table)

    def _rules(self, table: Mapping[str, Any]) -> Rules:
        allow = self._texts(table, "allow") if "allow" in table else None
        return Rules(allow, self._texts(table, "deny") if "deny" in table else ())

    def _command(self, name: str, table: Mapping[str, Any]) -> NamedCommand:
        self._known(table, _COMMAND_KEYS, name)
        argv, seconds, user = self._texts(table, "argv"), table.get("timeout_s", 60), table.get("user")
        if not argv or not argv[0].startswith("/"):
            raise self._wrong("argv", "must be a list that begins with a program's full path")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 540:
            raise self._wrong("timeout_s", "must be a number of seconds from 1 to 540")
        return NamedCommand(argv, float(seconds), None if user is None else self._uid(user))

    def _app(self, name: str, table: Mapping[str, Any]) -> AppRules:
        self._known(table, _APP_KEYS, name)
        self._uid(table.get("user"))
        try:
            folder = folder_of(str(table.get("folder", "")))
        except WireError as error:
            raise self._wrong("folder", error.problem) from None
        repository = table.get("repository", "")
        if not isinstance(repository, str):
            raise self._wrong("repository", "must be a text")
        starts = self._texts(table, "starts") if "starts" in table else ()
        socket = table.get("supervisor", SUPERVISOR_SOCKET)
        if not isinstance(socket, str) or not socket.startswith("/"):
            raise self._wrong("supervisor", "must be the full path of supervisor's socket")
        return AppRules(str(table["user"]), folder, repository, starts, socket)

    def _uid(self, user: object) -> int:
        try:
            return pwd.getpwnam(str(user)).pw_uid
        except KeyError:
            raise self._wrong("user", f"names {user!r:.60}, who is no user of this host") from None

    def _texts(self, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
        value = table.get(key)
        if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
            raise self._wrong(key, "must be a list of texts")
        return tuple(value)

    def _known(self, table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
        for key in table:
            if key not in keys:
                raise self._wrong(key, f"is not known{' in ' + where if where else ''}; there are {', '.join(keys)}")

    def _wrong(self, key: str, problem: str) -> PolicyError:
        mark = re.compile(rf"""\s*\[*[\w."'-]*?["']?{re.escape(key)}["']?\s*[=.\]]""")
        line = next((number for number, text in enumerate(self._lines, 1) if mark.match(text)), 1)
        return PolicyError(f"{self._path}, line {line}: {key} {problem}")


def _fitting(patterns: tuple[str, ...], name: str) -> str | None:
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)
