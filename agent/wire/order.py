"""What the server orders of a host in a deploy: one phase of a release, signed, and done once however often it comes. Pure.

A server that does not know what became of an order sends it again under the same id: a host that is at it goes on, and
one that has done it tells the outcome again.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import orjson

from agent.wire.app import App, app_from_json, app_to_json, variables_of
from agent.wire.checks import MAX_NAME_CHARS, WireError, mapping_of, text_of, uuid_of, whole_of

Phase = Literal["prepare", "switch", "rollback", "cancel"]
PHASES: tuple[Phase, ...] = get_args(Phase)
"""`prepare` ends with a release that is built and checked beside what serves; `switch` puts it to work, watches it, and
goes back by itself if it is worse; `rollback` goes to the release before; `cancel` ends the order of that id."""

LONGEST_ORDER_US = 600_000_000
MOST_SECRET_CHARS = 65_536
_PURPOSE = b"reflex order v1"


@dataclass(frozen=True, slots=True)
class Order:
    """One phase on one host. It must begin before `expires_us` (UTC, us since 1970); how long it takes, the app says.

    `deploy` is the id of the deploy, `cause` the event that the outcome names as its cause. `release` is the release that
    is switched or rolled back to: empty for `prepare`, which makes one, and for a rollback to the one before; of `cancel`
    it is the order that is to end. `migrates` is true on the one host that changes the database.
    """

    id: str
    deploy: str
    phase: Phase
    host: str
    issued_us: int
    expires_us: int
    cause: str
    app: App
    release: str = ""
    migrates: bool = False
    force: bool = False
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    key: str = field(default="", repr=False)
    """The private key, or the token, that the repository is fetched with."""


def order_to_json(order: Order) -> dict[str, Any]:
    """The order as plain values, ready for orjson."""
    return {
        **{name: getattr(order, name) for name in Order.__slots__ if name not in ("app", "secrets")},
        "app": app_to_json(order.app),
        "secrets": dict(order.secrets),
    }


def order_from_json(value: object) -> Order:
    """The order that `value` describes; raises WireError."""
    obj = mapping_of(value, "order")
    issued_us, expires_us = whole_of(obj, "issued_us"), whole_of(obj, "expires_us")
    if not 0 < expires_us - issued_us <= LONGEST_ORDER_US:
        raise WireError("expires_us", f"must be after issued_us, by at most {LONGEST_ORDER_US} us")
    phase = next((one for one in PHASES if one == obj.get("phase")), None)
    if phase is None:
        raise WireError("phase", f"must be one of {', '.join(PHASES)}")
    return Order(
        id=uuid_of(obj, "id"),
        deploy=uuid_of(obj, "deploy"),
        phase=phase,
        host=text_of(obj, "host", MAX_NAME_CHARS),
        issued_us=issued_us,
        expires_us=expires_us,
        cause=uuid_of(obj, "cause"),
        app=app_from_json(obj.get("app")),
        release=_short(obj, "release", MAX_NAME_CHARS),
        migrates=_flag(obj, "migrates"),
        force=_flag(obj, "force"),
        secrets=variables_of(obj.get("secrets", {}), "secrets"),
        key=_short(obj, "key", MOST_SECRET_CHARS),
    )


def sign_order(order: Order, host_key_hash: str) -> str:
    """The signature in hex, by the same key as that of commands and for no other purpose."""
    key = hmac.digest(host_key_hash.encode(), _PURPOSE, hashlib.sha256)
    content = orjson.dumps(order_to_json(order), option=orjson.OPT_SORT_KEYS)
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def is_signed_order(order: Order, signature: str, host_key_hash: str) -> bool:
    """Whether the signature is that of this order and host."""
    return hmac.compare_digest(sign_order(order, host_key_hash).encode(), signature.encode("utf-8", "replace"))


def _short(obj: Mapping[str, Any], key: str, most: int) -> str:
    value = obj.get(key, "")
    if not isinstance(value, str) or len(value) > most:
        raise WireError(key, f"must be a text of at most {most} characters")
    return value


def _flag(obj: Mapping[str, Any], key: str) -> bool:
    value = obj.get(key, False)
    if not isinstance(value, bool):
        raise WireError(key, "must be true or false")
    return value
