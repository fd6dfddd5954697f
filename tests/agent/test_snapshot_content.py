"""What a snapshot holds: maps read from real and made-up texts, contents cut to what the wire takes."""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent.artifacts import fitted
from agent.memory_map import read_map
from agent.procfs import ProcFs
from agent.stacks import MOST_THREADS, Stack, Stacks
from agent.wire import MAX_ARTIFACT_BYTES, Artifact, artifact_from_json, artifact_to_json

MIB = 1024 * 1024
PROCFS = ProcFs(Path("/proc"))
SMAPS = """\
55d0-55e0 rw-p 00000000 00:00 0                          [heap]
Rss:                 100 kB
Pss:                  60 kB
Private_Dirty:        50 kB
Anonymous:           100 kB
VmFlags: rd wr mr mw me ac sd
7f00-7f10 rw-p 00000000 00:00 0
Rss:                 300 kB
Anonymous:           300 kB
7f10-7f20 rw-p 00000000 08:01 42                         /usr/lib/lib with blanks.so
Rss:                  30 kB
Anonymous:            10 kB
7f20-7f30 rw-s 00000000 00:05 42                         /memfd:x (deleted)
Rss:                   8 kB
Swap:                  4 kB
"""


def test_kinds_and_sums_of_a_map() -> None:
    found = read_map(SMAPS, 2)
    assert found is not None
    assert {kind: size // 1024 for kind, size in found.kinds.items() if size} == {
        "heap": 100,
        "anonymous": 300,
        "file": 20,
        "written_file": 10,
        "shared": 8,
    }
    assert (found.rss_bytes, found.pss_bytes, found.uss_bytes) == (438 * 1024, 60 * 1024, 50 * 1024)
    assert (found.swap_bytes, found.mappings) == (4 * 1024, 4)
    assert [(part.name, part.kind) for part in found.parts] == [("(anonymous)", "anonymous"), ("[heap]", "heap")]
    assert read_map("", 2) is None


def test_a_real_process_and_what_it_maps() -> None:
    block = mmap.mmap(-1, 32 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.write(b"x" * (32 * MIB))
    found = read_map(PROCFS.smaps(os.getpid()), 20)
    figures = PROCFS.figures(os.getpid())
    block.close()
    assert found is not None
    assert found.kinds["anonymous"] >= 32 * MIB
    assert abs(sum(found.kinds.values()) - found.rss_bytes) < MIB
    assert figures["rss_anon_bytes"] >= 32 * MIB
    assert figures["threads"] >= 1
    assert figures["open_files"] >= 3
    assert PROCFS.figures(2**22 + 1) == {}


def test_whom_a_real_process_is_connected_to_and_what_waits_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        own, _ = listener.accept()
        with own, far:
            far.sendall(b"seven b")
            own.recv(1, socket.MSG_PEEK)
            port = listener.getsockname()[1]
            (found,) = [one for one in PROCFS.connections(os.getpid()) if one.own == f"127.0.0.1:{port}"]
            assert (found.state, found.unread_bytes, found.unsent_bytes) == ("established", 7, 0)
            assert found.far == f"127.0.0.1:{far.getsockname()[1]}"
            far.close()
            assert (own.recv(7), own.recv(1)) == (b"seven b", b"")
            (found,) = [one for one in PROCFS.connections(os.getpid()) if one.own == f"127.0.0.1:{port}"]
            assert found.state == "close-wait"
    assert PROCFS.connections(2**22 + 1) == ()


def test_what_does_not_fit_is_cut_and_counted() -> None:
    calls = [f"f{number} (module/{'x' * 40}.py:{number})" for number in range(150)]
    threads = [{"name": f"t{number}", "id": number, "calls": calls} for number in range(64)]
    text = fitted({"why": "x", "threads": threads})
    assert len(text) <= MAX_ARTIFACT_BYTES
    for thread in orjson.loads(text)["threads"]:
        assert len(thread["calls"]) + thread["calls_left_out"] == 150
        assert thread["calls"] == calls[: len(thread["calls"])]
    artifact = Artifact("0" * 32, 1, "snapshot", text)
    back = artifact_from_json(orjson.loads(orjson.dumps(artifact_to_json(artifact))))
    assert back.content == text


@pytest.mark.parametrize("most", [200, 2000])
def test_stacks_that_cannot_be_made_to_fit_are_said(most: int) -> None:
    threads = [{"name": "t" * 100, "id": 1, "calls": ["c" * 400] * 9}] * 20
    content: dict[str, Any] = orjson.loads(fitted({"why": "x", "threads": threads}, most))
    assert (content["threads"], content["no_stacks_because"]) == (None, "they are too long to be kept")


def test_the_main_thread_is_there_however_many_there_are() -> None:
    code = (
        "import threading, time\n"
        f"for _ in range({MOST_THREADS + 20}):\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "def innermost():\n    print('there', flush=True)\n    time.sleep(60)\ninnermost()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        found = asyncio.run(Stacks(PROCFS).of(process.pid, PROCFS.start_ticks(process.pid) or 0))
    finally:
        process.kill()
        process.wait()
    assert isinstance(found, Stack), found
    assert found.main is not None
    assert found.main.frames[0].function == "innermost"
    assert len(found.threads) == MOST_THREADS
