"""What the runner is asked to run, checked against the host's policy."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.policy import AppRules, PolicyError, load_policy
from agent.wire.app import LONGEST_S, argv_of, variables_of
from agent.wire.checks import WireError, mapping_of

MOST_GIVEN_CHARS = 262_144


class JobRefused(Exception):
    """A job that is not done; the text says why."""


@dataclass(frozen=True, slots=True)
class Job:
    """One program to run as the user of an app. `given` is its standard input.

    With `log`, a file in the app's folder, it goes on by itself after it was begun. A modest one gives way to what serves.
    """

    base: str
    user: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    argv: tuple[str, ...] = ()
    folder: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    seconds: float = 60.0
    given: str = field(default="", repr=False)
    log: str = ""
    is_modest: bool = False
    makes_folder: bool = False


def read_job(value: object, policy_file: Path) -> Job:
    """The job, with the user and the folder that the policy has for its app; raises JobRefused."""
    try:
        obj = mapping_of(value, "job")
        rules = _rules(str(obj.get("app", "")), policy_file)
        return _job(obj, rules)
    except WireError as error:
        raise JobRefused(str(error)) from None


def _rules(app: str, policy_file: Path) -> AppRules:
    try:
        policy = load_policy(policy_file)
    except PolicyError as error:
        raise JobRefused(f"the policy of this host cannot be used, so nothing is run: {error}") from None
    if policy.stop or app not in policy.apps:
        raise JobRefused(
            f"the policy of this host does not let {app or 'it'} be deployed ({policy_file}, [apps.{app}])"
        )
    return policy.apps[app]


def _job(obj: Mapping[str, Any], rules: AppRules) -> Job:
    entry = pwd.getpwnam(rules.user)
    seconds = obj.get("seconds", 60.0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_S:
        raise JobRefused(f"seconds must be a number above 0, {LONGEST_S} at most")
    folder, log, given = (str(obj.get(name, "")) for name in ("folder", "log", "given"))
    makes_folder = obj.get("makes_folder") is True
    for path in (folder, log) if not makes_folder else ():
        if path and not _is_inside(path, rules.folder):
            raise JobRefused(f"{path} is not inside of {rules.folder}")
    if len(given) > MOST_GIVEN_CHARS:
        raise JobRefused(f"the input has more than {MOST_GIVEN_CHARS} characters")
    argv = () if makes_folder else argv_of(obj.get("argv"), "argv")
    if argv and "=" in argv[0]:
        raise JobRefused(f"{argv[0]:.60} is no program")
    return Job(
        base=rules.folder,
        user=rules.user,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        groups=tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)),
        argv=argv,
        folder=folder or rules.folder,
        environment={
            "HOME": entry.pw_dir,
            "USER": rules.user,
            **variables_of(obj.get("environment", {}), "environment"),
        },
        seconds=float(seconds),
        given=given,
        log=log,
        is_modest=obj.get("is_modest") is True,
        makes_folder=makes_folder,
    )


def _is_inside(path: str, base: str) -> bool:
    """Links within may lead elsewhere: what a job does there it does as the user of the app."""
    parts = path.split("/")
    return (path == base or path.startswith(f"{base}/")) and ".." not in parts
