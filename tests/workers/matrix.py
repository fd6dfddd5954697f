"""Every kind of worker in every version that is installed, watched through one life; what was seen, as a table.

`python -m tests.workers.matrix` renews the table of docs/workers.md.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from agent.clock import Clock
from agent.ids import new_event_id
from agent.kernel.kernel import Kernel
from agent.kernel.opening import open_kernel
from agent.procfs import ProcFs
from agent.rollup import Rollup
from agent.service import Service
from agent.settings import Settings
from agent.watcher import Watcher
from agent.wire import Event
from demo.stage import free_port

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / ".reflex" / "programs"
PAGE = ROOT / "docs" / "workers.md"
BEGIN, END = "<!-- the table of tests/workers/matrix.py -->", "<!-- its end -->"
PHASE_S = 45.0
LOOK_S = 0.05
APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
application = app
async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"].endswith("shutdown"):
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""
TASKS = """
import os
from celery import Celery
app = Celery("tasks", broker=os.environ["TASKS_BROKER"])
app.conf.broker_connection_retry_on_startup = True
"""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run one version. `command` may have {port} and {folder}; `venv` empty: the distribution's program.

    `workers` are how many slots there must be; `settings` what must be read of them; `reload` and `stop` are signals to
    the master. `death` is the certificate of a worker that a reload replaces; None where a reload replaces none.
    """

    program: str
    venv: str
    name: str
    command: tuple[str, ...]
    workers: int
    settings: Mapping[str, object]
    reload: int | None = None
    deaths: frozenset[str] = frozenset()
    restarts_killed: bool = True
    expected_name: str = ""

    @property
    def key(self) -> str:
        """A short name without spaces, which its folder and its service have."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.venv or self.program + '-debian'} {self.name}".lower()).strip("-")

    @property
    def version(self) -> str:
        """`20`, `newest`, `Debian's`."""
        return self.venv.rpartition("-")[2] if self.venv else "Debian's"

    @property
    def is_there(self) -> bool:
        """Whether it is installed."""
        if self.venv:
            return (PROGRAMS / self.venv / "installed").exists()
        return shutil.which(self.command[0]) is not None


BY_TERM = frozenset({"stopped_by_master"})
RECYCLED = frozenset({"recycled", "stopped_by_master"})


def _gunicorn(venv: str, name: str, *extra: str, app: str = "app:app", **other: object) -> Variant:
    command = ("-m", "gunicorn", "-b", "127.0.0.1:{port}", "-w", "2", "--timeout", "40", *extra, app)
    settings = {"workers": 2, "timeout_s": 40.0, "app": app, **other}
    return Variant("gunicorn", venv, name, command, 2, settings, signal.SIGHUP, BY_TERM)


def _uwsgi(venv: str, name: str, *extra: str, workers: int = 2, **other: object) -> Variant:
    plugin = () if venv else ("--plugin", "python3")
    command = ("uwsgi", *plugin, "--http-socket", "127.0.0.1:{port}", "--wsgi-file", "app.py", *extra)
    has_master = "--master" in extra
    return Variant(
        "uwsgi",
        venv,
        name,
        command,
        workers,
        {"app": "app.py", **other},
        signal.SIGHUP if has_master else None,
        RECYCLED,
    )


def _uvicorn(venv: str, name: str, *extra: str, workers: int, restarts: bool = True) -> Variant:
    command = ("-m", "uvicorn", "--port", "{port}", *extra, "app:asgi")
    settings = {"app": "app:asgi", "workers": workers or 1}
    return Variant("uvicorn", venv, name, command, workers, settings, restarts_killed=restarts)


def _celery(venv: str, name: str, *extra: str, workers: int, role: str = "worker", **other: object) -> Variant:
    node = () if role == "beat" else ("-n", "{key}@%h")
    command = ("-m", "celery", "-A", "tasks", role, "-l", "info", *node, *extra)
    return Variant("celery", venv, name, command, workers, {"app": "tasks", "role": role, **other})


VARIANTS = (
    *(_gunicorn(f"gunicorn-{version}", "sync", worker_class="sync") for version in ("20", "21", "22", "23", "newest")),
    _gunicorn("gunicorn-20", "gthread", "--threads", "3", worker_class="gthread", threads=3),
    _gunicorn("gunicorn-newest", "gthread", "--threads", "3", worker_class="gthread", threads=3),
    _gunicorn("gunicorn-23", "gevent", "-k", "gevent", worker_class="gevent"),
    _gunicorn("gunicorn-newest", "gevent", "-k", "gevent", worker_class="gevent"),
    _gunicorn("gunicorn-23", "UvicornWorker", "-k", "uvicorn.workers.UvicornWorker", app="app:asgi"),
    _gunicorn("gunicorn-newest", "UvicornWorker", "-k", "uvicorn_worker.UvicornWorker", app="app:asgi"),
    _gunicorn("gunicorn-newest", "preload", "--preload", preload=True),
    _gunicorn("gunicorn-22", "reload", "--reload", "--max-requests", "500", max_requests=500),
    _uwsgi("", "prefork", "--master", "--processes", "2", workers=2, worker_class="prefork"),
    _uwsgi("", "threads", "--master", "--processes", "2", "--threads", "3", threads=3, worker_class="threads"),
    _uwsgi("", "lazy-apps", "--master", "--processes", "2", "--lazy-apps", preload=False),
    _uwsgi("", "titles", "--master", "--processes", "2", "--auto-procname", "--procname-prefix-spaced", "{key}"),
    _uwsgi("", "mule", "--master", "--processes", "2", "--mule"),
    _uwsgi("", "one process", workers=0),
    _uwsgi("uwsgi-newest", "prefork", "--master", "--processes", "2", "--harakiri", "30", timeout_s=30.0),
    _uvicorn("uvicorn-20", "one process", workers=0),
    _uvicorn("uvicorn-20", "workers", "--workers", "2", workers=2, restarts=False),
    _uvicorn("uvicorn-newest", "one process", workers=0),
    _uvicorn("uvicorn-newest", "workers", "--workers", "2", workers=2),
    _uvicorn("uvicorn-newest", "uvloop", "--workers", "2", "--loop", "uvloop", workers=2),
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


@dataclass(slots=True)
class Seen:
    """What was seen of one variant. None: it does not apply."""

    variant: Variant
    started: bool = False
    name: str = ""
    found_later: bool = False
    same_name: bool = False
    slots: bool = False
    ready: bool = False
    settings: dict[str, object] = field(default_factory=dict)
    killed: bool | None = None
    replaced: bool | None = None
    reloaded: bool | None = None
    stopped: str = ""
    log: str = ""

    @property
    def wrong_settings(self) -> dict[str, object]:
        """Settings that were read otherwise than they were given."""
        return {
            key: self.settings.get(key)
            for key, value in self.variant.settings.items()
            if self.settings.get(key) != value
        }

    def cells(self) -> tuple[str, ...]:
        """A row of the table."""
        marks = {True: "yes", False: "NO", None: "–"}
        values = (self.started, self.found_later, self.same_name, self.slots, self.ready, not self.wrong_settings)
        return (
            self.variant.program,
            self.variant.version,
            self.variant.name,
            *(marks[value] for value in (*values, self.killed, self.replaced, self.reloaded)),
            self.stopped,
        )


HEAD = (
    *("program", "version", "variant", "found when it starts", "found when it runs", "same name", "slots", "ready"),
    *("settings", "SIGKILL certificate", "replacement linked", "reload certificate", "end of the master"),
)


class Life:
    """Runs all variants at once through one life and watches them with the agent's own parts."""

    def __init__(self, variants: Sequence[Variant], folder: Path) -> None:
        self.seen = {variant.key: Seen(variant) for variant in variants if variant.is_there}
        self._folder = folder
        self._stack = ExitStack()
        self._masters: dict[str, subprocess.Popen[bytes]] = {}
        self._events: list[Event] = []
        self._procfs = ProcFs(Path("/proc"))
        self._rollup = Rollup(new_event_id)
        self._kernel = Kernel((), (), None)

    def __enter__(self) -> Life:
        self._kernel = open_kernel(Settings().bpf_object, {}, self._procfs)
        self._stack.callback(self._kernel.close)
        self._stack.callback(self._end_all)
        self._watcher = Watcher(self._procfs, self._rollup, Clock(), self._kernel)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self) -> None:
        """The whole life."""
        self._keep(self._watcher.scan())
        self._start_all()
        self._until(lambda seen: self._is_complete(seen))
        self._note_first_picture()
        self._kill_workers()
        self._reload()
        self._look_anew()
        self._stop()

    def told(self, key: str) -> list[Event]:
        """The events about one variant."""
        return [event for event in self._events if event.service == self.seen[key].name]

    # Its phases.

    def _start_all(self) -> None:
        redis = shutil.which("redis-server")
        broker = f"redis://127.0.0.1:{free_port()}/0"
        if redis is not None:
            port = broker.rpartition(":")[2].partition("/")[0]
            self._spawn("redis", [redis, "--port", port, "--save", "", "--appendonly", "no"], self._folder, {})
        else:
            self.seen = {key: seen for key, seen in self.seen.items() if seen.variant.program != "celery"}
        for key, seen in self.seen.items():
            folder = self._folder / key
            folder.mkdir()
            (folder / "app.py").write_text(APP)
            (folder / "tasks.py").write_text(TASKS)
            words = {"port": str(free_port()), "folder": str(folder), "key": key}
            command = [_filled(word, words) for word in seen.variant.command]
            venv = PROGRAMS / seen.variant.venv / "bin"
            if command[0] == "-m":
                command = [str(venv / "python"), *command]
            elif seen.variant.venv:
                command[0] = str(venv / command[0])
            self._masters[key] = self._spawn(key, command, folder, {"TASKS_BROKER": broker})
            self._follow(0.0)

    def _note_first_picture(self) -> None:
        for key, seen in self.seen.items():
            service = self._service(key)
            pid = self._masters[key].pid
            seen.started = any(e.kind == "service.started" and e.attrs["master_pid"] == pid for e in self._events)
            if service is None:
                continue
            seen.name = service.name
            seen.slots = len(service.workers) == seen.variant.workers
            seen.ready = all(worker.ready_us is not None for worker in service.workers.values())
            seen.settings = {name: getattr(service.settings, name) for name in seen.variant.settings}

    def _kill_workers(self) -> None:
        victims: dict[str, int] = {}
        for key in self.seen:
            service = self._service(key)
            if service is not None and service.workers:
                victims[key] = min(service.workers)
                os.kill(victims[key], signal.SIGKILL)

        def told(seen: Seen) -> bool:
            key = seen.variant.key
            return key not in victims or self._certified(seen, victims[key], replaced=seen.variant.restarts_killed)

        self._until(told)
        for key, victim in victims.items():
            seen = self.seen[key]
            seen.killed = self._certified(seen, victim, replaced=False)
            seen.replaced = self._certified(seen, victim, replaced=True) if seen.variant.restarts_killed else None

    def _reload(self) -> None:
        before: dict[str, set[int]] = {}
        for key, seen in self.seen.items():
            service = self._service(key)
            if seen.variant.reload is not None and service is not None:
                before[key] = set(service.workers)
                os.kill(service.master_pid, seen.variant.reload)

        def done(seen: Seen) -> bool:
            key, service = seen.variant.key, self._service(seen.variant.key)
            if key not in before:
                return True
            gone = {e.worker.pid for e in self._events if e.kind == "worker.exited" and e.worker is not None}
            return before[key] <= gone and service is not None and self._is_complete(seen)

        self._until(done)
        for key, pids in before.items():
            deaths = {
                e.attrs["death"]
                for e in self._events
                if e.kind == "worker.exited" and e.worker and e.worker.pid in pids
            }
            self.seen[key].reloaded = bool(deaths) and deaths <= self.seen[key].variant.deaths

    def _look_anew(self) -> None:
        """What an agent finds that starts now, without memory."""
        rollup = Rollup(new_event_id)
        watcher = Watcher(self._procfs, rollup, Clock(), None)
        watcher.scan()
        deadline = time.monotonic() + 5
        while watcher.waits_since_us() is not None and time.monotonic() < deadline:
            time.sleep(LOOK_S)
            watcher.look_for_ready()
        for key, seen in self.seen.items():
            known, found = self._service(key), rollup.services.get(self._masters[key].pid)
            if known is not None and found is not None:
                seen.found_later = {w.ref.pid for w in found.workers.values()} == set(known.workers)
                seen.same_name = found.name == known.name

    def _stop(self) -> None:
        for master in self._masters.values():
            master.send_signal(signal.SIGINT if "uwsgi" in str(master.args) else signal.SIGTERM)

        def gone(seen: Seen) -> bool:
            return self._end_of(seen) is not None

        self._until(gone)
        for seen in self.seen.values():
            end = self._end_of(seen)
            seen.stopped = "NOT TOLD" if end is None else str(end.attrs["death"])

    # Looks.

    def _is_complete(self, seen: Seen) -> bool:
        service = self._service(seen.variant.key)
        if service is None:
            return False
        if seen.variant.settings.get("role") == "worker" and " ready." not in self._log(seen.variant.key):
            return False  # a node that loses a process before it consumes gives up
        ready = [worker for worker in service.workers.values() if worker.ready_us is not None]
        return len(ready) == len(service.workers) == seen.variant.workers

    def _log(self, key: str) -> str:
        return (self._folder / f"{key}.log").read_text(errors="replace")

    def _service(self, key: str) -> Service | None:
        master = self._masters.get(key)
        return None if master is None else self._rollup.services.get(master.pid)

    def _certified(self, seen: Seen, pid: int, *, replaced: bool) -> bool:
        exits = [e for e in self._events if e.kind == "worker.exited" and e.worker is not None and e.worker.pid == pid]
        if not exits or exits[0].attrs["death"] not in ("killed_by_process", "killed_by_person"):
            return False
        ready = {e.worker.pid for e in self._events if e.kind == "worker.ready" and e.worker is not None}
        after = [
            e for e in self._events if e.kind == "worker.started" and e.cause == exits[0].id and e.worker is not None
        ]
        return not replaced or any(e.worker is not None and e.worker.pid in ready for e in after)

    def _end_of(self, seen: Seen) -> Event | None:
        names = {seen.name}
        return next((e for e in self._events if e.kind == "service.stopped" and e.service in names), None)

    def _until(self, done: Callable[[Seen], bool]) -> None:
        """Follows the kernel until it is done for all, or the phase's time is up."""
        deadline = time.monotonic() + PHASE_S
        while time.monotonic() < deadline and not all(done(seen) for seen in self.seen.values()):
            self._follow(LOOK_S)

    def _follow(self, wait_s: float) -> None:
        select.select([source.fd for source in self._kernel.sources], [], [], wait_s)
        for record in self._kernel.read():
            self._keep(self._watcher.on_record(record))
        self._keep(self._watcher.look_for_ready())

    def _keep(self, events: Iterable[Event]) -> None:
        self._events += events

    def _spawn(self, key: str, command: list[str], folder: Path, more: dict[str, str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(folder), **more}
        environment.pop("GUNICORN_CMD_ARGS", None)
        log = self._stack.enter_context((self._folder / f"{key}.log").open("wb"))
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        if key == "redis":
            self._stack.callback(process.wait)
            self._stack.callback(process.terminate)
        return process

    def _end_all(self) -> None:
        for master in self._masters.values():
            if master.poll() is None:
                os.killpg(master.pid, signal.SIGKILL)
            master.wait()


def _filled(word: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        word = word.replace("{" + name + "}", value)
    return word


def watch_all(folder: Path) -> list[Seen]:
    """One life of all variants that are installed; their logs go into the folder."""
    with Life(VARIANTS, folder) as life:
        life.run()
        for key, seen in life.seen.items():
            seen.log = "\n".join(e.text for e in life.told(key)) + "\n"
            seen.log += "\n".join((folder / f"{key}.log").read_text(errors="replace").splitlines()[-15:])
    return list(life.seen.values())


def table(rows: Iterable[Seen]) -> list[str]:
    """The table in Markdown, line by line."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    return [*lines, *(f"| {' | '.join(seen.cells())} |" for seen in rows)]


def table_of_page() -> list[str]:
    """The table that docs/workers.md has."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip().splitlines()


def main() -> int:
    """Renews the table; exit code 1 where a variant was not seen as it should be."""
    with tempfile.TemporaryDirectory(prefix="reflex-matrix-") as folder:
        rows = watch_all(Path(folder))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(table(rows)) + f"\n\n{END}{after}")
    print("\n".join(table(rows)))
    return 1 if any("NO" in seen.cells() for seen in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
