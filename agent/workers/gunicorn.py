"""How Gunicorn looks from outside: its masters, its workers, their heartbeat and the settings in sight.

Pure: everything is decided from values that `procfs` read.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

from agent.procfs import OpenFile, Process

KIND = "gunicorn"
HEARTBEAT_MARK = "/wgunicorn-"
"""Every worker's heartbeat file has this in its name; the master makes it right before the fork."""

CONFIG_FILE = "gunicorn.conf.py"
"""Read from the working folder when no other is named."""

DEFAULT_TIMEOUT_S = 30.0

_MODULES = ("gunicorn", "gunicorn.app.wsgiapp")
_TITLE = re.compile(r"^gunicorn: (?P<role>master|worker) \[(?P<name>.*)\]$")
_ONE_SHOT_OPTIONS = frozenset({"--check-config", "--print-config", "--version", "-v", "--help", "-h"})
_FLAGS = frozenset(
    {"--reload", "--spew", "--preload", "--no-sendfile", "--reuse-port", "--daemon", "-D", "--capture-output"}
    | {"--enable-backlog-metric", "--enable-stdio-inheritance", "-R", "--disable-redirect-access-to-syslog"}
    | {"--initgroups", "--log-syslog", "--strip-header-spaces", "--suppress-ragged-eofs"}
    | {"--do-handshake-on-connect", "--permit-obsolete-folding", "--permit-unconventional-http-method"}
    | {"--permit-unconventional-http-version", "--casefold-http-method", "--no-control-socket"}
)

_FOLDERS_WITHOUT_MEANING = frozenset({"current", "app", "src", "code", "web", "backend", "server", "", "/"})
_RELEASE_FOLDER = re.compile(r"^(releases?|v?[\d.\-_T]{6,}|[0-9a-f]{7,40})$")
_UNIT = re.compile(r"/(?P<unit>[^/]+)\.service(?:/|$)")
_SHARED_UNITS = re.compile(
    r"^(user@\d+|supervisord?|circus[d]?|docker|containerd|podman|cron|crond|sshd?|ssh@.*|gitlab-runner|actions\.runner.*|"
    r"getty@.*|session-.*|process_api|emergency|rescue)$"
)
_CONTAINER = re.compile(r"(?:docker|cri-containerd|libpod|crio)[-/](?P<id>[0-9a-f]{12})[0-9a-f]{52}")


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What a Gunicorn command line says.

    `proc_name` is what Gunicorn calls itself: its `--name`, else its application. `timeout_s` is None when it is not
    known: the title has replaced the command line, or a configuration file has the last word. `one_shot` is for
    commands that check or print and end.
    """

    proc_name: str | None
    timeout_s: float | None
    one_shot: bool


def is_command(argv: Sequence[str]) -> bool:
    """Whether this argument vector, or the title that setproctitle put in its place, is Gunicorn's."""
    if not argv:
        return False
    if argv[0].startswith("gunicorn: "):
        return True
    if any(PurePosixPath(word).name == "gunicorn" for word in argv[:2]):
        return True
    return any(flag == "-m" and module in _MODULES for flag, module in pairwise(argv))


def is_worker_title(argv: Sequence[str]) -> bool:
    """Whether setproctitle names the process a worker; a title that is absent says nothing."""
    match = _TITLE.match(argv[0]) if argv else None
    return match is not None and match["role"] == "worker"


def parse_command(
    argv: Sequence[str], environment: Mapping[str, str], *, config_file_in_folder: bool = False
) -> CommandLine:
    """What the command line says; GUNICORN_CMD_ARGS comes before it, so the command line wins."""
    named = title_name(argv)
    if named is not None:
        return CommandLine(named, timeout_s=None, one_shot=False)
    options, positional = _split(_own_arguments(argv))
    for key, value in _split(_words(environment.get("GUNICORN_CMD_ARGS", "")))[0].items():
        options.setdefault(key, value)
    has_config = config_file_in_folder or "--config" in options or "-c" in options
    said = options.get("--timeout") or options.get("-t")
    app = positional[-1] if positional else options.get("--wsgi-app")
    return CommandLine(
        proc_name=options.get("--name") or options.get("-n") or app,
        timeout_s=_number(said) if said or has_config else DEFAULT_TIMEOUT_S,
        one_shot=bool(_ONE_SHOT_OPTIONS & options.keys()),
    )


def title_name(argv: Sequence[str]) -> str | None:
    """The name in the title that setproctitle made; None while there is no title."""
    title = _TITLE.match(argv[0]) if argv else None
    return None if title is None else title["name"]


def service_name(process: Process, proc_name: str | None) -> str:
    """What people call the service: its unit, else its `--name`, else its folder and application.

    Units that run many services at once do not count, and a container's id goes before the latter two. Whether
    `proc_name` was given as `--name` cannot be read off a title, so its look decides: with a dot or a colon it is an
    application. That gives one answer however the process was found.
    """
    unit = _UNIT.search(process.cgroup)
    if unit is not None and not _SHARED_UNITS.match(unit["unit"]):
        return unit["unit"]
    is_app = proc_name is None or "." in proc_name or ":" in proc_name
    own = _folder_and_app(process.folder, proc_name) if is_app else str(proc_name)
    container = _CONTAINER.search(process.cgroup)
    return f"{container['id']}/{own}" if container is not None else own


def heartbeat(files: Sequence[OpenFile], others: frozenset[int]) -> OpenFile | None:
    """A worker's own heartbeat file among those that it holds: not one of `others` (inodes), else the newest."""
    own = [file for file in files if file.inode not in others]
    return max(own, key=lambda file: file.inode, default=None)


def last_beat_ns(file: OpenFile, *, uptime_ns: int, wall_offset_ns: int) -> int | None:
    """When the worker last said that it is alive, in ns of CLOCK_MONOTONIC; None before its first beat.

    Since Gunicorn 21 a beat sets the file's mtime to the monotonic clock; until then mtime is a wall clock time,
    decades ahead of it. Older versions flip the file's mode between 0 and 1 instead, which moves its ctime.
    `wall_offset_ns` is wall clock minus monotonic clock.
    """
    if file.modified_ns <= uptime_ns:
        return file.modified_ns
    if file.mode & 0o777 in (0, 1):
        return file.changed_ns - wall_offset_ns
    return None


def _own_arguments(argv: Sequence[str]) -> list[str]:
    """The arguments after the program's name: after `gunicorn`, or after `-m gunicorn`."""
    for index, word in enumerate(argv):
        if PurePosixPath(word).name in _MODULES:
            return list(argv[index + 1 :])
    return []


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Options with their values, and positional words. A flag's value is the empty string; the last one wins."""
    options: dict[str, str] = {}
    positional: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            takes_value = name not in _FLAGS and name not in _ONE_SHOT_OPTIONS
            options[name] = value if equals or not takes_value else next(rest, "")
        elif word.startswith("-") and len(word) > 1:
            name, value = word[:2], word[2:]
            takes_value = name not in _FLAGS and name not in _ONE_SHOT_OPTIONS
            options[name] = value if value or not takes_value else next(rest, "")
        else:
            positional.append(word)
    return options, positional


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _folder_and_app(folder: str, app: str | None) -> str:
    parts = [part for part in PurePosixPath(folder).parts if part not in _FOLDERS_WITHOUT_MEANING]
    while parts and _RELEASE_FOLDER.match(parts[-1]):
        parts.pop()
    where = parts[-1] if parts else ""
    return "/".join(part for part in (where, app or KIND) if part)
