"""The runner: a small program beside the agent that runs what releases take, each as the user of its app.

The agent has given away the right to become another user. The runner has kept it and does nothing else: it takes jobs
on a unix socket from its own user only, and of each job it asks the host's policy again who the user of that app is and
which folder is its own. A job ends with the connection that it came on.

This module is the part that waits: it imports next to nothing, so that it stays small. agent/release/running.py does a job.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MOST_JOBS = 8
LOOK_AFTER_JOBS_S = 1.0
_CREDENTIALS = struct.Struct("=iII")


def serve(listener: socket.socket, policy_file: Path, *, until_closed: int | None, idle_s: float | None) -> None:
    """Takes jobs, each in a process of its own, until the descriptor `until_closed` is closed, or nothing came for `idle_s`."""
    signal.signal(signal.SIGCHLD, lambda *_: None)
    jobs: set[int] = set()
    heard: list[Any] = [listener, *([] if until_closed is None else [until_closed])]
    while True:
        is_idle = not jobs
        ready, _, _ = select.select(heard, [], [], idle_s if is_idle else LOOK_AFTER_JOBS_S)
        jobs -= set(_ended(jobs))
        if until_closed in ready:
            return
        if listener in ready:
            with contextlib.suppress(OSError):
                jobs |= _take(listener, policy_file, has_room=len(jobs) < MOST_JOBS)
        elif not ready and is_idle:
            return


def _take(listener: socket.socket, policy_file: Path, *, has_room: bool) -> set[int]:
    """The process that does the job which has come; none where it is not taken. Raises OSError."""
    connection, _ = listener.accept()
    with connection:
        if not has_room or not _is_own(connection):
            return set()
        if pid := os.fork():
            return {pid}
        try:
            _begin_anew(connection, policy_file)
        finally:
            os._exit(1)


def _begin_anew(connection: socket.socket, policy_file: Path) -> None:
    """A job is done by a fresh interpreter, so that the one that waits stays small."""
    os.dup2(connection.fileno(), 0)
    os.execv(sys.executable, [*interpreter(), "-m", "agent", "runner", "--job", "--policy-file", str(policy_file)])


def interpreter() -> list[str]:
    """Python, as isolated from the folder that it is started in as this one is."""
    return [sys.executable, *(["-I"] if sys.flags.isolated else [])]


def _ended(jobs: set[int]) -> Iterator[int]:
    for pid in jobs:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0]:
                yield pid


def _is_own(connection: socket.socket) -> bool:
    """Whether the other end is the user of the runner."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1]) == os.geteuid()


def listening(path: Path) -> socket.socket:
    """The socket at that path, for the runner's own user only; raises OSError. It is there once it takes connections."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(fresh))
    finally:
        os.umask(before)
    listener.listen(MOST_JOBS)
    fresh.replace(path)
    return listener


def handed_over(environment: Mapping[str, str] = os.environ) -> socket.socket | None:
    """The socket that systemd has opened for the runner."""
    if environment.get("LISTEN_PID") == str(os.getpid()) and environment.get("LISTEN_FDS") == "1":
        return socket.socket(fileno=3)
    return None
