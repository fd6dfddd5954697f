"""What people call a service: its unit, its container, what it calls itself, else its folder and application. Pure."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from agent.identity import home_of

_SHARED_UNITS = re.compile(
    r"^(user@\d+|supervisord?|circus[d]?|docker|containerd|podman|cron|crond|sshd?|ssh@.*|gitlab-runner|actions\.runner.*|"
    r"getty@.*|session-.*|process_api|emergency|rescue)\.service$"
)
_FOLDERS_WITHOUT_MEANING = frozenset({"current", "app", "src", "code", "web", "backend", "server", "", "/"})
_RELEASE_FOLDER = re.compile(r"^(releases?|v?[\d.\-_T]{6,}|[0-9a-f]{7,40})$")
_RELEASES = "releases"
LONGEST = 120
"""Of a name or a release, in characters; what tells two services apart may follow."""


def service_name(kind: str, folder: str, cgroup: str, *, own_name: str | None, app: str | None, role: str = "") -> str:
    """The name, which a restart of the service does not change.

    Units that run many services at once do not count, and a container's id goes before the name. `own_name` is what
    the program was told to call itself (Gunicorn's `--name`, Celery's `-n`), `role` tells programs of one kind and
    application apart (a Celery beat).
    """
    home = home_of(cgroup)
    if home.unit and not _SHARED_UNITS.match(home.unit):
        return home.unit.removesuffix(".service")
    own = own_name or _folder_and_app(kind, folder, app)
    own = f"{own} {role}" if role else own
    return _bounded(f"{home.container}/{own}" if home.container else own)


def release_folder(folder: str) -> str | None:
    """The release that a working folder is of: what stands below `releases` in it, as Capistrano and its like lay it out."""
    parts = PurePosixPath(folder).parts
    if _RELEASES not in parts:
        return None
    place = len(parts) - 1 - parts[::-1].index(_RELEASES)
    return _bounded(parts[place + 1]) if place + 1 < len(parts) else None


def _folder_and_app(kind: str, folder: str, app: str | None) -> str:
    parts = [part for part in PurePosixPath(folder).parts if part not in _FOLDERS_WITHOUT_MEANING]
    while parts and _is_of_release(parts):
        parts.pop()
    where = parts[-1] if parts else ""
    return "/".join(part for part in (where, app or kind) if part)


def _bounded(name: str) -> str:
    """A name that the wire takes, whatever a folder or a command line is called."""
    printable = "".join(char if char.isprintable() else "?" for char in name)
    return printable if len(printable) <= LONGEST else f"{printable[: LONGEST - 1]}…"


def _is_of_release(parts: list[str]) -> bool:
    return bool(_RELEASE_FOLDER.match(parts[-1])) or (len(parts) > 1 and parts[-2] == _RELEASES)
