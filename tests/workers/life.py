"""One life of many programs at once: started, hurt, reloaded, stopped, started again, killed; watched as the agent watches."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Sequence
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
from tests.workers.requests import Tasks, visit
from tests.workers.variants import APP, PROGRAMS, TASKS, Variant

PHASE_S = 25.0
LOOK_S = 0.05
KILLS = frozenset({"killed_by_process", "killed_by_person"})


@dataclass(slots=True)
class Seen:
    """What was seen of one variant. None: it does not apply."""

    variant: Variant
    words: dict[str, str]
    name: str = ""
    started: bool = False
    found_later: bool = False
    later_name: str = ""
    second_name: str = ""
    slots: bool = False
    ready: bool = False
    settings: dict[str, object] = field(default_factory=dict)
    killed: bool | None = None
    crashed: bool | None = None
    recycled: bool | None = None
    reloaded: bool | None = None
    replaced: bool | None = None
    stopped: str = "NOT TOLD"
    master_killed: str = "NOT TOLD"
    log: str = ""

    @property
    def has_its_name(self) -> bool:
        """Whether it was called what it should be: at once, by an agent that came later, and when it ran again."""
        return {self.name, self.later_name, self.second_name} == {self.filled(self.variant.expected)}

    @property
    def wrong_settings(self) -> dict[str, object]:
        """Settings that were read otherwise than they were given."""
        given = {key: self._given(value) for key, value in self.variant.settings.items()}
        return {key: self.settings.get(key) for key, value in given.items() if self.settings.get(key) != value}

    def filled(self, text: str) -> str:
        """The text with its port, folder and key."""
        for name, value in self.words.items():
            text = text.replace("{" + name + "}", value)
        return text

    def _given(self, value: object) -> object:
        return tuple(self.filled(str(one)) for one in value) if isinstance(value, tuple) else value


class Life:
    """Runs all variants at once through one life and watches them with the agent's own parts."""

    def __init__(self, variants: Sequence[Variant], folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._masters: dict[str, subprocess.Popen[bytes]] = {}
        self._groups: list[subprocess.Popen[bytes]] = []
        self._events: list[Event] = []
        self._since = 0
        self._procfs = ProcFs(Path("/proc"))
        self._rollup = Rollup(new_event_id)
        self._kernel = Kernel((), (), None)
        self._tasks = Tasks(f"redis://127.0.0.1:{free_port()}/0")
        has_broker = shutil.which("redis-server") is not None
        wanted = [v for v in variants if v.is_there and (v.program != "celery" or has_broker)]
        self.seen = {variant.key: Seen(variant, self._words(variant)) for variant in wanted}

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
        self._start_broker()
        self._start_all()
        self._until(self._is_complete)
        self._note_first_picture()
        self._kill_workers()
        self._crash_workers()
        self._recycle_workers()
        self._reload()
        self._look_anew()
        self._stop()
        self._start_all()
        self._until(self._is_complete)
        self._note_second_picture()
        self._kill_masters()

    def told(self, key: str) -> list[Event]:
        """The events about one variant."""
        return [event for event in self._events if event.service == self.seen[key].name]

    def log(self, key: str) -> str:
        """What the program said in its last run."""
        path = self._folder / f"{key}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # Its phases.

    def _start_broker(self) -> None:
        redis = shutil.which("redis-server")
        if redis is not None:
            port = self._tasks.url.rpartition(":")[2].partition("/")[0]
            self._spawn("redis", [redis, "--port", port, "--save", "", "--appendonly", "no"], self._folder, {})

    def _start_all(self) -> None:
        self._since = len(self._events)
        for key, seen in self.seen.items():
            folder = Path(seen.words["folder"])
            folder.mkdir(exist_ok=True)
            for name, text in {"app.py": APP, "tasks.py": TASKS, **seen.variant.files}.items():
                (folder / name).write_text(seen.filled(text))
            command = [seen.filled(word) for word in seen.variant.command]
            venv = PROGRAMS / seen.variant.venv / "bin"
            if command[0] == "-m":
                command = [str(venv / "python"), *command]
            elif seen.variant.venv:
                command[0] = str(venv / command[0])
            environment = {"TASKS_BROKER": self._tasks.url, **seen.variant.environment}
            self._masters[key] = self._spawn(key, command, folder, environment)
            self._follow(0.0)

    def _note_first_picture(self) -> None:
        for key, seen in self.seen.items():
            service = self._service(key)
            pid = self._masters[key].pid
            seen.started = any(e.kind == "service.started" and e.attrs["master_pid"] == pid for e in self._events)
            if service is None:
                continue
            seen.name = service.name
            seen.slots = {w.ref.slot for w in service.workers.values()} == set(range(seen.variant.workers))
            seen.ready = all(worker.ready_us is not None for worker in service.workers.values())
            seen.settings = {name: getattr(service.settings, name) for name in seen.variant.settings}

    def _note_second_picture(self) -> None:
        for key, seen in self.seen.items():
            service = self._service(key)
            if service is not None:
                seen.second_name = service.name
                lanes = {w.ref.slot for w in service.workers.values()}
                seen.slots = seen.slots and lanes == set(range(seen.variant.workers))

    def _kill_workers(self) -> None:
        victims: dict[str, int] = {}
        for key in self.seen:
            service = self._service(key)
            if service is not None and service.workers:
                victims[key] = min(service.workers)
                os.kill(victims[key], signal.SIGKILL)

        def told(seen: Seen) -> bool:
            key = seen.variant.key
            return key not in victims or self._certified(victims[key], replaced=seen.variant.replaces)

        self._until(told)
        for key, victim in victims.items():
            seen = self.seen[key]
            seen.killed = self._certified(victim, replaced=False)
            seen.replaced = self._certified(victim, replaced=True) if seen.variant.replaces else None

    def _crash_workers(self) -> None:
        hurt = self._with_workers()
        self._ask_all(hurt, "crash")
        self._until(lambda seen: seen not in hurt or self._has_ended(seen, {"crash_signal"}))
        for seen in hurt:
            seen.crashed = self._has_ended(seen, {"crash_signal"})

    def _recycle_workers(self) -> None:
        self._until(self._is_complete)
        worn = [seen for seen in self._with_workers() if seen.variant.worn]

        def done(seen: Seen) -> bool:
            return seen not in worn or self._has_ended(seen, seen.variant.worn)

        self._until(done, meanwhile=lambda: self._ask_all([seen for seen in worn if not done(seen)], "nothing"))
        for seen in worn:
            seen.recycled = done(seen)

    def _reload(self) -> None:
        self._until(self._is_complete)
        before: dict[str, set[int]] = {}
        for key, seen in self.seen.items():
            service = self._service(key)
            if seen.variant.reload is not None and service is not None:
                before[key] = set(service.workers)
                os.kill(service.master_pid, seen.variant.reload)

        def done(seen: Seen) -> bool:
            gone = {e.worker.pid for e in self._new("worker.exited") if e.worker is not None}
            return before.get(seen.variant.key, set()) <= gone and self._is_complete(seen)

        self._until(done)
        for key, pids in before.items():
            ends = {e.attrs["death"] for e in self._new("worker.exited") if e.worker and e.worker.pid in pids}
            self.seen[key].reloaded = bool(ends) and ends <= self.seen[key].variant.deaths

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
                seen.later_name = found.name

    def _stop(self) -> None:
        self._since = len(self._events)
        for key, seen in self.seen.items():
            stop = signal.SIGINT if seen.variant.program == "uwsgi" else signal.SIGTERM
            self._masters[key].send_signal(stop)
        self._until(lambda seen: self._end_of(seen) is not None and self._masters[seen.variant.key].poll() is not None)
        for seen in self.seen.values():
            seen.stopped = self._end_of(seen) or seen.stopped

    def _kill_masters(self) -> None:
        self._since = len(self._events)
        for master in self._masters.values():
            master.kill()
        self._until(lambda seen: self._end_of(seen) is not None)
        for seen in self.seen.values():
            seen.master_killed = self._end_of(seen) or seen.master_killed

    # Looks.

    def _words(self, variant: Variant) -> dict[str, str]:
        key = f"{variant.key}-{os.getpid()}"  # other lives may be watched on this host
        venv = str(PROGRAMS / variant.venv)
        return {"port": str(free_port()), "folder": str(self._folder / key), "key": key, "venv": venv}

    def _with_workers(self) -> list[Seen]:
        return [seen for seen in self.seen.values() if seen.variant.workers and self._service(seen.variant.key)]

    def _ask_all(self, asked: Iterable[Seen], what: str) -> None:
        for seen in asked:
            if seen.variant.program == "celery":
                self._tasks.send(seen.words["key"], f"tasks.{what}")
            else:
                visit(Path(seen.words["folder"]) / "sock", int(seen.words["port"]), f"/{what}")

    def _is_complete(self, seen: Seen) -> bool:
        service = self._service(seen.variant.key)
        if service is None:
            return False
        if seen.variant.settings.get("role") == "worker" and " ready." not in self.log(seen.variant.key):
            return False  # a node that loses a process before it consumes gives up
        ready = [worker for worker in service.workers.values() if worker.ready_us is not None]
        lost = 0 if seen.variant.replaces else sum(e.worker is not None for e in self._about(seen, "worker.exited"))
        return len(ready) == len(service.workers) == seen.variant.workers - lost

    def _service(self, key: str) -> Service | None:
        master = self._masters.get(key)
        return None if master is None else self._rollup.services.get(master.pid)

    def _new(self, kind: str) -> list[Event]:
        return [event for event in self._events[self._since :] if event.kind == kind]

    def _about(self, seen: Seen, kind: str) -> list[Event]:
        names = {seen.name, seen.filled(seen.variant.expected)}
        return [event for event in self._new(kind) if event.service in names]

    def _has_ended(self, seen: Seen, deaths: Collection[str]) -> bool:
        return any(event.attrs["death"] in deaths for event in self._about(seen, "worker.exited"))

    def _certified(self, pid: int, *, replaced: bool) -> bool:
        exits = [e for e in self._new("worker.exited") if e.worker is not None and e.worker.pid == pid]
        if not exits or exits[0].attrs["death"] not in KILLS:
            return False
        ready = {e.worker.pid for e in self._new("worker.ready") if e.worker is not None}
        after = [e.worker for e in self._new("worker.started") if e.cause == exits[0].id]
        return not replaced or any(worker is not None and worker.pid in ready for worker in after)

    def _end_of(self, seen: Seen) -> str | None:
        return next((str(event.attrs["death"]) for event in self._about(seen, "service.stopped")), None)

    def _until(self, done: Callable[[Seen], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
        """Follows the kernel until it is done for all, or the phase's time is up."""
        deadline = time.monotonic() + PHASE_S
        while time.monotonic() < deadline and not all(done(seen) for seen in self.seen.values()):
            meanwhile()
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
        with (self._folder / f"{key}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self._groups.append(process)
        return process

    def _end_all(self) -> None:
        for process in self._groups:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # workers outlive a master that was killed
            except ProcessLookupError:
                continue
        for process in self._groups:
            process.wait()
