"""Makes artifacts fit: a snapshot's content as JSON within what the wire takes, with all that is left out counted. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from agent.service import Worker
from agent.wire import MAX_ARTIFACT_BYTES, Artifact

_CALLS = (150, 60, 30, 10, 3, 1)
"""Calls of a thread that are kept, from the innermost on: as many as fit."""


def snapshot_artifact(id_: str, ts_us: int, worker: Worker, content: Mapping[str, Any]) -> Artifact:
    """The artifact of one snapshot; docs/snapshots.md has the keys of its content."""
    return Artifact(
        id=id_,
        ts_us=ts_us,
        kind="snapshot",
        content=fitted(content),
        service=worker.service.name,
        worker=worker.ref,
        release=worker.release,
    )


def fitted(content: Mapping[str, Any], most_bytes: int = MAX_ARTIFACT_BYTES) -> bytes:
    """The content as JSON of at most `most_bytes`: outer calls go first, then threads; each says how much is missing."""
    text = orjson.dumps(content)
    for most in _CALLS:
        if len(text) <= most_bytes:
            return text
        text = orjson.dumps({**content, "threads": [_cut(thread, most) for thread in content.get("threads") or ()]})
    if len(text) <= most_bytes:
        return text
    return orjson.dumps({**content, "threads": None, "no_stacks_because": "they are too long to be kept"})


def _cut(thread: Mapping[str, Any], most: int) -> dict[str, Any]:
    calls = thread["calls"]
    missing = thread.get("calls_left_out", 0) + max(len(calls) - most, 0)
    return {**thread, "calls": calls[:most], **({"calls_left_out": missing} if missing else {})}
