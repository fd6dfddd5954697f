"""What the server tells a host to do: one command for one act, signed, and worth something for a short time only. Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import orjson

from agent.wire.checks import (
    MAX_NAME_CHARS,
    Scalar,
    WireError,
    attrs_of,
    mapping_of,
    optional_text_of,
    text_of,
    uuid_of,
    whole_of,
)

LONGEST_US = 600_000_000
"""A command that is to be good for longer is refused."""

_PURPOSE = b"reflex command v1"

Refusal = Literal[
    "busy",
    "expired",
    "foreign",
    "forged",
    "killed",
    "malformed",
    "params",
    "policy",
    "replayed",
    "stale",
    "unknown_action",
]
REFUSALS: tuple[Refusal, ...] = get_args(Refusal)
"""Why a host does not carry out a command; `attrs.reason` of `action.refused`."""


@dataclass(frozen=True, slots=True)
class Target:
    """The process that is acted upon, and no later one with its pid; `start_ticks` as in WorkerRef."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Command:
    """One act of one step of a run. A host does one `id` at most once.

    `run` is the id of the run's first event, `step` the place in its playbook, `cause` the event that the outcome names
    as its cause. `target` is a worker, or the master for acts on a whole service. Times are UTC in us since 1970.
    """

    id: str
    issued_us: int
    expires_us: int
    host: str
    run: str
    step: str
    action: str
    cause: str
    params: Mapping[str, Scalar] = field(default_factory=dict)
    service: str | None = None
    target: Target | None = None
    dry_run: bool = False


def command_to_json(command: Command) -> dict[str, Any]:
    """The command as plain values, ready for orjson."""
    target = command.target
    return {
        "id": command.id,
        "issued_us": command.issued_us,
        "expires_us": command.expires_us,
        "host": command.host,
        "run": command.run,
        "step": command.step,
        "action": command.action,
        "cause": command.cause,
        "params": dict(command.params),
        "service": command.service,
        "target": None if target is None else {"pid": target.pid, "start_ticks": target.start_ticks},
        "dry_run": command.dry_run,
    }


def command_from_json(value: object) -> Command:
    """The command that `value` describes; raises WireError."""
    obj = mapping_of(value, "command")
    issued_us, expires_us = whole_of(obj, "issued_us"), whole_of(obj, "expires_us")
    if not 0 < expires_us - issued_us <= LONGEST_US:
        raise WireError("expires_us", f"must be after issued_us, by at most {LONGEST_US} us")
    if not isinstance(dry_run := obj.get("dry_run", False), bool):
        raise WireError("dry_run", "must be true or false")
    return Command(
        id=uuid_of(obj, "id"),
        issued_us=issued_us,
        expires_us=expires_us,
        host=text_of(obj, "host", MAX_NAME_CHARS),
        run=uuid_of(obj, "run"),
        step=text_of(obj, "step", MAX_NAME_CHARS),
        action=text_of(obj, "action", MAX_NAME_CHARS),
        cause=uuid_of(obj, "cause"),
        params=params_from_json(obj.get("params", {})),
        service=optional_text_of(obj, "service"),
        target=target_from_json(obj.get("target")),
        dry_run=dry_run,
    )


def target_from_json(value: object) -> Target | None:
    """The process that `value` names, or None; raises WireError."""
    if value is None:
        return None
    obj = mapping_of(value, "target")
    try:
        target = Target(whole_of(obj, "pid"), whole_of(obj, "start_ticks"))
    except WireError as error:
        raise WireError(f"target.{error.where}", error.problem) from None
    if not 1 < target.pid < 2**31:
        raise WireError("target.pid", "must be a process id above 1")
    return target


def params_from_json(value: object) -> Mapping[str, Scalar]:
    """Parameters of an action; raises WireError."""
    return attrs_of(value, "params")


def sign(command: Command, host_key_hash: str) -> str:
    """The signature in hex. Both sides have the hash of the host's key (SHA-256 in hex); the server keeps no more."""
    key = hmac.digest(host_key_hash.encode(), _PURPOSE, hashlib.sha256)
    return hmac.new(key, _canonical(command), hashlib.sha256).hexdigest()


def is_signed(command: Command, signature: str, host_key_hash: str) -> bool:
    """Whether the signature is that of this command and host."""
    return hmac.compare_digest(sign(command, host_key_hash).encode(), signature.encode("utf-8", "replace"))


def _canonical(command: Command) -> bytes:
    return orjson.dumps(command_to_json(command), option=orjson.OPT_SORT_KEYS)
