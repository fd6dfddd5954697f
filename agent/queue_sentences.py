"""What events about accept queues say: sentences that stand alone, with the evidence and the numbers beside them. Pure."""

from __future__ import annotations

from agent.queues import WINDOW_S, Saturation
from agent.wire import Evidence, Scalar, Severity
from agent.words import span


def saturated(service: str, address: str, state: Saturation, limit: int | None) -> str:
    """A queue that is full again and again."""
    return (
        f"The accept queue of {service} on {address} is full: in the last {WINDOW_S} s "
        f"{_and(_waited(state, limit), *_found_no_room(address, state))}. "
        "Its workers do not accept as fast as clients connect."
    )


def recovered(service: str, address: str, state: Saturation, lasted_us: int) -> str:
    """A queue that has been less than half full for long enough."""
    longest = f"(one of them for {span(state.longest_wait_ns / 1e9)})" if state.longest_wait_ns else ""
    waited = " ".join(filter(None, (_waited(state, None), longest)))
    return (
        f"The accept queue of {service} on {address} has room again: it has been less than half full for "
        f"{state.calm_needed_s} s. It was saturated for {span(lasted_us / 1e6)}; in that time "
        f"{_and(waited, *_found_no_room(address, state))}."
    )


def severity(state: Saturation) -> Severity:
    """Clients that are turned away are worse off than clients that wait."""
    return "critical" if state.turned_away else "warning"


def evidence(state: Saturation, limit: int | None, rungs: dict[str, str]) -> tuple[Evidence, ...]:
    """The numbers with the means they were heard by: `rungs` names those of the signals `queue` and `queue_overflow`."""
    found = [Evidence(rungs["queue"], f"deepest accept queue {state.deepest} of limit {_shown(limit)}")]
    if state.turned_away or state.blocked:
        counted = f"{state.turned_away} turned away, {state.blocked} had to wait for room"
        found.append(Evidence(rungs["queue_overflow"], counted))
    return tuple(found)


def attrs(address: str, state: Saturation, limit: int | None, sockets: int) -> dict[str, Scalar]:
    """The numbers as they stand. `sockets` is the number of queues behind the address, more than one by reuse_port."""
    values: dict[str, Scalar] = {
        "listener": address,
        "depth": state.deepest,
        "turned_away": state.turned_away,
        "blocked": state.blocked,
        "sockets": sockets,
    }
    if limit is not None:
        values["limit"] = limit
    if state.longest_wait_ns:
        values["longest_wait_ms"] = round(state.longest_wait_ns / 1e6, 3)
    return values


def _waited(state: Saturation, limit: int | None) -> str:
    where = "" if limit is None else f" in its {_count(limit + 1, 'place')}"
    return f"up to {_count(state.deepest, 'connection')} waited{where}" if state.deepest else ""


def _found_no_room(address: str, state: Saturation) -> list[str]:
    unix = address.startswith("unix ")
    found = []
    if state.turned_away:
        what, how = ("connect", "refused (EAGAIN)") if unix else ("handshake packet", "dropped")
        found.append(f"{_count(state.turned_away, what)} {_was(state.turned_away)} {how}")
    if state.blocked:
        found.append(f"{_count(state.blocked, 'connect')} had to wait for room")
    return found


def _and(*parts: str) -> str:
    said = [part for part in parts if part]
    return f"{', '.join(said[:-1])} and {said[-1]}" if len(said) > 1 else "".join(said)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def _shown(limit: int | None) -> str:
    return "unknown" if limit is None else str(limit)
