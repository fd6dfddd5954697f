"""The reader of /proc: against a small tree, and against this very process."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from agent.procfs import Listener, ProcFs

STAT = "42 (a (odd) name) S 7 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 8123 1000 25 0\n"


def _tree(root: Path) -> ProcFs:
    process = root / "42"
    (process / "task" / "42").mkdir(parents=True)
    (process / "fd").mkdir()
    (process / "stat").write_text(STAT)
    (process / "statm").write_text("1000 25 5 1 0 60 0\n")
    (process / "cmdline").write_bytes(b"gunicorn\0shop:app\0")
    (process / "environ").write_bytes(b"A=1\0B=x=y\0broken\0")
    (process / "cgroup").write_text("5:cpu:/cpu\n4:memory:/web/shop\n0::/unified\n")
    (process / "task" / "42" / "children").write_text("50 51 ")
    (process / "cwd").symlink_to("/srv/shop")
    heartbeat = root / "wgunicorn-abc"
    heartbeat.write_text("")
    os.utime(heartbeat, ns=(5, 5))
    (process / "fd" / "9").symlink_to(heartbeat)
    return ProcFs(root)


def test_a_process(tmp_path: Path) -> None:
    process = _tree(tmp_path).process(42)
    assert process is not None
    assert process.ident == (42, 8123)
    assert (process.parent_pid, process.comm) == (7, "a (odd) name")
    assert process.argv == ("gunicorn", "shop:app")
    assert (process.folder, process.cgroup) == ("/srv/shop", "/web/shop")


def test_details(tmp_path: Path) -> None:
    procfs = _tree(tmp_path)
    assert list(procfs.pids()) == [42]
    assert procfs.children(42) == (50, 51)
    assert procfs.environment(42) == {"A": "1", "B": "x=y", "broken": ""}
    (file,) = procfs.open_files(42, "/wgunicorn-")
    assert (file.fd, file.modified_ns) == (9, 5)
    usage = procfs.usage(42)
    assert usage is not None
    assert usage.cpu_ns == 2_000_000_000


def test_without_a_memory_hierarchy_the_unified_cgroup_counts(tmp_path: Path) -> None:
    procfs = _tree(tmp_path)
    (tmp_path / "42" / "cgroup").write_text("0::/system.slice/shop.service\n")
    process = procfs.process(42)
    assert process is not None
    assert process.cgroup == "/system.slice/shop.service"


def test_a_process_that_is_gone_is_none(tmp_path: Path) -> None:
    procfs = ProcFs(tmp_path)
    assert procfs.process(1) is None
    assert procfs.start_ticks(1) is None
    assert procfs.usage(1) is None
    assert procfs.children(1) == ()
    assert procfs.open_files(1, "x") == ()
    assert procfs.listeners(1) == ()


def test_real_listeners_of_this_process(tmp_path: Path) -> None:
    procfs = ProcFs(Path("/proc"))
    path = str(tmp_path / "app.sock")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as tcp6,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(path)
        unix.listen()
        wanted = {
            Listener(os.fstat(tcp.fileno()).st_ino, f"tcp 127.0.0.1:{tcp.getsockname()[1]}"),
            Listener(os.fstat(tcp6.fileno()).st_ino, f"tcp [0:0:0:0:0:0:0:1]:{tcp6.getsockname()[1]}"),
            Listener(os.fstat(unix.fileno()).st_ino, f"unix {path}"),
        }
        assert set(procfs.listeners(os.getpid())) == wanted
