"""Which listening sockets belong to a service: real Gunicorns, whose workers share sockets or open their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.listeners import ListenerKeeper
from agent.procfs import Listener, ProcFs
from agent.service import Service, Worker
from agent.slots import Slots
from agent.wire import WorkerRef
from demo.stage import StageError, demo_python, free_port

WAIT_S = 30.0
LOOK_EVERY_S = 0.02
APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n"
AS_SYSTEMD_DOES = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[2], sys.argv[2:])
"""


class Shop:
    """A running Gunicorn as a service; `refresh` keeps its workers and listeners as they are now."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.procfs = ProcFs()
        self.keeper = ListenerKeeper(self.procfs)
        self.service = Service(
            name="shop",
            kind="gunicorn",
            master_pid=process.pid,
            start_ticks=self.procfs.start_ticks(process.pid) or 0,
            timeout_s=None,
            cgroup="",
            slots=Slots(),
        )

    def until(self, enough: Callable[[tuple[Listener, ...]], bool], workers: int) -> tuple[Listener, ...]:
        """The listeners once there are so many workers and `enough` says so."""
        deadline = time.monotonic() + WAIT_S
        while not (self._refresh() == workers and enough(self.service.listeners)):
            assert time.monotonic() < deadline, self.service
            time.sleep(LOOK_EVERY_S)
        return self.service.listeners

    def _refresh(self) -> int:
        service, beating = self.service, 0
        service.workers.clear()
        for slot, pid in enumerate(self.procfs.children(service.master_pid)):
            heartbeats = self.procfs.open_files(pid, "/wgunicorn-")
            ref = WorkerRef(slot, 0, pid, self.procfs.start_ticks(pid) or 0)
            # A beat sets the file's time by the monotonic clock. Right after the fork there are those of siblings, too.
            ready = len(heartbeats) == 1 and heartbeats[0].modified_ns < heartbeats[0].changed_ns - 10**9
            beating += ready
            service.workers[pid] = Worker(ref, service, 0, heartbeat_inode=None, ready_us=1 if ready else None)
        self.keeper.refresh([service])
        return beating


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    """Starts a Gunicorn; `inherited` is a socket that it gets the way systemd hands sockets over."""
    try:
        python = str(demo_python())
    except StageError as error:
        pytest.skip(str(error))
    started: list[subprocess.Popen[bytes]] = []
    (tmp_path / "app.py").write_text(APP)

    def _start(*arguments: str, inherited: socket.socket | None = None) -> Shop:
        command = [python, "-m", "gunicorn", "--no-control-socket", *arguments, "app:app"]
        if inherited is not None:
            command = [python, "-c", AS_SYSTEMD_DOES, str(inherited.fileno()), *command]
        fds = () if inherited is None else (inherited.fileno(),)
        with (tmp_path / "log").open("wb") as log:
            started.append(subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, pass_fds=fds))
        return Shop(started[-1])

    yield _start
    for process in started:
        process.terminate()
        process.wait()


def test_workers_share_their_masters_socket(start: Callable[..., Shop]) -> None:
    port = free_port()
    shop = start("-w", "2", "-b", f"127.0.0.1:{port}")
    (listener,) = shop.until(lambda listeners: len(listeners) == 1, workers=2)
    assert listener.address == f"tcp 127.0.0.1:{port}"
    assert shop.keeper.holder(listener.inode) == shop.service.master_pid


def test_by_reuse_port_each_worker_has_a_socket_of_its_own(start: Callable[..., Shop]) -> None:
    port = free_port()
    shop = start("-w", "2", "--reuse-port", "-b", f"127.0.0.1:{port}")
    listeners = shop.until(lambda listeners: len(listeners) == 2, workers=2)
    assert {listener.address for listener in listeners} == {f"tcp 127.0.0.1:{port}"}
    holders = {shop.keeper.holder(listener.inode): listener for listener in listeners}
    assert holders.keys() == shop.service.workers.keys()
    victim = min(holders)
    os.kill(victim, signal.SIGKILL)
    later = shop.until(lambda now: len(now) == 2 and holders[victim] not in now, workers=2)
    assert holders[max(holders)] in later


def test_a_socket_that_a_service_manager_hands_over(start: Callable[..., Shop], tmp_path: Path) -> None:
    path = str(tmp_path / "shop.sock")
    with socket.socket(socket.AF_UNIX) as made_elsewhere:
        made_elsewhere.bind(path)
        made_elsewhere.listen(8)
        shop = start("-w", "1", inherited=made_elsewhere)
        listeners = shop.until(lambda listeners: len(listeners) == 1, workers=1)
        assert listeners == (Listener(os.fstat(made_elsewhere.fileno()).st_ino, f"unix {path}"),)
