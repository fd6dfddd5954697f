"""What stories of repairs share: the library's playbooks, armed, and the links of a chain from fault to recovery."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from demo.chain import Link, StoredEvent

LIBRARY = Path(__file__).parents[1] / "playbooks" / "library"


def armed(name: str, *, within: str | None = None) -> Mapping[str, str]:
    """A playbook of the library as a file of the operator's: armed, and with so much time to prove itself."""
    text = (LIBRARY / f"{name}.yaml").read_text() + "mode: armed\n"
    if within is not None:
        text = re.sub(r"(verify:\n  within: )\S+", rf"\g<1>{within}", text)
    return {name: text}


def repair_links(playbook: str, root: str, *actions: str) -> tuple[Link, ...]:
    """Fault, run, steps with their outcomes, recovery: each names the one before as its cause."""
    links = [Link("playbook.started", root, "the playbook begins because of the fault", lambda e: _is_of(e, playbook))]
    for number, action in enumerate(actions):
        after = "action.done" if number else "playbook.started"
        links += _step_links(playbook, action, after)
    links.append(
        Link(
            "playbook.verified",
            "action.done",
            "what was to come true has, and how long after the fault",
            lambda event: _is_of(event, playbook) and "recovered in" in event["text"],
        )
    )
    return tuple(links)


def _step_links(playbook: str, action: str, after: str) -> tuple[Link, Link]:
    return (
        Link(
            "playbook.step",
            after,
            f"its step asks the host for {action}",
            lambda event: _is_of(event, playbook) and event["attrs"]["action"] == action,
        ),
        Link(
            "action.done",
            "playbook.step",
            f"the host says how it did {action}, step by step, and how long it took",
            lambda event: event["attrs"]["action"] == action and event["attrs"]["took_ms"] > 0,
        ),
    )


def _is_of(event: StoredEvent, playbook: str) -> bool:
    return bool(event["attrs"]["playbook"] == playbook)
