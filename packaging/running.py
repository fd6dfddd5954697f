"""Which `./reflex up` runs with a state directory: a lock that ends with its holder, and a note beside it."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

STOP_WITHIN_S = 45.0


@dataclass(frozen=True, slots=True)
class Note:
    """Who holds the state directory; `url` is empty until its server is ready."""

    pid: int
    url: str


class StateUnusable(Exception):
    """The state directory cannot be written; the text says which and what to do."""


class AlreadyRunning(Exception):
    """Another `./reflex up` holds the state directory."""

    def __init__(self, note: Note) -> None:
        super().__init__(note.url)
        self.note = note


@dataclass(frozen=True, slots=True)
class NoteFile:
    """The note of whoever holds the lock."""

    path: Path

    def write(self, note: Note) -> None:
        """Replaces the note in one step, so that no reader sees half of one."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(note)))
        fresh.replace(self.path)

    def read(self) -> Note:
        """The note, or one with pid 0 where there is none yet."""
        try:
            return Note(**json.loads(self.path.read_text()))
        except FileNotFoundError:
            return Note(pid=0, url="")


@contextmanager
def hold(state: Path) -> Iterator[NoteFile]:
    """Holds the state directory. Raises AlreadyRunning, StateUnusable."""
    note = NoteFile(state / "up.json")
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(state / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateUnusable(
            f"the state directory {state} cannot be written ({error.strerror}); run with sudo, "
            "or name a directory of yours: REFLEX_STATE=~/reflex ./reflex up"
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(note.read()) from None
        note.write(Note(pid=os.getpid(), url=""))
        yield note
    finally:
        os.close(lock)


def find_running(state: Path) -> Note | None:
    """The note of the `./reflex up` that holds the directory, None when nobody does. Raises StateUnusable."""
    try:
        lock = os.open(state / "up.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateUnusable(f"{state} cannot be read ({error.strerror}); run with sudo") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return NoteFile(state / "up.json").read()
    else:
        return None
    finally:
        os.close(lock)


def stop_running(state: Path, note: Note) -> bool:
    """Sends SIGTERM to the holder of the directory and waits; whether it ended."""
    try:
        holder = os.pidfd_open(note.pid)
    except ProcessLookupError:
        return True
    try:
        if find_running(state) != note:
            return True
        signal.pidfd_send_signal(holder, signal.SIGTERM)
        ended, _, _ = select.select([holder], [], [], STOP_WITHIN_S)
        return bool(ended)
    finally:
        os.close(holder)
