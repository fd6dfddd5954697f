"""How uvicorn looks from outside: its supervisor, the workers that this spawns, or a single process. Pure.

The supervisor starts each worker as a new interpreter (multiprocessing's spawn). A worker is ready when its event
loop waits on the listening socket.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from agent.deaths import DeathRules, ExitCode
from agent.workers.arguments import after_program, number, take_apart, whole
from agent.workers.kind import Child, Command, Files, Look, Signs
from agent.workers.settings import ServiceSettings

KIND = "uvicorn"
SIGNS = Signs(
    master="runs uvicorn and has workers, or waits for clients itself",
    worker="which it spawned as an interpreter of its own",
    ready="its event loop waits on a listening socket",
    ready_source="epoll",
)
RULES = DeathRules(
    kills_only_stuck=True,
    aborted_because="it had not answered the supervisor's ping",
    exit_codes={3: ExitCode("boot_error", "its application could not start")},
)

_PROGRAMS = ("uvicorn", "fastapi")
_FASTAPI_COMMANDS = frozenset({"run", "dev"})
_FLAGS = frozenset(
    {"--reload", "--use-colors", "--no-use-colors", "--proxy-headers", "--no-proxy-headers", "--server-header"}
    | {"--no-server-header", "--date-header", "--no-date-header", "--access-log", "--no-access-log", "--factory"}
    | {"--version", "--help", "-h", "--no-reload"}
)
_ONE_SHOT_OPTIONS = ("--version", "--help", "-h")
_SPAWNED = "multiprocessing.spawn"


def is_command(argv: Sequence[str]) -> bool:
    """Whether the program is uvicorn, or `fastapi run`."""
    arguments = after_program(argv, _PROGRAMS)
    if arguments is None:
        return False
    is_uvicorn = after_program(argv, ("uvicorn",)) is not None
    return is_uvicorn or bool(arguments[:1] and arguments[0] in _FASTAPI_COMMANDS)


def is_worker_title(argv: Sequence[str]) -> bool:
    """uvicorn sets no titles."""
    return False


def read_command(argv: Sequence[str], environment: Mapping[str, str], files: Files) -> Command:
    """What the command line says, over UVICORN_* and WEB_CONCURRENCY of the environment."""
    given = take_apart(after_program(argv, _PROGRAMS) or [], _FLAGS)
    words = given.words[1:] if given.words and given.words[0] in _FASTAPI_COMMANDS else given.words
    app = words[0] if words else environment.get("UVICORN_APP")
    reloads = given.has("--reload") or given.words[:1] == ("dev",)
    said = given.last("--workers") or environment.get("UVICORN_WORKERS") or environment.get("WEB_CONCURRENCY")
    workers = 1 if reloads else whole(said or "1")
    host, port, uds = given.last("--host") or "127.0.0.1", given.last("--port") or "8000", given.last("--uds")
    settings = ServiceSettings(
        app=app,
        workers=workers,
        threads=1,
        worker_class="asyncio",
        timeout_s=number(given.last("--timeout-worker-healthcheck")),
        max_requests=whole(given.last("--limit-max-requests") or "0"),
        preload=False,
        finishes_on_term=True,
        binds=(f"unix:{uds}" if uds else f"{host}:{port}",)
        if not given.has("--fd")
        else (f"fd://{given.last('--fd')}",),
    )
    serves_itself = workers == 1 and not reloads
    return Command(None, app, settings, one_shot=given.has(*_ONE_SHOT_OPTIONS), serves_itself=serves_itself)


def is_up(look: Look, pid: int, children: Collection[int], command: Command) -> bool:
    """A supervisor with a worker, or a process that waits for clients."""
    return any(_is_spawned(look, one) for one in children) or _serves(look, pid)


def child(look: Look, pid: int, master_argv: Sequence[str], settings: ServiceSettings) -> Child:
    """An interpreter that multiprocessing spawned; its resource tracker is a helper. Before its exec it is unknown."""
    argv = look.command(pid)
    if any("multiprocessing.resource_tracker" in word for word in argv):
        return Child.HELPER
    return Child.WORKER if _is_spawned(look, pid) else Child.UNKNOWN


def is_ready(look: Look, pid: int) -> bool | None:
    """A worker whose event loop waits for clients."""
    return _serves(look, pid)


def serves_clients(address: str) -> bool:
    """All of them."""
    return True


def _is_spawned(look: Look, pid: int) -> bool:
    return any(_SPAWNED in word for word in look.command(pid))


def _serves(look: Look, pid: int) -> bool:
    return bool(look.awaited(pid) & look.listening_inodes(pid))
