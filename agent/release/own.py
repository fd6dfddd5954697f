"""An app as the server and its own repository have it together. Pure.

The server's file is the authority: what it says stands. The file of the commit says the rest of how that commit is built
and run, so a release is always handled as its own commit has it, also when another one goes back to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.wire.app import App, app_from_json, app_to_json


def merged(app: App, own: Mapping[str, Any]) -> App:
    """The app with what its repository says where the server says nothing; raises WireError.

    Services that the server's file does not name any more are left out.
    """
    if not app.own_file or not own:
        return app
    plain, said = app_to_json(app), frozenset(app.said)
    for name in ("shared", "checks", "migrate"):
        if name in own and name not in said:
            plain[name] = own[name]
    plain["build"] = _filled(plain["build"], own.get("build", {}), "build", said)
    plain["environment"] = {**own.get("environment", {}), **plain["environment"]}
    for part in ("web", "jobs"):
        by_name = {one["service"]: one for one in own.get(part, ())}
        plain[part] = [
            _filled(one, by_name.get(one["service"], {}), f"{part}.{index}", said)
            for index, one in enumerate(plain[part])
        ]
    return app_from_json(plain)


def _filled(one: Mapping[str, Any], own: Mapping[str, Any], where: str, said: frozenset[str]) -> dict[str, Any]:
    """A part with the members that the repository says and the server does not."""
    found = dict(one)
    for name, value in own.items():
        if name == "health":
            found[name] = _filled(one.get(name) or {}, value, f"{where}.{name}", said)
        elif f"{where}.{name}" not in said:
            found[name] = value
    return found


def told(own: Mapping[str, Any]) -> str:
    """What a repository says something of, for a sentence."""
    return ", ".join({"jobs": "celery"}.get(name, name) for name in own)
