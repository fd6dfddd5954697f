"""The library: every file can be used, begins in shadow, is described, and fits what it is about."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from agent.wire import ACTS
from playbooks import Playbook, read_playbook
from playbooks.model import acts_of

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "playbooks" / "library").glob("*.yaml"))
PAGE = (ROOT / "docs" / "playbooks.md").read_text()


def book(file: Path) -> Playbook:
    return read_playbook(file.read_text(), file.name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_can_be_used_and_begins_in_shadow(file: Path) -> None:
    made = book(file)
    assert made.name == file.stem
    assert made.mode == "shadow"
    assert made.condition is not None, "says which kind of service it is for"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_acts_are_for_the_kind_that_the_condition_asks_for(file: Path) -> None:
    made = book(file)
    assert made.condition is not None
    kinds = set(re.findall(r'service\.kind == "(\w+)"', made.condition.text))
    for step in (*made.steps, *made.otherwise):
        for act in acts_of(step):
            assert not ACTS[act.action].kinds or kinds <= set(ACTS[act.action].kinds), act.action


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_people_hear_of_it_when_it_does_not_help(file: Path) -> None:
    made = book(file)
    told = [act.action for step in (*made.steps, *made.otherwise) for act in acts_of(step)]
    assert "notify" in told


def test_the_page_names_each_and_no_other() -> None:
    named = re.findall(r"^\| `([a-z-]+)` \|", PAGE.partition("## The library")[2], re.M)
    assert sorted(named) == [file.stem for file in FILES]
    assert sorted(stories()) == [file.stem for file in FILES]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_has_its_story_and_is_tried_on_the_real_thing(file: Path) -> None:
    story = stories()[file.stem]
    told, _, tried = story.partition("Tried by ")
    assert "escalates" in told
    played = re.findall(r"`\./reflex demo ([a-z0-9-]+)`", tried)
    tests = re.findall(r"`(tests/[a-z0-9_/]+\.py)`", tried)
    assert played or tests
    for name in played:
        story_of = importlib.import_module(f"demo.stories.{name.replace('-', '_')}")
        assert file.stem in story_of.PLAYBOOKS
    for test in tests:
        assert f'"{file.stem}"' in (ROOT / test).read_text(), test


def stories() -> dict[str, str]:
    """What the page tells of each, by its name."""
    parts = re.split(r"^#### `([a-z-]+)`\n", PAGE.partition("### Their stories")[2], flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))
