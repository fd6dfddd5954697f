#!/usr/bin/python3 -I
"""`reflex-keep [--environment FILE] [--] PROGRAM …`: stands between a supervisor or a unit and a Gunicorn that hands over to a new master.

Gunicorn hands over (USR2) by forking a new master and ending the old one. Whoever started the old one takes that for the
end of the service, and starts another that cannot listen. The keeper is what is started instead: it stays, takes the new
master as its own child when the old one ends, hands signals on to the master that serves, and ends when the last has.

With `--environment` the program gets the variables of a file, as systemd's EnvironmentFile= gives them; supervisor has no
such thing. The file is the one that a deploy writes: NAME='value', quoted as for sh.

This is a program of its own: one file that needs nothing but Python, so that the user of an app can run it as it is.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import sys
from collections.abc import Sequence

FORWARDED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
    signal.SIGTTIN, signal.SIGTTOU,
)  # fmt: skip
EVERYBODY = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""Signals that end the service, which all its masters get."""

CANNOT_START = 127
USAGE = "usage: reflex-keep [--environment FILE] [--] PROGRAM [ARGUMENT …]"
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """From now on this process is the parent of every descendant whose parent ends; raises OSError."""
    libc, unused = ctypes.CDLL(None, use_errno=True), ctypes.c_ulong(0)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), unused, unused, unused):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def keep(argv: Sequence[str]) -> int:
    """Runs the program until it and all that it left are gone; its exit code, which is that of the first that failed."""
    adopt_orphans()
    signal.pthread_sigmask(signal.SIG_BLOCK, {*FORWARDED, signal.SIGCHLD})
    first = os.fork()
    if first == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        try:
            os.execvp(argv[0], list(argv))
        except OSError as error:
            print(f"reflex-keep: {argv[0]} cannot be started: {error.strerror}", file=sys.stderr)
            os._exit(CANNOT_START)
    masters, code = [first], 0
    while masters:
        number = signal.sigwait({*FORWARDED, signal.SIGCHLD})
        if number == signal.SIGCHLD:
            masters, code = _reaped(masters, code)
            continue
        for pid in masters if number in EVERYBODY else masters[-1:]:
            os.kill(pid, number)
    return code


def variables_of(path: str) -> dict[str, str]:
    """The variables of a file; raises OSError, and ValueError for a file that is none of variables."""
    with open(path, encoding="utf-8") as file:
        words = shlex.split(file.read(), comments=True)
    if odd := next((word for word in words if not word.partition("=")[0].isidentifier() or "=" not in word), None):
        raise ValueError(f"{odd.partition('=')[0]!r:.40} is no NAME=value")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def command_of(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The file of variables, if one is named, and the program with its arguments, empty if there is none."""
    rest, file = list(words), None
    if rest[:1] == ["--environment"] and len(rest) > 1:
        file, rest = rest[1], rest[2:]
    return file, rest[1:] if rest[:1] == ["--"] else rest


def as_script(argv: Sequence[str]) -> list[str]:
    """`python -m gunicorn` as the script beside that python, if there is one.

    Gunicorn hands over by running the file again that it was started from. Of a module that is one inside of its package,
    and Python then finds Gunicorn's own `http` before the one that Django imports.
    """
    script = f"{os.path.dirname(argv[0])}/gunicorn"
    if tuple(argv[1:3]) == ("-m", "gunicorn") and argv[0].startswith("/") and os.path.isfile(script):
        return [argv[0], script, *argv[3:]]
    return list(argv)


def _reaped(masters: list[int], code: int) -> tuple[list[int], int]:
    """The children that are left; one that came by the end of its parent is a master now."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return [], code
        if pid == 0:
            break
        code = code or _exit_code(status)
        masters = [one for one in masters if one != pid]
    return [*masters, *(pid for pid in _children() if pid not in masters)], code


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    named, program = command_of(sys.argv[1:])
    if not program:
        sys.exit(USAGE)
    try:
        os.environ.update({} if named is None else variables_of(named))
    except (OSError, ValueError) as error:
        sys.exit(f"reflex-keep: {named} cannot be read as variables: {getattr(error, 'strerror', None) or error}")
    sys.exit(keep(as_script(program)))
