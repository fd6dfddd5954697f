"""How uWSGI looks from outside: masters, workers, vassals of an emperor, and the settings in sight. Pure.

A worker waits with epoll on the sockets that clients connect to; mules and spoolers do not, and the routers of `--http`
wait on sockets of their own. That tells a worker from them, and one that is ready from one that loads its application.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from agent.deaths import SIGUSR2, DeathRules, ExitCode
from agent.workers.arguments import Arguments, number, take_apart, whole
from agent.workers.kind import Child, Command, Files, Look, Signs
from agent.workers.settings import ServiceSettings

KIND = "uwsgi"
SIGNS = Signs(
    master="runs uWSGI and has workers, or waits for clients itself",
    worker="which waits for clients as uWSGI workers do",
    ready="it waits on a listening socket of the service",
    ready_source="epoll",
)
RULES = DeathRules(
    aborts_with=SIGUSR2,
    kills_only_stuck=True,
    only_with_timeout=True,
    exits_after_fault=1,
    aborted_because="its request took longer than harakiri allows",
    exit_codes={
        15: ExitCode("recycled", "the master has fewer workers now (cheaper)", expected=True),
        17: ExitCode("recycled", "it ended to be loaded anew", expected=True),
        22: ExitCode("app_load_error", "its application could not be loaded (need-app)", is_fatal=True),
        26: ExitCode("recycled", "the emperor ends it", expected=True),
        29: ExitCode("recycled", "it ended for good", expected=True),
        30: ExitCode("recycled", "it ended for good", expected=True),
        31: ExitCode("recycled", "it ended to be loaded anew, at once", expected=True),
        5: ExitCode("error_exit", "an exception ended it (reload-on-exception)"),
    },
    clean_exit="as after its last allowed request (max-requests, reload-on-rss)",
)

_PROGRAMS = re.compile(r"^uwsgi(-core|_python\d*|-plugin.*)?$")
_TITLE = re.compile(r"(^|.*[ -])uWSGI (?P<role>master|Emperor|worker|mule|http|spooler|cache|fastrouter|cheap|\[)")
_ONE_SHOT_OPTIONS = (
    "--version",
    "--help",
    "-h",
    "--stop",
    "--reload",
    "--connect-and-read",
    "--build-plugin",
    "--cflags",
)
_FLAGS = frozenset(
    {"--master", "-M", "--enable-threads", "--lazy-apps", "--lazy", "--need-app", "--vacuum", "--die-on-term"}
    | {"--single-interpreter", "-i", "--thunder-lock", "--no-orphans", "--auto-procname", "--disable-logging", "-L"}
    | {"--reuse-port", "--py-call-osafterfork", "--strict", "--honour-stdin", "--memory-report", "-m", "--log-5xx"}
    | {
        "--log-4xx",
        "--harakiri-verbose",
        "--plugins-list",
        "--cheap",
        "--idle-cheap",
        "--http-keepalive",
        "--ignore-sigpipe",
    }
    | {"--ignore-write-errors", "--disable-write-exception", "--log-master", "--threaded-logger", "--dump-options"}
    | {"--show-config", "--no-default-app", "--close-on-exec", "--buffer-size-is-hard", "--wsgi-disable-file-wrapper"}
    | {"--post-buffering-is-hard", "--so-keepalive", "--abstract-socket", "--http-auto-chunked", "--offload-all"}
    | {"--version", "--help", "-h", "--cflags"}
)
_FILES = ("--ini", "--yaml", "--yml", "--json", "--xml", "-x", "--config")
_MOST_FILES = 8
_GRACEFUL_TERM = "unix_signal:15 gracefully_kill_them_all"
_OTHER_CHILDREN = (
    *(
        "--mule",
        "--mules",
        "--farm",
        "--spooler",
        "-Q",
        "--http",
        "--https",
        "--fastrouter",
        "--rawrouter",
        "--emperor",
    ),
    *("--attach-daemon", "--smart-attach-daemon", "--attach-daemon2", "--legion"),
)
_BINDS = (
    "--socket",
    "-s",
    "--http-socket",
    "--uwsgi-socket",
    "--https-socket",
    "--fastcgi-socket",
    "--http",
    "--https",
)
_ROUTER_BINDS = ("--http", "--https", "--fastrouter", "--rawrouter", "--sslrouter")


def is_command(argv: Sequence[str]) -> bool:
    """Whether the program is uwsgi, or a title says so (auto-procname)."""
    if not argv:
        return False
    return bool(_PROGRAMS.match(PurePosixPath(argv[0]).name)) or bool(_TITLE.match(argv[0]))


def is_worker_title(argv: Sequence[str]) -> bool:
    """Whether a title names the process anything else than a master."""
    title = _TITLE.match(argv[0]) if argv else None
    return title is not None and title["role"] not in ("master", "Emperor")


def read_command(argv: Sequence[str], environment: Mapping[str, str], files: Files) -> Command:
    """What the command line, `UWSGI_*` of the environment and the ini and yaml files say that it names."""
    given = take_apart(list(argv[1:]), _FLAGS)
    from_environment = {
        f"--{name.removeprefix('UWSGI_').lower().replace('_', '-')}": (value,)
        for name, value in environment.items()
        if name.startswith("UWSGI_")
    }
    given = given.over(Arguments(from_environment, ()))
    config, said = _from_files(given, files)
    whole_said = given.over(said)
    is_known = bool(argv) and not _TITLE.match(argv[0]) and said.last("?") is None
    default = "1" if is_known else None
    has_master = _on(whole_said, "--master", "-M") or whole_said.has("--emperor")
    app = whole_said.last("--module", "-w", "--wsgi-file", "--mount", "--file", "--pyrun")
    app = app or ("emperor" if whole_said.has("--emperor") else None)
    timeout_s = number(whole_said.last("--harakiri", "-t"))
    settings = ServiceSettings(
        app=app,
        workers=whole(whole_said.last("--processes", "-p", "--workers") or default),
        threads=whole(whole_said.last("--threads") or default),
        worker_class=_loop(whole_said),
        timeout_s=timeout_s or None,
        max_requests=whole(whole_said.last("--max-requests", "-R") or ("0" if is_known else None)),
        preload=not _on(whole_said, "--lazy-apps", "--lazy") if is_known else None,
        binds=whole_said.every(*_BINDS),
        router_binds=tuple(value.partition(",")[0] for value in whole_said.every(*_ROUTER_BINDS)),
        config_file=config,
        finishes_on_term=_GRACEFUL_TERM in whole_said.every("--hook-master-start"),
        fifo=next(iter(whole_said.every("--master-fifo")), None),
        cheaper=(whole_said.last("--cheaper-algo") or "spare") if whole_said.has("--cheaper") else None,
        role="emperor"
        if whole_said.has("--emperor")
        else ("with helpers" if whole_said.has(*_OTHER_CHILDREN) else None),
    )
    name = whole_said.last("--procname-prefix", "--procname-prefix-spaced", "--procname-master", "--procname")
    if name is None and argv and _TITLE.match(argv[0]):
        name = argv[0].partition("uWSGI ")[0]
    return Command(
        name.strip(" -") if name else None,
        app,
        settings,
        one_shot=given.has(*_ONE_SHOT_OPTIONS),
        serves_itself=is_known and not has_master and settings.workers == 1,
    )


def is_up(look: Look, pid: int, children: Collection[int], command: Command) -> bool:
    """A process that waits for clients itself, or one of whose children does; an emperor with a vassal."""
    if command.settings.role == "emperor":
        return bool(children)
    return any(_serves(look, one) for one in (*children, pid))


def child(look: Look, pid: int, master_argv: Sequence[str], settings: ServiceSettings) -> Child:
    """A fork is a worker unless mules and their like are configured, too: then it is one once it waits for clients."""
    title = look.command(pid)
    if is_worker_title(title):
        return Child.WORKER if "uWSGI worker" in title[0] else Child.HELPER
    if title != tuple(master_argv):
        return Child.UNKNOWN  # an emperor's vassal on its way, or an attached daemon: its exec tells
    if settings.role == "emperor":
        return Child.UNKNOWN
    if settings.role is None and settings.workers is not None:
        return Child.WORKER
    return Child.WORKER if _serves(look, pid) and not _routes(look, pid, settings) else Child.UNKNOWN


def is_ready(look: Look, pid: int) -> bool | None:
    """A worker that waits for clients."""
    return _serves(look, pid)


def serves_clients(address: str) -> bool:
    """All of them; the stats socket never has a queue worth a word."""
    return True


def _serves(look: Look, pid: int) -> bool:
    return bool(look.awaited(pid) & look.listening_inodes(pid))


def _routes(look: Look, pid: int, settings: ServiceSettings) -> bool:
    """Whether what the process waits on is a router's address. A port names it: the host may be given in many ways."""
    routers = tuple(f":{bind.rpartition(':')[2]}" if ":" in bind else bind for bind in settings.router_binds)
    if not routers:
        return False
    awaited = look.awaited(pid)
    return any(one.address.endswith(routers) for one in look.listeners(pid) if one.inode in awaited)


def _loop(said: Arguments) -> str:
    for name in ("gevent", "asyncio", "greenlet", "tornado"):
        if said.has(f"--{name}"):
            return name
    return "threads" if (whole(said.last("--threads")) or 1) > 1 else "prefork"


def _on(said: Arguments, *names: str) -> bool:
    value = said.last(*names)
    return value is not None and value.lower() not in ("false", "0", "no")


def _from_files(given: Arguments, files: Files) -> tuple[str | None, Arguments]:
    """The first file's name and what all files say that are named, by each other, too. `?` stands for the unreadable."""
    waiting = [*given.every(*_FILES), *(word for word in given.words if _is_file(word))]
    first, options, seen = next(iter(waiting), None), dict[str, tuple[str, ...]](), set[str]()
    while waiting and len(seen) < _MOST_FILES:
        path = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        text = files.text(path.partition(":")[0] if not path.startswith("/") else path)
        lines = list(_lines(path, text))
        if not lines:
            options["?"] = (path,)
        for name, value in lines:
            if f"--{name}" in _FILES:
                waiting.append(value)
            else:
                options[f"--{name}"] = (*options.get(f"--{name}", ()), value)
    return first, Arguments(options, ())


def _is_file(word: str) -> bool:
    return word.endswith((".ini", ".yaml", ".yml", ".json", ".xml", ".uwsgi"))


def _lines(path: str, text: str) -> Iterator[tuple[str, str]]:
    """`name = value` of the section [uwsgi] of an ini file, `name: value` of a yaml file; other formats tell nothing."""
    mark = ":" if path.endswith((".yaml", ".yml")) else "="
    inside = mark == ":"
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            inside = line.startswith("[uwsgi")
        elif inside and line and line[0] not in "#;%":
            name, _, value = line.removeprefix("- ").partition(mark)
            yield name.strip(), value.strip().strip("'\"")
