"""`reflexctl chain ID`: one event, all that brought it about, and all that it brought about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from uuid import UUID

from ctl.client import Client
from ctl.entry import Entry
from ctl.errors import Misused, NothingFound
from ctl.screen import Screen, show, show_json
from ctl.timeline import recent
from ctl.tree import draw, read_chain

RECENT = 2_000
"""Newest events among which a part of an id is looked for."""

MIN_DIGITS = 4
SHOWN_CANDIDATES = 5


async def print_chain(client: Client, wanted: str, screen: Screen, *, as_json: bool) -> None:
    """Prints the chain of the event that `wanted` names; raises CtlError."""
    id_ = whole_id(wanted) or match(wanted, await recent(client, RECENT))
    answer = await client.get(f"/v1/chain/{id_}")
    chain = read_chain(answer)
    if as_json:
        show_json(answer)
    else:
        show(*draw(chain, screen))


def whole_id(wanted: str) -> str | None:
    """The id in its usual form if all of it is there, or None for a part of one; raises Misused for anything else."""
    digits = wanted.replace("-", "").lower()
    if not re.fullmatch(rf"[0-9a-f]{{{MIN_DIGITS},32}}", digits):
        raise Misused(
            f"{wanted!r:.60} is no event id; give one that reflexctl timeline shows, "
            f"or at least {MIN_DIGITS} of its first or last digits"
        )
    return str(UUID(digits)) if len(digits) == 32 else None


def match(wanted: str, entries: Sequence[Entry]) -> str:
    """The id of the one entry whose id begins or ends with `wanted`; raises NothingFound and Misused."""
    digits = wanted.replace("-", "").lower()
    bare = {entry.id.replace("-", ""): entry for entry in entries}
    found = [entry for id_, entry in bare.items() if id_.startswith(digits) or id_.endswith(digits)]
    if not found:
        raise NothingFound(
            f"none of the newest {len(entries)} events has an id that begins or ends with {wanted}; "
            "older events need the whole id, which reflexctl timeline --json shows"
        )
    if len(found) > 1:
        candidates = ", ".join(f"{entry.id} ({entry.kind})" for entry in found[-SHOWN_CANDIDATES:])
        rest = f" and {len(found) - SHOWN_CANDIDATES} more" if len(found) > SHOWN_CANDIDATES else ""
        raise Misused(f"{wanted} fits {len(found)} events: {candidates}{rest}; give more digits")
    return found[0].id
