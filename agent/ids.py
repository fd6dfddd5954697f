"""Ids for events that this host makes."""

from __future__ import annotations

import secrets

from agent.wire import uuid7


def new_event_id(ts_us: int) -> str:
    """A fresh id for an event of that time (UTC microseconds)."""
    return uuid7(ts_us, secrets.randbits(62))
