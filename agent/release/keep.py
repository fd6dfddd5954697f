#!/usr/bin/python3 -I
"""`reflex-keep [OPTION …] -- PROGRAM …`: stands between a supervisor or a unit and a server that hands over to a new one.

Gunicorn hands over (USR2) by forking a new master and ending the old one. Whoever started the old one takes that for the
end of the service, and starts another that cannot listen. The keeper is what is started instead: it stays, takes the new
master as its own child when the old one ends, hands signals on to the master that serves, and ends when the last has.

With `--listen` the keeper lets servers hand over that cannot do it themselves. It opens the listening socket and gives it
to the program as descriptor 3 (`uvicorn --fd 3`). Then two signals are its own:

USR2    starts the program again, from the folder that PWD names now and with the variables that the file of
        `--environment` has now. The new master has a socket of its own for the same address; no client is led to it yet.
WINCH   leads clients to the new master. The old one accepts those that wait at its socket, and gets TERM.

This is a program of its own: one file that needs nothing but Python, so that the user of an app can run it as it is.
"""

from __future__ import annotations

import ctypes
import os
import select
import shlex
import signal
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

FORWARDED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
    signal.SIGTTIN, signal.SIGTTOU,
)  # fmt: skip
EVERYBODY = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""Signals that end the service, which all its masters get."""

CANNOT_START = 127
DESCRIPTOR = 3
"""Where a program finds the socket that the keeper has opened for it."""

BACKLOG = 2048
LOOK_S = 0.05
SETTLED_S = 1.0
"""When nobody has waited at a socket for so long, what was accepted there has been read, and is answered before the end."""

MOST_SETTLING_S = 15.0
USAGE = "usage: reflex-keep [--listen HOST:PORT|PATH] [--environment FILE] [--] PROGRAM [ARGUMENT …]"
_PR_SET_CHILD_SUBREAPER = 36
_SO_ATTACH_REUSEPORT_CBPF = 51
_BPF_RETURN = 0x06


class Master:
    """A child that was begun here, with its own socket for the address of the service, if the keeper listens."""

    def __init__(self, pid: int, door: socket.socket | None) -> None:
        self.pid = pid
        self.door = door
        self.since_s = self.quiet_since_s = 0.0

    def close(self) -> None:
        """Lets go of its socket; it listens for as long as a process of the master's holds it."""
        if self.door is not None:
            self.door.close()


class Keeper:
    """Runs one program until it and all that it left are gone."""

    def __init__(self, argv: Sequence[str], home: str, *, address: str = "", environment: str = "") -> None:
        """`home` is the folder that each master begins in, a link followed anew each time.

        `address` is what the keeper listens on itself, `environment` a file of variables. Raises OSError and ValueError
        when it cannot listen.
        """
        self._argv = argv
        self._home = home
        self._address = address
        self._environment = environment
        self._children: list[int] = []
        self._code = 0
        self._is_wanted = self._is_ending = False
        self._next: Master | None = None
        self._leaving: Master | None = None
        self._serving = Master(0, open_door(address, is_first=True) if address else None)

    def run(self) -> int:
        """The exit code, which is that of the first that failed.

        A master that ends while another that was begun here lives does not count: one of them replaces the other.
        """
        adopt_orphans()
        signal.pthread_sigmask(signal.SIG_BLOCK, {*FORWARDED, signal.SIGCHLD})
        self._serving.pid = self._begin(self._serving.door)
        while self._children:
            heard = signal.sigtimedwait({*FORWARDED, signal.SIGCHLD}, LOOK_S) if self._leaving else None
            if self._leaving is None:
                heard = signal.sigwaitinfo({*FORWARDED, signal.SIGCHLD})
            if heard is not None and heard.si_signo == signal.SIGCHLD:
                self._reap()
            elif heard is not None:
                self._hear(heard.si_signo)
            if self._leaving is not None:
                self._settle(self._leaving, time.monotonic())
        return self._code

    def _hear(self, number: int) -> None:
        self._is_ending = self._is_ending or number in EVERYBODY
        if self._serving.door is not None and number == signal.SIGUSR2:
            self._is_wanted = True
            if self._next is not None:
                os.kill(self._next.pid, signal.SIGTERM)
            self._begin_next()
        elif self._serving.door is not None and number == signal.SIGWINCH:
            self._lead_to_next()
        else:
            first = self._serving.pid if self._serving.door is not None else self._children[-1]
            for pid in self._children if number in EVERYBODY else [first]:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    # Masters.

    def _begin(self, door: socket.socket | None) -> int:
        if pid := os.fork():
            self._children.append(pid)
            return pid
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        try:
            os.chdir(self._home)
            if door is not None:
                os.dup2(door.fileno(), DESCRIPTOR)
                os.set_inheritable(DESCRIPTOR, True)  # dup2 onto itself changes nothing
            argv = as_script(self._argv)
            os.execvpe(argv[0], argv, {**os.environ, **variables(self._environment)})
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            print(f"reflex-keep: {self._argv[0]} cannot be started in {self._home}: {why}", file=sys.stderr)
        finally:
            os._exit(CANNOT_START)

    def _begin_next(self) -> None:
        """Begins the master that is wanted once the one that serves is alone: sockets are counted in the order that they came."""
        if not self._is_wanted or self._is_ending or self._children != [self._serving.pid]:
            return
        self._is_wanted = False
        assert self._serving.door is not None
        lead_to(self._serving.door, 0)
        try:
            door = open_door(self._address, is_first=False)
        except OSError as error:
            print(f"reflex-keep: no second socket for {self._address}: {error.strerror}", file=sys.stderr)
            return
        self._next = Master(self._begin(door), door)

    def _lead_to_next(self) -> None:
        if self._next is None or self._next.door is None or self._leaving is not None:
            return
        lead_to(self._next.door, 1)
        self._serving, self._leaving, self._next = self._next, self._serving, None
        self._leaving.since_s = self._leaving.quiet_since_s = time.monotonic()

    def _settle(self, leaving: Master, now_s: float) -> None:
        """A master that no client is led to any more gets TERM when it has accepted all that waited."""
        if leaving.door is None or leaving.door.fileno() < 0:
            return
        if select.select([leaving.door], [], [], 0)[0]:
            leaving.quiet_since_s = now_s
        if now_s - leaving.quiet_since_s > SETTLED_S or now_s - leaving.since_s > MOST_SETTLING_S:
            leaving.close()
            with suppress(ProcessLookupError):
                os.kill(leaving.pid, signal.SIGTERM)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pid = 0
            if pid == 0:
                break
            self._children = [one for one in self._children if one != pid]
            self._ended(pid, _exit_code(status))
        self._children += [pid for pid in _children() if pid not in self._children]
        self._begin_next()

    def _ended(self, pid: int, code: int) -> None:
        """A child has ended. When the one that serves does so by itself, the next takes its place, or all end."""
        if self._next is not None and pid == self._next.pid:
            self._next.close()
            self._next = None
            return
        if self._leaving is not None and pid == self._leaving.pid:
            self._leaving.close()
            self._leaving = None
            return
        if self._next is not None and pid == self._serving.pid:
            self._lead_to_next()
            self._ended(pid, code)
            return
        self._code = self._code or code
        if pid == self._serving.pid and self._serving.door is not None:
            for one in self._children:
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGTERM)


def adopt_orphans() -> None:
    """From now on this process is the parent of every descendant whose parent ends; raises OSError."""
    libc, unused = ctypes.CDLL(None, use_errno=True), ctypes.c_ulong(0)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), unused, unused, unused):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def as_script(argv: Sequence[str]) -> list[str]:
    """`python -m gunicorn` as the script beside that python, if there is one.

    Gunicorn hands over by running the file again that it was started from. Of a module that is one inside of its package,
    and Python then finds Gunicorn's own `http` before the one that Django imports.
    """
    script = f"{os.path.dirname(argv[0])}/gunicorn"
    if tuple(argv[1:3]) == ("-m", "gunicorn") and argv[0].startswith("/") and os.path.isfile(script):
        return [argv[0], script, *argv[3:]]
    return list(argv)


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


# Sockets.


def open_door(address: str, *, is_first: bool) -> socket.socket:
    """A socket that listens at the address. Clients are led to the first. Raises OSError and ValueError.

    Small pieces of answers do not wait for acknowledgements, as servers have it for sockets that they know to be TCP's.
    A socket's file may be written by everybody, as uvicorn has it.
    """
    if address.startswith("/"):
        one, path = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), address if is_first else _aside(address)
        with suppress(FileNotFoundError):
            os.unlink(path)
        one.bind(path)
        os.chmod(path, 0o666)
    else:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.bind((host, int(port)))
    one.listen(BACKLOG)
    if is_first:
        lead_to(one, 0)
    return one


def lead_to(door: socket.socket, place: int) -> None:
    """Leads clients that come from now on to a socket, the first (0) or the second (1) that listens at the address.

    The kernel asks a program of one instruction which of the sockets of one address gets a connection (SO_REUSEPORT). A
    path is a name, which is given to the other socket in one step.
    """
    if door.family == socket.AF_UNIX:
        path = door.getsockname()
        if place:
            os.rename(path, path.removesuffix(_aside("")))
        return
    program = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, place))
    pointer = struct.pack("HL", 1, ctypes.addressof(program))
    door.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, pointer)


def _aside(path: str) -> str:
    return f"{path}.next"


# What it is told.


def home_of(environment: Mapping[str, str]) -> str:
    """The folder that this process was started in, by the path that led to it where PWD tells that."""
    here, said = os.getcwd(), environment.get("PWD", "")
    return said if said.startswith("/") and os.path.realpath(said) == here else here


def variables(path: str) -> dict[str, str]:
    """The variables of a file as systemd and sh read it; none without a path.

    Raises OSError, and ValueError for a file that is none of variables.
    """
    if not path:
        return {}
    with open(path, encoding="utf-8") as file:
        words = shlex.split(file.read(), comments=True)
    if odd := next((word for word in words if not word.partition("=")[0].isidentifier() or "=" not in word), None):
        raise ValueError(f"{odd.partition('=')[0]!r:.40} is no NAME=value")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def main(words: Sequence[str]) -> int:
    """Reads the command line and keeps the program."""
    given, rest = {"--listen": "", "--environment": ""}, list(words)
    while len(rest) > 1 and rest[0] in given:
        option, given[option], *rest = rest
    rest = rest[1:] if rest[:1] == ["--"] else rest
    if not rest or rest[0].startswith("--"):
        sys.exit(USAGE)
    try:
        variables(given["--environment"])
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        sys.exit(f"reflex-keep: {given['--environment']} cannot be read as variables: {why}")
    try:
        home = home_of(os.environ)
        keeper = Keeper(rest, home, address=given["--listen"], environment=given["--environment"])
    except (OSError, ValueError) as error:
        sys.exit(f"reflex-keep: cannot listen on {given['--listen']}: {getattr(error, 'strerror', None) or error}")
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
