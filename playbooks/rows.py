"""The state of the engine as rows: what a restart must not forget, and what has changed since it was written down last.

Not kept are: what conditions on samples have seen (they begin anew, which can only make them later), and the ids of
events that were handled (whoever keeps these rows keeps its place in the timeline beside them).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from playbooks.state import Members, Place, Run, State, Use, run_from_json, run_to_json


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `value` is plain JSON; None: the row goes."""

    part: str
    key: str
    value: Any


def changes(before: State | None, after: State) -> list[Row]:
    """The rows that bring what was written down at `before` to `after`; None: nothing was yet."""
    rows: list[Row] = []
    old_parts = {} if before is None else _parts(before)
    for part, new in _parts(after).items():
        old = old_parts.get(part, {})
        rows += [Row(part, key, None) for key in old if key not in new]
        rows += [Row(part, key, _plain(part, value)) for key, value in new.items() if not _is_same(old.get(key), value)]
    return rows


def state_of(rows: Iterable[tuple[str, str, Any]]) -> State:
    """The state that part, key and value of each row tell; raises KeyError, TypeError or ValueError."""
    parts: dict[str, dict[str, Any]] = {}
    for part, key, value in rows:
        parts.setdefault(part, {})[key] = value
    one = parts["one"]
    return State(
        seed=one["seed"],
        serial=one["serial"],
        killed=one["killed"],
        modes=parts.get("modes", {}),
        runs={key: run_from_json(value) for key, value in parts.get("runs", {}).items()},
        uses=tuple(Use(name, Place(host, service), at, shadow) for name, host, service, at, shadow in one["uses"]),
        told=parts.get("told", {}),
        counts={key: tuple(times) for key, times in parts.get("counts", {}).items()},
        services={
            Place(*json.loads(key)): Members(kind, dict(workers), gone_us=gone_us)
            for key, (kind, workers, gone_us) in parts.get("services", {}).items()
        },
        lent=parts.get("lent", {}),
        charges={key: tuple((a, b) for a, b in shares) for key, shares in parts.get("charges", {}).items()},
        others={Place(*json.loads(key)): (who, until_us) for key, (who, until_us) in parts.get("others", {}).items()},
        ran_on=one.get("ran_on", ""),
    )


def _parts(state: State) -> dict[str, Mapping[str, Any]]:
    one = {
        "seed": state.seed,
        "serial": state.serial,
        "killed": state.killed,
        "uses": state.uses,
        "ran_on": state.ran_on,
    }
    services = {json.dumps([place.host, place.service]): members for place, members in state.services.items()}
    return {
        "services": services,
        "one": one,
        "modes": state.modes,
        "runs": state.runs,
        "told": state.told,
        "counts": state.counts,
        "lent": state.lent,
        "charges": state.charges,
        "others": {json.dumps([place.host, place.service]): one for place, one in state.others.items()},
    }


def _is_same(old: Any, new: Any) -> bool:
    return old is new or old == new


def _plain(part: str, value: Any) -> Any:
    if isinstance(value, Run):
        return run_to_json(value)
    if isinstance(value, Members):
        return [value.kind, [list(pair) for pair in value.workers.items()], value.gone_us]
    if part == "one" and isinstance(value, tuple):
        return [[use.playbook, use.place.host, use.place.service, use.at_us, use.is_shadow] for use in value]
    if part == "charges":
        return [list(share) for share in value]
    return list(value) if isinstance(value, tuple) else value
