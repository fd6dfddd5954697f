"""The worker programs that are tried: which version, started how, and what must be read of them."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = Path(__file__).parents[2] / ".reflex" / "programs"

APP = """
import ctypes
def app(environ, start_response):
    if environ["PATH_INFO"] == "/crash":
        ctypes.string_at(0)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]
application = app
async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"].endswith("shutdown"):
                return
    if scope["path"] == "/crash":
        ctypes.string_at(0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})
"""
TASKS = """
import ctypes, os
from celery import Celery
app = Celery("tasks", broker=os.environ["TASKS_BROKER"])
app.conf.broker_connection_retry_on_startup = True
@app.task
def nothing(): pass
@app.task
def crash(): ctypes.string_at(0)
"""
CONFIGURATION = """
bind = "127.0.0.1:{port}"
workers = 2
timeout = 40
max_requests = 7
proc_name = "{key}"
wsgi_app = "app:app"
"""
INI = """
[uwsgi]
http-socket = 127.0.0.1:{port}
wsgi-file = app.py
master = true
processes = 2
harakiri = 30
max-requests = 7
worker-reload-mercy = 3
"""

BY_MASTER = frozenset({"stopped_by_master"})
BY_UWSGI = frozenset({"recycled", "stopped_by_master", "killed_by_master"})  # with threads, some do not end in time
WORN = frozenset({"clean_exit", "recycled"})
MAX_REQUESTS = 7
GUNICORN_SETTINGS = {
    "workers": 2,
    "timeout_s": 40.0,
    "max_requests": MAX_REQUESTS,
    "binds": ("127.0.0.1:{port}",),
}


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run one version. `command` and `files` may have {port}, {folder}, {key}, {venv}; `venv` empty: the distribution's.

    `workers` are how many slots there must be, `settings` what must be read of them, `expected` the name that the
    service must have, with {key}. `reload` is a signal to the master, `deaths` are certificates of the workers that it
    replaces; `worn` are those of workers that have done as much as they may, empty where nothing limits that.
    `replaces` says whether the master replaces a worker that died.
    """

    program: str
    venv: str
    name: str
    command: tuple[str, ...]
    workers: int
    settings: Mapping[str, object]
    expected: str
    reload: int | None = None
    deaths: frozenset[str] = frozenset()
    replaces: bool = True
    worn: frozenset[str] = WORN
    files: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """A short name without spaces, which its folder has."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.venv or self.program + '-debian'} {self.name}".lower()).strip("-")

    @property
    def version(self) -> str:
        """`20`, `newest`, `Debian's`."""
        return version_of(self.venv) if self.venv else "Debian's"

    @property
    def is_there(self) -> bool:
        """Whether it is installed."""
        if self.venv:
            return (PROGRAMS / self.venv / "installed").exists()
        return shutil.which(self.command[0]) is not None


def version_of(venv: str) -> str:
    """The version that an environment is named after."""
    return venv.rpartition("-")[2].replace("_", ".")


def _gunicorn(
    venv: str,
    name: str,
    *extra: str,
    app: str = "app:app",
    expected: str = "",
    bind: str = "127.0.0.1:{port}",
    files: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    **other: object,
) -> Variant:
    start = ("gunicorn",) if version_of(venv) == "20.0" else ("-m", "gunicorn")  # which has no __main__ yet
    command = (*start, "--graceful-timeout", "3", *(("-b", bind) if bind else ()), *extra)
    if not files:
        command = (*command, "-w", "2", "--timeout", "40", "--max-requests", str(MAX_REQUESTS), app)
    return Variant(
        "gunicorn",
        venv,
        name,
        command,
        2,
        {**GUNICORN_SETTINGS, "app": app, **other},
        expected or f"{{key}}/{app}",
        signal.SIGHUP,
        BY_MASTER,
        files=files or {},
        environment=environment or {},
    )


def _uwsgi(venv: str, name: str, *extra: str, workers: int = 2, expected: str = "", **other: object) -> Variant:
    plugin = ("--home", "{venv}") if venv else ("--plugin", "python3")
    has_master = "--master" in extra
    from_file = "--ini" in extra
    listens = () if from_file or "--http" in extra else ("--http-socket", "127.0.0.1:{port}")
    command = ("uwsgi", *plugin, *listens, *(() if from_file else ("--wsgi-file", "app.py")), *extra)
    if has_master:
        command = (*command, "--worker-reload-mercy", "3", "--max-requests", str(MAX_REQUESTS))
        other = {"max_requests": MAX_REQUESTS, **other}
    has_master = has_master or from_file
    return Variant(
        "uwsgi",
        venv,
        name,
        command,
        workers,
        {"app": "app.py", "binds": ("127.0.0.1:{port}",), **other},
        expected or "{key}/app.py",
        signal.SIGHUP if has_master else None,
        BY_UWSGI,
        worn=WORN | BY_UWSGI,
        files={"uwsgi.ini": INI} if from_file else {},
    )


def _uvicorn(
    venv: str, name: str, *extra: str, workers: int, replaces: bool = True, reload: int | None = None
) -> Variant:
    listens = () if "--uds" in extra else ("--port", "{port}")
    limit = ("--limit-max-requests", str(MAX_REQUESTS)) if workers else ()
    settings = {"app": "app:asgi", "workers": workers or 1, "max_requests": MAX_REQUESTS if workers else 0}
    binds = ("unix:{folder}/sock",) if "--uds" in extra else ("127.0.0.1:{port}",)
    return Variant(
        "uvicorn",
        venv,
        name,
        ("-m", "uvicorn", *listens, *limit, *extra, "app:asgi"),
        workers,
        {**settings, "binds": binds},
        "{key}/app:asgi",
        reload,
        BY_MASTER,
        replaces=replaces,
        worn=WORN if replaces else frozenset(),
    )


def _celery(venv: str, name: str, *extra: str, workers: int, role: str = "worker", **other: object) -> Variant:
    of_worker = () if role == "beat" else ("-n", "{key}@%h", "-Q", "{key}")
    limit = ("--max-tasks-per-child", str(MAX_REQUESTS)) if workers else ()
    command = ("-m", "celery", "-A", "tasks", role, "-l", "info", *of_worker, *limit, *extra)
    read = {"app": "tasks", "role": role, **other, **({"max_requests": MAX_REQUESTS} if workers else {})}
    if role == "worker":
        read["queues"] = ("{key}",)
    expected = "{key}/tasks beat" if role == "beat" else "{key}"
    return Variant("celery", venv, name, command, workers, read, expected)


VARIANTS = (
    *(
        _gunicorn(f"gunicorn-{version}", "sync", worker_class="sync")
        for version in ("20_0", "20", "21", "22", "23", "25", "newest")
    ),
    _gunicorn("gunicorn-20", "gthread", "--threads", "3", worker_class="gthread", threads=3),
    _gunicorn("gunicorn-newest", "gthread", "--threads", "3", worker_class="gthread", threads=3),
    _gunicorn("gunicorn-23", "gevent", "-k", "gevent", worker_class="gevent"),
    _gunicorn("gunicorn-newest", "gevent", "-k", "gevent", worker_class="gevent"),
    _gunicorn("gunicorn-23", "UvicornWorker", "-k", "uvicorn.workers.UvicornWorker", app="app:asgi"),
    _gunicorn("gunicorn-newest", "UvicornWorker", "-k", "uvicorn_worker.UvicornWorker", app="app:asgi"),
    *(
        _gunicorn(f"gunicorn-{version}", "asgi", "-k", "asgi", app="app:asgi", worker_class="asgi")
        for version in ("25", "newest")
    ),
    _gunicorn("gunicorn-newest", "preload", "--preload", preload=True),
    _gunicorn("gunicorn-22", "reload", "--reload"),
    _gunicorn("gunicorn-21", "name", "--name", "{key}-shop", expected="{key}-shop"),
    _gunicorn("gunicorn-newest", "name", "--name", "{key}-shop", expected="{key}-shop"),
    *(
        _gunicorn(f"gunicorn-{version}", "file", bind="", files={"gunicorn.conf.py": CONFIGURATION}, expected="{key}")
        for version in ("20", "newest")
    ),
    _gunicorn("gunicorn-23", "unix", bind="unix:{folder}/sock", binds=("unix:{folder}/sock",)),
    _gunicorn("gunicorn-23", "reuse-port", "--reuse-port"),
    _gunicorn(
        *("gunicorn-23", "environment"),
        environment={"GUNICORN_CMD_ARGS": "--preload --threads 2"},
        threads=2,
        preload=True,
    ),
    _uwsgi("", "prefork", "--master", "--processes", "2", worker_class="prefork"),
    _uwsgi("", "threads", "--master", "--processes", "2", "--threads", "3", threads=3, worker_class="threads"),
    _uwsgi("", "lazy-apps", "--master", "--processes", "2", "--lazy-apps", preload=False),
    _uwsgi("", "ini", "--ini", "uwsgi.ini", timeout_s=30.0, max_requests=MAX_REQUESTS),
    _uwsgi(
        *("", "titles", "--master", "--processes", "2", "--auto-procname", "--procname-prefix-spaced", "{key}"),
        expected="{key}",
    ),
    _uwsgi("", "mule", "--master", "--processes", "2", "--mule"),
    _uwsgi("", "one process", workers=0),
    _uwsgi("uwsgi-newest", "prefork", "--master", "--processes", "2", "--harakiri", "30", timeout_s=30.0),
    _uwsgi("uwsgi-newest", "threads", "--master", "--processes", "2", "--threads", "3", threads=3),
    _uwsgi("uwsgi-newest", "router", "--master", "--processes", "2", "--http", "127.0.0.1:{port}"),
    _uwsgi("uwsgi-newest", "cheaper", "--master", "--processes", "4", "--cheaper", "2", workers=2),
    _uvicorn("uvicorn-20", "one process", workers=0),
    _uvicorn("uvicorn-20", "workers", "--workers", "2", workers=2, replaces=False),
    _uvicorn("uvicorn-newest", "one process", workers=0),
    _uvicorn("uvicorn-newest", "workers", "--workers", "2", workers=2, reload=signal.SIGHUP),
    _uvicorn("uvicorn-newest", "uvloop", "--workers", "2", "--loop", "uvloop", workers=2, reload=signal.SIGHUP),
    _uvicorn("uvicorn-newest", "unix", "--workers", "2", "--uds", "{folder}/sock", workers=2, reload=signal.SIGHUP),
    *(
        _celery(f"celery-{v}", "prefork", "-c", "2", workers=2, worker_class="prefork")
        for v in ("52", "53", "54", "newest")
    ),
    _celery("celery-52", "threads", "-P", "threads", "-c", "3", workers=0, threads=3),
    _celery("celery-newest", "threads", "-P", "threads", "-c", "3", workers=0, threads=3),
    _celery("celery-newest", "solo", "-P", "solo", workers=0, worker_class="solo"),
    _celery("celery-newest", "gevent", "-P", "gevent", "-c", "5", workers=0, worker_class="gevent"),
    _celery("celery-newest", "beat", "-s", "{folder}/schedule", workers=0, role="beat"),
)
