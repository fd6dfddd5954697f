"""docs/reflexctl.md stays in step with the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ctl import errors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reflexctl.md").read_text()
COMMANDS = (
    *("timeline", "chain", "artifact", "act", "playbook", "deploy", "rollback", "app", "releases", "logs", "cancel"),
    *("hosts", "login", "logout"),
)


def first_cells(heading: str) -> list[str]:
    part = re.split(r"^## ", PAGE.partition(f"## {heading}\n")[2], flags=re.M)[0]
    return [line.split("|")[1].strip() for line in part.splitlines() if line.startswith("| ")][1:]


def test_every_command_and_option_has_its_line(ctl: Any) -> None:
    assert first_cells("Commands") == [f"`{command}`" for command in COMMANDS]
    assert set(re.findall(r"^    ([a-z]+) ", ctl("--help").out, re.M)) == set(COMMANDS)
    offered = {
        name for command in COMMANDS for name in re.findall(r"^  .*?(--\w[\w-]*)", ctl(command, "--help").out, re.M)
    }
    described = set(re.findall(r"--\w[\w-]*", " ".join(first_cells("Options"))))
    assert described == {name for name in offered if name != "--help"} - {"--version"}


def test_every_environment_variable_has_its_line() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "ctl").glob("*.py"))
    named = set(re.findall(r'"(REFLEX_[A-Z_]+|NO_COLOR|XDG_\w+)"', sources))
    assert named == {cell.strip("`") for cell in first_cells("Address and token")}


def test_every_exit_code_has_its_line() -> None:
    codes = {str(kind.exit_code) for kind in errors.CtlError.__subclasses__()}
    assert codes | {"130"} == set(first_cells("Exit codes"))
