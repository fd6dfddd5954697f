"""How Gunicorn looks from outside: its masters, its workers, their heartbeat and the settings in sight. Pure."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from agent.deaths import SIGABRT, DeathRules, ExitCode
from agent.procfs import OpenFile
from agent.workers.arguments import Arguments, number, program_name, shell_words, take_apart, whole
from agent.workers.kind import Child, Command, Files, Look, Signs
from agent.workers.settings import ServiceSettings

KIND = "gunicorn"
SIGNS = Signs(
    master="holds the heartbeat files of Gunicorn workers",
    worker="with its own heartbeat",
    ready="its time was set by the worker's main loop for the first time",
    ready_source="heartbeat file",
)
RULES = DeathRules(
    aborts_with=SIGABRT,
    aborted_because="it had stopped beating",
    exit_codes={
        3: ExitCode("boot_error", "it failed to boot", is_fatal=True),
        4: ExitCode("app_load_error", "its application could not be loaded", is_fatal=True),
    },
)

HEARTBEAT_MARK = "/wgunicorn-"
"""Every worker's heartbeat file has this in its name; the master makes it right before the fork."""

CONFIG_FILE = "gunicorn.conf.py"
"""Read from the working folder when no other is named."""

SECOND = ".2"
"""What a master that another one has begun (USR2) puts behind its name, until it finds, once a second, that one gone."""

BEGUN_BY = "GUNICORN_PID"
"""A master that another one has begun finds that one's pid in its environment."""

CONTROL_SOCKET = "gunicorn.ctl"
"""Since 25.1 a master listens there for `gunicornc`."""

DEFAULTS = {"workers": "1", "threads": "1", "worker_class": "sync", "timeout": "30", "max_requests": "0"}

_MODULES = ("gunicorn", "gunicorn.app.wsgiapp")
_TITLE = re.compile(r"^gunicorn: (?P<role>master|worker) \[(?P<name>.*)\]$")
_ONE_SHOT_OPTIONS = ("--check-config", "--print-config", "--version", "-v", "--help", "-h")
_FLAGS = frozenset(
    {"--reload", "--spew", "--preload", "--no-sendfile", "--reuse-port", "--daemon", "-D", "--capture-output"}
    | {"--enable-backlog-metric", "--enable-stdio-inheritance", "-R", "--disable-redirect-access-to-syslog"}
    | {"--initgroups", "--log-syslog", "--strip-header-spaces", "--suppress-ragged-eofs"}
    | {"--do-handshake-on-connect", "--permit-obsolete-folding", "--permit-unconventional-http-method"}
    | {"--permit-unconventional-http-version", "--casefold-http-method", "--no-control-socket"}
    | {*_ONE_SHOT_OPTIONS}
)
_SHORT = {"workers": "-w", "worker_class": "-k", "timeout": "-t", "bind": "-b", "config": "-c", "proc_name": "-n"}
_LONG = {"proc_name": "--name", "wsgi_app": "--wsgi-app"}


def is_command(argv: Sequence[str]) -> bool:
    """Whether this argument vector, or the title that setproctitle put in its place, is Gunicorn's."""
    if not argv:
        return False
    if argv[0].startswith("gunicorn: "):
        return True
    if any(program_name(word) == "gunicorn" for word in argv[:2]):
        return True
    return any(flag == "-m" and module in _MODULES for flag, module in pairwise(argv))


def is_worker_title(argv: Sequence[str]) -> bool:
    """Whether setproctitle names the process a worker; a title that is absent says nothing."""
    match = _TITLE.match(argv[0]) if argv else None
    return match is not None and match["role"] == "worker"


def read_command(argv: Sequence[str], environment: Mapping[str, str], files: Files) -> Command:
    """What the command line says, over GUNICORN_CMD_ARGS, over the configuration file, over the defaults.

    A title has taken the place of the command line: then only the name is known, and what a configuration file in the
    working folder says if it says all there is to know. Values that such a file computes are not known.
    """
    named = title_name(argv)
    from_environment = take_apart(shell_words(environment.get("GUNICORN_CMD_ARGS", "")), _FLAGS)
    given = take_apart(_own_arguments(argv), _FLAGS).over(from_environment)
    file = given.last("--config", "-c") or (CONFIG_FILE if files.has(CONFIG_FILE) else None)
    said = _from_file(files.text(file.removeprefix("file:"))) if file else {}
    if named is not None:
        is_app = "." in named or ":" in named
        settings = _settings(Arguments({}, ()), said, file, app=named if is_app else None, defaults={})
        return Command(None if is_app else named, named if is_app else None, settings)
    app = given.words[-1] if given.words else _value("wsgi_app", given, said, {})
    settings = _settings(given, said, file, app=app, defaults=DEFAULTS)
    name = _value("proc_name", given, said, {})
    looks_like_app = name is not None and ("." in name or ":" in name)  # a title could not tell such a name from an app
    if looks_like_app:
        name, app = None, name
    return Command(name, app, settings, one_shot=given.has(*_ONE_SHOT_OPTIONS))


def is_up(look: Look, pid: int, children: Collection[int], command: Command) -> bool:
    """A master holds the heartbeat file of its first worker."""
    return bool(look.open_files(pid, HEARTBEAT_MARK))


def child(look: Look, pid: int, master_argv: Sequence[str], settings: ServiceSettings) -> Child:
    """A fork with a heartbeat file is a worker; which one is told by `heartbeat`, so nothing is said here."""
    return Child.UNKNOWN


def is_ready(look: Look, pid: int) -> bool | None:
    """The heartbeat says it."""
    return None


def serves_clients(address: str) -> bool:
    """All listeners but the control socket."""
    return not address.endswith(f"/{CONTROL_SOCKET}")


def title_name(argv: Sequence[str]) -> str | None:
    """The name in the title that setproctitle made; None while there is no title."""
    title = _TITLE.match(argv[0]) if argv else None
    return None if title is None else title["name"]


def titled(name: str) -> tuple[str, ...]:
    """The title of a master of that name."""
    return (f"gunicorn: master [{name}]",)


def is_second(argv: Sequence[str]) -> bool:
    """Whether the title may be that of a master that another one has begun; a name may end so by itself."""
    name = title_name(argv)
    return name is not None and name.endswith(SECOND)


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
        if program_name(word) in _MODULES:
            return list(argv[index + 1 :])
    return []


def _settings(
    given: Arguments, said: Mapping[str, str | None], file: str | None, *, app: str | None, defaults: Mapping[str, str]
) -> ServiceSettings:
    def value(name: str) -> str | None:
        return _value(name, given, said, defaults)

    threads, worker_class = whole(value("threads")), value("worker_class")
    if worker_class == "sync" and threads is not None and threads > 1:
        worker_class = "gthread"  # what Gunicorn makes of it
    binds = given.every("-b", "--bind") or tuple(part for part in (said.get("bind") or "").split(",") if part)
    preload: bool | None = given.has("--preload") or said.get("preload_app") == "True"
    if not preload and (("preload_app" in said and said["preload_app"] is None) or not defaults):
        preload = None
    return ServiceSettings(
        app=app,
        workers=whole(value("workers")),
        threads=threads,
        worker_class=worker_class,
        timeout_s=number(value("timeout")),
        max_requests=whole(value("max_requests")),
        preload=preload,
        binds=binds,
        config_file=file,
    )


def _value(name: str, given: Arguments, said: Mapping[str, str | None], defaults: Mapping[str, str]) -> str | None:
    """The value of a setting by its name in a configuration file; None where it is not known."""
    long = _LONG.get(name, f"--{name.replace('_', '-')}")
    on_line = given.last(long, _SHORT[name]) if name in _SHORT else given.last(long)
    if on_line is not None:
        return on_line
    return said[name] if name in said else defaults.get(name)


def _from_file(text: str) -> dict[str, str | None]:
    """The plain values that a configuration file gives; None for those that only running it would tell.

    The file is parsed, never run. A file that cannot be parsed, or that imports or changes settings in ways that a
    plain look does not follow, makes every setting unknown that it does not name plainly.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return dict.fromkeys(_FROM_FILE)
    found: dict[str, str | None] = {}
    if not text or any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in tree.body):
        found = dict.fromkeys(_FROM_FILE)
    for node in ast.walk(tree):
        targets = _targets(node)
        for target in targets:
            if isinstance(target, ast.Name) and target.id in _FROM_FILE:
                plain = isinstance(node, ast.Assign) and node in tree.body and target.id not in found
                found[target.id] = _plain(node.value) if plain and isinstance(node, ast.Assign) else None
    return found


_FROM_FILE = (*DEFAULTS, "bind", "proc_name", "wsgi_app", "preload_app")


def _targets(node: ast.AST) -> Sequence[ast.expr]:
    if isinstance(node, ast.Assign):
        return node.targets
    if isinstance(node, ast.AugAssign | ast.AnnAssign):
        return (node.target,)
    return ()


def _plain(node: ast.expr) -> str | None:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    return str(value)
