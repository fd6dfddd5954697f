"""docs/actions.md stays in step with the actions. `python -m tests.actions.test_page` renews its table."""

from __future__ import annotations

import re
from pathlib import Path

from agent.actions import ACTIONS
from agent.wire import ACTS, REFUSALS

PAGE = Path(__file__).parents[2] / "docs" / "actions.md"


def rows() -> list[str]:
    """A line for each action."""
    made = []
    for act in sorted(ACTS.values(), key=lambda one: one.name):
        params = []
        for param in act.params.values():
            bounds = f" {param.least:g} to {param.most:g}" if param.most is not None else ""
            params.append(f"`{param.name}` ({param.type}{bounds}{', required' * param.required})")
        default = "by the server" if act.by_server else "allowed" if act.by_default else "refused"
        made.append(f"| `{act.name}` | {act.needs} | {', '.join(params) or 'none'} | {act.text} | {default} |")
    return made


def test_the_agent_carries_out_what_it_can_be_asked() -> None:
    assert set(ACTIONS) == {act.name for act in ACTS.values() if not act.by_server}


def test_every_action_has_its_line() -> None:
    assert [
        line
        for line in PAGE.read_text().splitlines()
        if re.match(r"\| `[\w.]+` \| (worker|process|master|service|nothing) \|", line)
    ] == rows()


def test_every_refusal_has_its_line() -> None:
    assert set(REFUSALS) == set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text().partition("## Refusals")[2], re.M))


if __name__ == "__main__":
    head = "|---|---|---|---|---|\n"
    before, _, rest = PAGE.read_text().partition(head)
    PAGE.write_text(before + head + "\n".join(rows()) + "\n\n" + rest.partition("\n\n")[2])
