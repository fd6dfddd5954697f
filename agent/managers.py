"""Who starts a service again: the systemd unit, the supervisor program or the circus watcher of its master. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agent.identity import Home

KEEPERS = ("reflex-keep", "keep.py")
"""Names of the program that stands between a manager and a server which hands over (agent/release/keep.py)."""

ASIDE = ".next"
"""What the name of a socket's file ended with when the keeper made it; clients know it without that."""

_SOCKET = re.compile(r"unix://(/[^\0]{1,100})")
_PROGRAM = re.compile(r"[\w.@-]{1,100}")

CIRCUS_ENDPOINT = "tcp://127.0.0.1:5555"
"""Where a circusd listens whose configuration says nothing else."""

_CIRCUS_TCP = re.compile(r"tcp://([\w.*-]{1,100}):(\d{1,5})")
_CIRCUS_IPC = re.compile(r"ipc://(/[^\0]{1,100})")
_CIRCUS_OPTIONS = ("--log-level", "--log-output", "--logger-config", "--pidfile")
_SHELLS = ("sh", "bash", "dash")


@dataclass(frozen=True, slots=True)
class Manager:
    """A unit such as `shop.service`, a program such as `shop:web` of the supervisor that listens on `socket`, or the
    watcher of the circusd at the endpoint `socket` that has begun the process `child`: the master or who keeps it.

    Circus tells its watchers' names only when it is asked; until then `name` is empty.
    """

    kind: Literal["systemd", "supervisor", "circus"]
    name: str
    socket: str = ""
    child: int = 0


def supervisor_of(environment: Mapping[str, str]) -> Manager | None:
    """The program of a supervisor that an environment at exec names.

    It is the process's own word, so only a socket of this host is believed. Titles are written over environments:
    this one has to be read at exec.
    """
    socket = _SOCKET.fullmatch(environment.get("SUPERVISOR_SERVER_URL", ""))
    name = environment.get("SUPERVISOR_PROCESS_NAME", "")
    group = environment.get("SUPERVISOR_GROUP_NAME", name)
    if socket is not None and _PROGRAM.fullmatch(name) and _PROGRAM.fullmatch(group):
        return Manager("supervisor", f"{group}:{name}", socket[1])
    return None


def is_keeper(argv: Sequence[str]) -> bool:
    """Whether a command line is the keeper's; the program that it keeps follows in it."""
    return any(word.rpartition("/")[2] in KEEPERS for word in argv[:4])


def holds_socket(argv: Sequence[str]) -> bool:
    """Whether a keeper has opened the listening socket itself, so that it can start another master beside the one that serves."""
    own = argv[: argv.index("--")] if "--" in argv else argv
    return is_keeper(argv) and "--listen" in own


def is_circusd(argv: Sequence[str]) -> bool:
    """Whether a command line, or a title in its place, is circusd's."""
    return any(word.rpartition("/")[2] == "circusd" for word in argv[:2]) or _is_module(argv)


def is_between(argv: Sequence[str]) -> bool:
    """Whether a program may stand between a manager and what it starts: the keeper, or a shell."""
    return is_keeper(argv) or (bool(argv) and argv[0].rpartition("/")[2] in _SHELLS)


def circus_config(argv: Sequence[str]) -> str:
    """The configuration file that a command line of circusd names; nothing where a title hides it."""
    start = 3 if _is_module(argv) else 1
    words = [word for word in argv[start:] if word.rpartition("/")[2] != "circusd"]
    while words:
        word = words.pop(0)
        if word in _CIRCUS_OPTIONS:
            del words[:1]
        elif not word.startswith("-"):
            return word
    return ""


def _is_module(argv: Sequence[str]) -> bool:
    return tuple(argv[1:3]) == ("-m", "circus.circusd")


def circus_endpoint(config: str, listens: Collection[str]) -> str:
    """Where a circusd is asked, by the text of its configuration; nothing unless it listens there itself.

    `listens` are addresses of its listeners, such as `tcp 127.0.0.1:5555`. What a wildcard stands for is asked on loopback.
    """
    import configparser  # hosts without circus do without it

    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(config)
        said = parser.get("circus", "endpoint", fallback=CIRCUS_ENDPOINT).strip()
    except configparser.Error:
        return ""
    if path := _CIRCUS_IPC.fullmatch(said):
        return said if f"unix {path[1]}" in listens else ""
    place = _CIRCUS_TCP.fullmatch(said)
    if place is None:
        return ""
    host = {"localhost": "127.0.0.1", "*": "0.0.0.0"}.get(place[1], place[1])
    if f"tcp {host}:{place[2]}" not in listens:
        return ""
    return f"tcp://{'127.0.0.1' if host == '0.0.0.0' else host}:{place[2]}"


def manager_of(home: Home, supervisor: Manager | None, circus: Manager | None = None) -> Manager | None:
    """Who manages a master. Circus is known as the master's parent, so it goes before a supervisor that may have started
    circus; supervisor itself is often a unit, so it goes before one."""
    if circus is not None and not home.container:
        return circus
    if supervisor is not None:
        return supervisor
    return Manager("systemd", home.unit) if home.unit and not home.container else None
