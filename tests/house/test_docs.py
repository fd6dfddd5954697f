"""The pages stay in step with the code: every kind, metric, setting, dependency, version and command has its line."""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

import agent
import agent.settings
import server.settings
from agent.wire import KINDS, METRICS

ROOT = Path(__file__).parents[2]
REQUIREMENTS = (ROOT / "demo" / "requirements.txt", ROOT / "benchmarks" / "deploys" / "requirements.txt")


def rows(page: str) -> dict[str, str]:
    """First cell, without backticks, to the last cell of every table row of a page in docs/."""
    found = {}
    for line in (ROOT / "docs" / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            found[cells[0].strip("`")] = cells[-1]
    return found


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def distributions(requirements: str) -> set[str]:
    """Names in a list of requirements, one a line."""
    lines = (line.strip() for line in requirements.splitlines())
    return {re.split(r"[\s\[<>=]", line)[0].lower() for line in lines if line and not line.startswith("#")}


def test_every_kind_and_metric_has_its_line() -> None:
    described = {name: meaning for name, meaning in rows("events.md").items() if "." in name}
    assert described == {**KINDS, **METRICS}


@pytest.mark.parametrize("section", ["The server", "The agent"])
def test_every_setting_has_its_line_and_default(section: str) -> None:
    module: Any = server.settings if section == "The server" else agent.settings
    docs: Mapping[str, str] = module.SETTINGS_DOC
    page = (ROOT / "docs" / "settings.md").read_text()
    part = re.split(r"^## ", page.partition(f"## {section}\n")[2], flags=re.M)[0]
    lines = {line.split("`")[1]: line for line in part.splitlines() if line.startswith("| `")}
    assert sorted(lines) == sorted(docs)
    for field in fields(module.Settings):
        line = lines[field.name]
        assert line.endswith(f"| {docs[field.name]} |")
        if field.default not in (MISSING, None, ""):
            assert f"`{_plain(field.default)}`" in line


def test_every_environment_variable_of_the_script_has_its_line() -> None:
    scripts = [ROOT / "reflex", *(ROOT / "packaging").rglob("*.sh"), *(ROOT / "packaging").glob("*.py")]
    named = {name for path in scripts for name in re.findall(r"\bREFLEX_(?!SERVER_)[A-Z]+\b", path.read_text())}
    assert named <= set(rows("settings.md"))


def test_every_dependency_has_its_line() -> None:
    described = set(re.findall(r"`([a-z0-9-]+)`", (ROOT / "docs" / "dependencies.md").read_text()))
    options = setup_cfg()["options"]["install_requires"]
    extras = setup_cfg()["options.extras_require"]
    needed = distributions("\n".join([options, *extras.values(), *map(Path.read_text, REQUIREMENTS)]))
    assert needed <= described
    assert needed >= {"aiohttp", "chdb", "pytest", "flask", "ansible-core"}


def test_every_dependency_has_a_range() -> None:
    lists = [setup_cfg()["options"]["install_requires"], *setup_cfg()["options.extras_require"].values()]
    lists += map(Path.read_text, REQUIREMENTS)
    for line in "\n".join(lists).splitlines():
        if line.strip() and not line.strip().startswith(("#", "setuptools")):
            assert re.search(r">=\d\S*, <\d", line), line


def test_the_changelog_has_this_version() -> None:
    assert re.search(rf"^## {re.escape(agent.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_the_readme_names_both_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "sudo ./reflex up" in readme
    assert "sudo ./reflex test" in readme


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "bpf" / "README.md"]
    broken = [
        f"{page.relative_to(ROOT)} -> {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_every_page_is_named_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"docs/{page.name}" not in readme] == []


def _plain(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.removeprefix(f"{ROOT}/")
