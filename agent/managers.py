"""Who starts a service again: the systemd unit or the supervisor program that its master belongs to. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agent.identity import Home

KEEPERS = ("reflex-keep", "keep.py")
"""Names of the program that stands between a manager and a server which hands over (agent/release/keep.py)."""

ASIDE = ".next"
"""What the name of a socket's file ended with when the keeper made it; clients know it without that."""

_SOCKET = re.compile(r"unix://(/[^\0]{1,100})")
_PROGRAM = re.compile(r"[\w.@-]{1,100}")


@dataclass(frozen=True, slots=True)
class Manager:
    """A unit such as `shop.service`, or a program such as `shop:web` of the supervisor that listens on `socket`."""

    kind: Literal["systemd", "supervisor"]
    name: str
    socket: str = ""


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


def manager_of(home: Home, supervisor: Manager | None) -> Manager | None:
    """Who manages a master; supervisor itself is often a unit, so it goes before one."""
    if supervisor is not None:
        return supervisor
    return Manager("systemd", home.unit) if home.unit and not home.container else None
