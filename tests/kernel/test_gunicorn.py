"""Real Gunicorns under a real watcher: found before and after the agent's start, with and without setproctitle."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.clock import Clock
from agent.discovery import find_masters
from agent.ids import new_event_id
from agent.memory import Memory
from agent.procfs import OpenFile, ProcFs, own_network
from agent.rollup import Rollup
from agent.watcher import Watcher
from agent.wire import Event
from demo.stage import StageError, demo_python, free_port

WAIT_S = 20.0
LOOK_EVERY_S = 0.02
APP = """
import os, time
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


class Host:
    """A watcher of this machine, pumped by hand; only services named `service` are listened to."""

    def __init__(self, source: Any, service: str, memory: Memory | None = None, network: str | None = None) -> None:
        self._source = source
        self._service = service
        self.rollup = Rollup(new_event_id)
        self.watcher = Watcher(ProcFs(Path("/proc")), self.rollup, Clock(), source, memory, network=network)
        self.events: list[Event] = []

    def _keep(self, events: list[Event]) -> None:
        self.events += [event for event in events if event.service and event.service.startswith(self._service)]

    def scan(self) -> None:
        """What the agent does at its start."""
        self._keep(self.watcher.scan())

    def known(self, master_pid: int) -> set[int]:
        """The pids of the workers of a master that are known."""
        service = self.rollup.services.get(master_pid)
        return set() if service is None else set(service.workers)

    def until(self, enough: Callable[[list[Event]], bool]) -> list[Event]:
        """The events so far once `enough` says so."""
        deadline = time.monotonic() + WAIT_S
        while not enough(self.events):
            assert time.monotonic() < deadline, [event.text for event in self.events]
            select.select([source.fd for source in self._source.sources], [], [], LOOK_EVERY_S)
            for record in self._source.read():
                self._keep(self.watcher.on_record(record))
            self._keep(self.watcher.look_for_ready())
        return self.events


class Noting(ProcFs):
    """Notes whose open files are looked through."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.looked_into: set[int] = set()

    def open_files(self, pid: int, name_part: str) -> tuple[OpenFile, ...]:
        """As of any process."""
        self.looked_into.add(pid)
        return super().open_files(pid, name_part)


@pytest.fixture
def python() -> Path:
    try:
        return demo_python()
    except StageError as error:
        pytest.skip(str(error))


@pytest.fixture
def gunicorn(python: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a Gunicorn of `module` in a folder of its own; `titles=False` hides setproctitle from it."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        name: str,
        *extra: str,
        titles: bool = True,
        module: bool = True,
        inside: tuple[str, ...] = (),
        app: str = APP,
    ) -> subprocess.Popen[bytes]:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "app.py").write_text(app)
        if not titles:
            (folder / "setproctitle.py").write_text("raise ImportError('hidden by the test')")
        how = ["-m", "gunicorn"] if module else [str(python.with_name("gunicorn"))]
        command = [*inside, str(python), *how, "-b", f"127.0.0.1:{free_port()}", *extra, "app:app"]
        log = (folder / "log").open("wb")
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        started.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        (process.kill if process.args[0] == "unshare" else process.terminate)()
    for process in started:
        process.wait()


IN_A_CONTAINER = (
    *("unshare", "--pid", "--net", "--mount", "--fork", "--kill-child=KILL", "--mount-proc"),
    *("sh", "-c", 'ip link set lo up; "$@" & wait $!', "sh"),
)
"""Namespaces of its own for processes, network and mounts, as a container has: inside, pids begin at 1."""


IN_ANOTHER_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")


def _count(events: list[Event], kind: str) -> int:
    return sum(event.kind == kind for event in events)


@pytest.mark.parametrize("titles", [True, False])
@pytest.mark.parametrize("module", [True, False])
def test_a_service_that_starts_later(ear: Any, gunicorn: Any, titles: bool, module: bool) -> None:
    host = Host(ear.source, "later")
    host.scan()
    master = gunicorn("later", "-w", "3", titles=titles, module=module)
    events = host.until(lambda events: _count(events, "worker.ready") == 3)
    (up,) = [event for event in events if event.kind == "service.started"]
    assert up.service == "later/app:app"
    assert up.attrs["master_pid"] == master.pid
    started = [event for event in events if event.kind == "worker.started"]
    assert {event.worker.slot for event in started if event.worker} == {0, 1, 2}
    assert {event.cause for event in started} == {up.id}
    assert {e.cause for e in events if e.kind == "worker.ready"} == {e.id for e in started}


@pytest.mark.parametrize("is_there_before", [True, False])
def test_services_of_another_network_are_another_hosts(ear: Any, gunicorn: Any, is_there_before: bool) -> None:
    host = Host(ear.source, "of-", network=own_network())
    if not is_there_before:
        host.scan()
    others = gunicorn("of-others", "-w", "1", inside=IN_ANOTHER_NETWORK)
    procfs, deadline = ProcFs(Path("/proc")), time.monotonic() + WAIT_S
    while len(procfs.children(others.pid)) < 1 or "gunicorn" not in " ".join(procfs.command(others.pid)):
        assert time.monotonic() < deadline
        time.sleep(LOOK_EVERY_S)
    host.scan()
    gunicorn("of-ours", "-w", "1")
    events = host.until(lambda events: _count(events, "worker.ready") == 1)
    assert {event.service for event in events} == {"of-ours/app:app"}


@pytest.mark.parametrize("titles", [True, False])
def test_services_that_ran_before(ear: Any, gunicorn: Any, python: Path, titles: bool) -> None:
    first = gunicorn("before-one", "-w", "2", titles=titles)
    second = gunicorn("before-two", "-w", "1", "--preload", titles=titles)
    procfs = ProcFs(Path("/proc"))
    deadline = time.monotonic() + WAIT_S
    while len(procfs.children(first.pid)) < 2 or len(procfs.children(second.pid)) < 1:
        assert time.monotonic() < deadline
        time.sleep(LOOK_EVERY_S)
    host = Host(ear.source, "before")
    host.scan()
    found = {event.attrs["master_pid"] for event in host.events if event.kind == "service.found"}
    assert found == {first.pid, second.pid}
    assert len({event.service for event in host.events}) == 2
    assert len(host.rollup.services[first.pid].workers) == 2
    victim = min(host.rollup.services[first.pid].workers)
    os.kill(victim, signal.SIGKILL)
    events = host.until(lambda events: any(event.kind == "worker.ready" and event.cause for event in events))
    (died,) = [event for event in events if event.kind == "worker.exited"]
    (born,) = [event for event in events if event.kind == "worker.started"]
    assert born.cause == died.id
    assert [event.cause for event in events if event.kind == "worker.ready" and event.cause] == [born.id]
    assert died.worker is not None
    assert born.worker is not None
    assert (died.worker.slot, died.worker.pid) == (born.worker.slot, victim)


def test_a_later_look_spares_known_workers_and_finds_one_that_was_missed(ear: Any, gunicorn: Any) -> None:
    master = gunicorn("spared", "-w", "3")
    host = Host(ear.source, "spared")
    deadline = time.monotonic() + WAIT_S
    while len(workers := host.known(master.pid)) < 3:
        assert time.monotonic() < deadline
        time.sleep(LOOK_EVERY_S)
        host.scan()

    procfs = Noting(Path("/proc"))
    assert master.pid not in [
        one.process.pid for one in find_masters(procfs, lambda _process: None, None, workers.__contains__)
    ]
    assert not procfs.looked_into & workers
    (missed, *known) = sorted(workers)
    kept = set(known)
    found = find_masters(procfs, lambda _process: None, None, kept.__contains__)
    ours = next(one for one in found if one.process.pid == master.pid)
    assert [one.pid for one in ours.children] == [missed]
    assert not procfs.looked_into & kept


def test_what_a_known_worker_has_forked_is_no_master(ear: Any, gunicorn: Any) -> None:
    app = """
import os, time
def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]
if os.fork() == 0:
    os.fork()
    time.sleep(60)
    os._exit(0)
"""
    master = gunicorn("forks", "-w", "1", app=app)
    host, procfs = Host(ear.source, "forks"), ProcFs(Path("/proc"))
    deadline = time.monotonic() + WAIT_S
    while not any(
        procfs.children(child) for worker in procfs.children(master.pid) for child in procfs.children(worker)
    ):
        assert time.monotonic() < deadline
        time.sleep(LOOK_EVERY_S)
    (worker,) = procfs.children(master.pid)
    family = [child for first in procfs.children(worker) for child in (first, *procfs.children(first))]
    try:
        host.scan()
        assert host.known(master.pid) == {worker}
        host.scan()
        assert host.known(master.pid) == {worker}
        assert [event.attrs["master_pid"] for event in host.events if event.kind == "service.found"] == [master.pid]
    finally:
        for pid in family:
            os.kill(pid, signal.SIGKILL)


def test_a_reload_and_a_stop_are_explained(ear: Any, gunicorn: Any) -> None:
    host = Host(ear.source, "reload")
    master = gunicorn("reload", "-w", "2")
    host.until(lambda events: _count(events, "worker.ready") == 2)
    os.kill(master.pid, signal.SIGHUP)
    events = host.until(lambda events: _count(events, "worker.ready") == 4 and _count(events, "worker.exited") == 2)
    (hup,) = [event for event in events if event.kind == "service.signalled"]
    assert f"pid {os.getpid()}" in hup.text
    assert {event.cause for event in events if event.kind == "worker.exited"} == {hup.id}
    assert {event.attrs["death"] for event in events if event.kind == "worker.exited"} == {"stopped_by_master"}
    master.terminate()
    events = host.until(lambda events: _count(events, "service.stopped") == 1)
    assert events[-1].attrs["death"] == "clean_exit" or events[-1].attrs["death"] == "stopped_by_process"
    assert host.rollup.services == {} or master.pid not in host.rollup.services


def test_a_daemon_is_followed_through_its_forks(ear: Any, gunicorn: Any, tmp_path: Path) -> None:
    host = Host(ear.source, "daemon")
    pidfile = tmp_path / "daemon.pid"
    gunicorn("daemon", "-w", "1", "--daemon", "--pid", str(pidfile))
    host.until(lambda events: _count(events, "worker.ready") == 1)
    master_pid = int(pidfile.read_text())
    assert list(host.rollup.services) == [master_pid]
    os.kill(master_pid, signal.SIGTERM)
    host.until(lambda events: _count(events, "service.stopped") == 1)


def test_a_command_that_fails_before_its_first_worker(ear: Any, gunicorn: Any, tmp_path: Path) -> None:
    """It lives for a second, so that its command line can be read also where this machine has much else to do."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import time\ntime.sleep(1)\nraise SystemExit(2)\n")
    host = Host(ear.source, "wrong")
    gunicorn("wrong", "-c", str(wrong), "-w", "1")
    (event,) = host.until(lambda events: _count(events, "service.stopped") == 1)
    assert "did not start" in event.text
    assert event.severity == "critical"


def test_recycling_is_no_alarm(ear: Any, gunicorn: Any) -> None:
    """Workers that end after their last allowed request are recycled, and told so."""
    host = Host(ear.source, "recycle")
    gunicorn("recycle", "-w", "1", "--max-requests", "1")
    events = host.until(lambda events: _count(events, "worker.ready") == 1)
    listener = next(iter(host.rollup.services.values())).listeners[0]
    urllib.request.urlopen(f"http://{listener.address.removeprefix('tcp ')}/").read()
    events = host.until(lambda events: _count(events, "worker.ready") == 2)
    (exited,) = [event for event in events if event.kind == "worker.exited"]
    assert (exited.attrs["death"], exited.severity) == ("clean_exit", "info")


def test_a_service_in_namespaces_of_its_own(ear: Any, gunicorn: Any) -> None:
    """Pids are the host's, the listener is found in its own network, and a kill from inside names its sender."""
    host = Host(ear.source, "apart")
    gunicorn("apart", "-w", "2", inside=IN_A_CONTAINER)
    events = host.until(lambda events: _count(events, "worker.ready") == 2)
    (up,) = [event for event in events if event.kind == "service.started"]
    master = up.attrs["master_pid"]
    assert ProcFs(Path("/proc")).runs_python(int(master))
    (listener,) = host.rollup.services[int(master)].listeners
    assert listener.address.startswith("tcp 127.0.0.1:")
    victim = min(host.rollup.services[int(master)].workers)
    inside = _pid_inside(victim)
    killer = subprocess.Popen(
        ["nsenter", f"--target={master}", "--pid", "--mount", "sh", "-c", f"kill -9 {inside}; exit 0"]
    )
    killer.wait()
    events = host.until(lambda events: _count(events, "worker.exited") == 1 and _count(events, "worker.ready") == 3)
    (died,) = [event for event in events if event.kind == "worker.exited"]
    assert died.worker is not None
    assert died.worker.pid == victim
    assert died.attrs["death"] in ("killed_by_person", "killed_by_process")
    assert died.attrs["sender"] == "sh"


def _pid_inside(pid: int) -> str:
    """The pid that a process has in its own pid namespace."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1]


def test_an_agent_that_starts_anew_knows_lanes_and_what_titles_hide(ear: Any, gunicorn: Any, tmp_path: Path) -> None:
    first = Host(ear.source, "again", Memory(tmp_path / "services.json", "this boot"))
    first.scan()
    gunicorn("again", "-w", "2", "--timeout", "77")
    events = first.until(lambda events: _count(events, "worker.ready") == 2)
    (victim,) = [event.worker for event in events if event.kind == "worker.started" and event.worker.slot == 0]
    os.kill(victim.pid, signal.SIGKILL)
    first.until(lambda events: _count(events, "worker.ready") == 3)
    first.watcher.tick()
    second = Host(ear.source, "again", Memory(tmp_path / "services.json", "this boot"))
    second.scan()
    (service,) = [one for one in second.rollup.services.values() if one.name == "again/app:app"]
    assert (service.timeout_s, service.settings.workers) == (77.0, 2)
    assert sorted((w.ref.slot, w.ref.generation) for w in service.workers.values()) == [(0, 2), (1, 1)]
