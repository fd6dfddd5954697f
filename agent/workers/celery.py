"""How Celery looks from outside: nodes with their pool, beat, and the settings and brokers in sight. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import urlsplit

from agent.deaths import DeathRules, ExitCode
from agent.workers.arguments import Arguments, after_program, number, take_apart, whole
from agent.workers.kind import Child, Command, Files, Look, Signs
from agent.workers.settings import ServiceSettings

KIND = "celery"
SIGNS = Signs(
    master="runs a Celery node",
    worker="which is of its pool",
    ready="it waits for a task from its pool",
    forks_ready=True,
)
RULES = DeathRules(
    aborted_because="its task took longer than its time limit allows, or was revoked with terminate",
    kills_only_stuck=True,
    exit_codes={
        1: ExitCode("error_exit", "an error ended it"),
        155: ExitCode(
            "recycled", "it had run as many tasks, or held as much memory, as it may", expected=True, by_itself=True
        ),
    },
    clean_exit="as a process of a pool that ends or shrinks",
)

FORKING_POOLS = frozenset({"prefork", "processes"})
_ROLES = frozenset({"worker", "beat"})
_TITLE = re.compile(r"^\[?(celeryd|celery[: ]|celery beat)")
_MAIN_TITLE = re.compile(r"^\[(celeryd: (?P<node>\S+):MainProcess\].*\(|celery beat\] \(?)(?P<line>[^()]*)\)?")
_CHILD_TITLE = re.compile(r"^\[celeryd: \S+:(ForkPoolWorker|PoolWorker|SpawnPoolWorker)-\d+")
_BEAT_TITLE = re.compile(r"^\[celery beat\]")
_FLAGS = frozenset(
    {"--beat", "-B", "-E", "--task-events", "--events", "--without-gossip", "--without-mingle", "--without-heartbeat"}
    | {"--purge", "--discard", "--detach", "-D", "--quiet", "-q", "--no-color", "--skip-checks", "--version", "--help"}
    | {"-h"}
)
_ONE_SHOT_OPTIONS = ("--version", "--help", "-h", "--detach", "-D")
_BROKER_SCHEMES = frozenset(
    {"redis", "rediss", "redis+socket", "sentinel", "amqp", "amqps", "pyamqp", "valkey", "valkeys"}
)
_BROKER_NAMES = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "BROKER_URL")
_POLLS = ("poll", "select")
_MOST_BROKERS = 4


def is_command(argv: Sequence[str]) -> bool:
    """Whether it runs `celery … worker` or `celery … beat`, or a title says so."""
    if argv and _TITLE.match(argv[0]) and not argv[0].endswith("/celery") and argv[0].startswith("["):
        return True
    arguments = after_program(argv, ("celery",))
    return arguments is not None and bool(_ROLES & set(take_apart(arguments, _FLAGS).words[:1]))


def is_worker_title(argv: Sequence[str]) -> bool:
    """Whether a title names it a process of a pool, or a beat inside of a node."""
    return bool(argv) and bool(_CHILD_TITLE.match(argv[0]) or _BEAT_TITLE.match(argv[0]))


def read_command(argv: Sequence[str], environment: Mapping[str, str], files: Files) -> Command:
    """What the command line and the environment say; what the application sets in its code is not known."""
    title = _MAIN_TITLE.match(argv[0]) if argv else None
    arguments = title["line"].split() if title is not None else after_program(argv, ("celery",)) or []
    given = take_apart(arguments, _FLAGS)
    role = next((word for word in given.words if word in _ROLES), "worker")
    app = given.last("-A", "--app") or environment.get("CELERY_APP")
    pool = given.last("-P", "--pool") or environment.get("CELERY_WORKER_POOL") or "prefork"
    node = given.last("-n", "--hostname") or (title["node"] if title is not None else None)
    is_forking = role == "worker" and pool in FORKING_POOLS
    concurrency = whole(given.last("-c", "--concurrency"))
    settings = ServiceSettings(
        app=app,
        workers=concurrency if is_forking else None,
        threads=concurrency if not is_forking and role == "worker" else None,
        worker_class=pool if role == "worker" else None,
        timeout_s=number(given.last("--time-limit")),
        max_requests=whole(given.last("--max-tasks-per-child")),
        preload=True if is_forking else None,
        queues=tuple(queue for value in given.every("-Q", "--queues") for queue in value.split(",") if queue),
        node=node,
        role=role,
    )
    return Command(
        _own_name(node),
        app,
        settings,
        one_shot=given.has(*_ONE_SHOT_OPTIONS),
        serves_itself=not is_forking,
        broker_urls=_brokers(given, environment),
    )


def is_up(look: Look, pid: int, children: Collection[int], command: Command) -> bool:
    """A node whose pool has a process. One without a forking pool cannot be told from one that boots: its age tells."""
    return not command.serves_itself and any(look.command(one) for one in children)


def child(look: Look, pid: int, master_argv: Sequence[str], settings: ServiceSettings) -> Child:
    """A fork that stays Celery is of the pool, unless it is the beat inside (`-B`): its title says so, or it never waits
    for its node as the pool does."""
    argv = look.command(pid)
    if not argv:
        return Child.UNKNOWN
    if _BEAT_TITLE.match(argv[0]):
        return Child.HELPER
    if _CHILD_TITLE.match(argv[0]):
        return Child.WORKER
    sleeps_in = look.sleeps_in(pid)
    if settings.worker_class not in FORKING_POOLS or argv != tuple(master_argv) or sleeps_in is None:
        return Child.UNKNOWN
    may_be_beat = any(word in ("-B", "--beat") for word in argv)
    return Child.UNKNOWN if may_be_beat and not _waits_for_its_node(sleeps_in) else Child.WORKER


def is_ready(look: Look, pid: int) -> bool | None:
    """A process of a pool that sleeps until its node hands it a task."""
    sleeps_in = look.sleeps_in(pid)
    return sleeps_in is not None and (_waits_for_its_node(sleeps_in) or any(word in sleeps_in for word in _POLLS))


def serves_clients(address: str) -> bool:
    """A node has no clients that connect to it."""
    return True


def _waits_for_its_node(sleeps_in: str) -> bool:
    """Whether a process of a pool sleeps in this function of the kernel until it is handed a task; `0`: it is hidden."""
    return sleeps_in == "0" or any(word in sleeps_in for word in ("pipe", "unix_stream", "skb_wait"))


def _own_name(node: str | None) -> str | None:
    """`orders` of `-n orders@%h`; nothing of the default name, which every node has."""
    name = (node or "").partition("@")[0]
    return name if name and name != "celery" and "%" not in name else None


def _brokers(given: Arguments, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Addresses that may be the broker's, the surest first."""
    named = [given.last("-b", "--broker"), *(environment.get(name) for name in _BROKER_NAMES)]
    likely = sorted(
        (name for name in environment if "BACKEND" not in name and "CACHE" not in name),
        key=lambda name: ("BROKER" not in name, "CELERY" not in name, name),
    )
    urls = [url for url in (*named, *(environment[name] for name in likely)) if url and _is_broker(url)]
    return tuple(dict.fromkeys(urls))[:_MOST_BROKERS]


def _is_broker(url: str) -> bool:
    try:
        return urlsplit(url).scheme in _BROKER_SCHEMES
    except ValueError:
        return False
