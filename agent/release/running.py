"""Does one job of the runner, in a process of its own.

One line of JSON is the job; lines of JSON come back: `{"line": …}` for each line of output, and at last `{"code": …}`, with
null for a job that took too long, `{"pid": …}` for one that goes on by itself, or `{"trouble": …}` for one that could not
be begun.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agent.kernel.capabilities import CapabilityError, adopt_orphans
from agent.procfs import OWN_SESSION, ProcFs
from agent.release.job import Job, JobRefused, read_job
from agent.release.words import CUT

MOST_REQUEST_BYTES = 1024 * 1024
MOST_LINE_CHARS = 2_000
GRACE_S = 5.0
_PIECE_BYTES = 64 * 1024
_STRAYS_POLL_S = 0.01
_LAST_OF_SESSIONS = f"""\
for _ in 1 2 3; do
    [ -w {OWN_SESSION} ] || break
    echo 3 2>/dev/null >{OWN_SESSION} && break
    sleep 0.1
done
exec "$@"
"""
"""For sh. Where the kernel groups tasks by session (sched_autogroup), `nice` counts only within one, and a job has its own.

So it gets half of what another session gets. On a full host a tenth, as for `nice 10`, would take boots past their time.
The kernel takes one such change in a tenth of a second from all who are not root, so it may have to be said again.
"""

_MODEST = ("/usr/bin/choom", "-n", "500", "--", "/usr/bin/nice", "-n", "10", "/bin/sh", "-c", _LAST_OF_SESSIONS, "sh")
"""A build gives way to what serves: it gets the CPU last, and is the first that the kernel kills for memory."""

_IN = ("/usr/bin/env", "-C")
"""Goes into a folder as the user of the app. Popen would go as the runner's user, also where a link of the app's user leads
to a place that this user may not go to."""

_MOST_LINE_BYTES = 4 * MOST_LINE_CHARS


def do_job(connection: socket.socket, policy_file: Path) -> None:
    """Reads one job, does it and tells of it."""
    answers = connection.makefile("w", encoding="utf-8", errors="replace")

    def tell(**said: Any) -> None:
        with contextlib.suppress(BrokenPipeError):
            answers.write(json.dumps(said) + "\n")
            answers.flush()

    try:
        job = read_job(_request(connection), policy_file)
        if job.makes_folder:
            _make(job)
            tell(code=0)
        elif job.log:
            tell(pid=_begin(job).pid)
        else:
            tell(code=_run(job, connection, tell))
    except JobRefused as refused:
        tell(trouble=str(refused))
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        tell(trouble=f"could not be begun:{where} {error.strerror or error}")


def _request(connection: socket.socket) -> object:
    kept = bytearray()
    while not kept.endswith(b"\n"):
        piece = connection.recv(_PIECE_BYTES)
        kept += piece
        if not piece or len(kept) > MOST_REQUEST_BYTES:
            raise JobRefused("the job did not come whole, or is too large")
    try:
        return json.loads(kept)
    except ValueError:
        raise JobRefused("the job is no JSON") from None


def _make(job: Job) -> None:
    """The app's own folder, which is the only thing that is made by the runner's user."""
    base = Path(job.base)
    is_new = not base.exists()
    if is_new:
        base.mkdir(mode=0o755)
    with _held(base) as folder:
        if is_new and not os.listdir(folder):
            os.fchown(folder, job.uid, job.gid)
        if os.fstat(folder).st_uid != job.uid:
            raise JobRefused(f"{base} must be a folder that belongs to {job.user}; run: chown {job.user}: {base}")


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[int]:
    """A descriptor of a folder that is no link: whatever takes its place meanwhile, nothing is done to that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise JobRefused(f"{folder} must be a folder and no link ({error.strerror})") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _run(job: Job, connection: socket.socket, tell: Callable[..., None]) -> int | None:
    with contextlib.suppress(CapabilityError):
        adopt_orphans()
    process = _begin(job)
    try:
        return _listen(job, process, connection, tell)
    finally:
        _end(process)


def _begin(job: Job) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [*(_MODEST if job.is_modest else ()), *_IN, job.folder, *job.argv],
        cwd="/",
        env=dict(job.environment),
        user=job.uid,
        group=job.gid,
        extra_groups=job.groups,
        umask=0o022,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL if job.log else subprocess.PIPE,
        stderr=subprocess.DEVNULL if job.log else subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=(lambda: _log_to(job.log)) if job.log else None,
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(job.given.encode())
    return process


def _log_to(path: str) -> None:
    """Output goes to a file that the user of the app opens, after the job has become that user."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _listen(
    job: Job, process: subprocess.Popen[bytes], connection: socket.socket, tell: Callable[..., None]
) -> int | None:
    """Passes output on until there is no more, the time is up, or nobody listens."""
    assert process.stdout is not None
    ends_s, lines, output = time.monotonic() + job.seconds, _Lines(), process.stdout.fileno()
    heard: list[Any] = [output, connection]
    while (left_s := ends_s - time.monotonic()) > 0:
        ready, _, _ = select.select(heard, [], [], left_s)
        if connection in ready and not connection.recv(1):
            return None
        if output not in ready:
            continue
        piece = os.read(output, _PIECE_BYTES)
        for line in lines.of(piece):
            tell(line=line)
        if not piece:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(max(left_s, 0.1))
    return None


class _Lines:
    """Makes lines of pieces of output. Of one that is too long the beginning is told, with a mark, and the rest is not."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_cut = False

    def of(self, piece: bytes) -> Iterator[str]:
        """The lines that end with this piece; an empty one is the end of all."""
        *whole, self._rest = (self._rest + piece).split(b"\n")
        for line in [*whole, *([] if piece else [self._rest])]:
            if line.strip() and not self._is_cut:
                yield _bounded(line)
            self._is_cut = False
        if self._is_cut or len(self._rest) > _MOST_LINE_BYTES:
            if not self._is_cut:
                yield _bounded(self._rest)
            self._rest, self._is_cut = b"", True


def _bounded(line: bytes) -> str:
    text = line.decode(errors="replace").rstrip()
    return text if len(text) <= MOST_LINE_CHARS else f"{text[: MOST_LINE_CHARS - len(CUT)]}{CUT}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends what is left of the job: it leaves nothing running, also not in a session of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    _end_strays(process.pid)


def _end_strays(besides: int) -> None:
    """What has left the job's session has become a child of this process when its parent ended."""
    procfs, ends_s = ProcFs(), time.monotonic() + GRACE_S
    while (left := [pid for pid in procfs.children(os.getpid()) if pid != besides]) and time.monotonic() < ends_s:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
        time.sleep(_STRAYS_POLL_S)
