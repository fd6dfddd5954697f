"""YAML as values that know where they stand: the first step from a file to a playbook.

Anchors, tags and documents after the first are refused: a playbook is read by people at night, and by no program that
it could surprise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from playbooks.problems import PlaybookError, Problem

MOST_CHARS = 100_000
MOST_DEPTH = 20

Scalar: TypeAlias = str | int | float | bool | None

_PLAIN_TAGS = ("str", "int", "float", "bool", "null")


@dataclass(frozen=True, slots=True)
class Located:
    """A scalar, a list or a mapping; `line` and `column` are those of its beginning, counted from 1."""

    value: Scalar | tuple[Located, ...] | dict[Key, Located]
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a mapping."""

    name: str
    line: int
    column: int


def parse(text: str, file: str) -> Located:
    """The one document of a file; raises PlaybookError."""
    if len(text) > MOST_CHARS:
        raise PlaybookError(file, [Problem(1, 1, f"has {len(text)} characters; a playbook has at most {MOST_CHARS}")])
    try:
        refused = list(_refused(text))
        node = None if refused else YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        raise PlaybookError(file, [Problem(line, column, f"is no YAML: {error.problem or error.context}")]) from None
    except (YAMLError, RecursionError, ValueError) as error:
        raise PlaybookError(file, [Problem(1, 1, f"is no YAML: {error}")]) from None
    if refused:
        raise PlaybookError(file, refused)
    if node is None:
        raise PlaybookError(file, [Problem(1, 1, "is empty")])
    problems: list[Problem] = []
    located = _located(node, problems, 0)
    if problems:
        raise PlaybookError(file, problems)
    return located


def _refused(text: str) -> Iterator[Problem]:
    """What is not used here. It ends where the text is too deep: how long reading takes grows with the square of that."""
    depth = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MOST_DEPTH + 1:
            yield Problem(line, column, f"is nested more than {MOST_DEPTH} deep")
            return
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            yield Problem(line, column, "anchors and aliases (& and *) are not used here")


def _located(node: Node, problems: list[Problem], depth: int) -> Located:
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    if depth > MOST_DEPTH:
        problems.append(Problem(line, column, f"is nested more than {MOST_DEPTH} deep"))
        return Located(None, line, column)
    if isinstance(node, SequenceNode):
        return Located(tuple(_located(one, problems, depth + 1) for one in node.value), line, column)
    if isinstance(node, MappingNode):
        return Located(_mapping(node, problems, depth), line, column)
    assert isinstance(node, ScalarNode)
    return Located(_scalar(node, problems), line, column)


def _mapping(node: MappingNode, problems: list[Problem], depth: int) -> dict[Key, Located]:
    found: dict[Key, Located] = {}
    names: set[str] = set()
    for key_node, value_node in node.value:
        line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
        if not isinstance(key_node, ScalarNode):
            problems.append(Problem(line, column, "a key must be a word"))
            continue
        name = str(key_node.value)
        if name in names:
            problems.append(Problem(line, column, f"{name!r} stands here twice"))
        names.add(name)
        found[Key(name, line, column)] = _located(value_node, problems, depth + 1)
    return found


def _scalar(node: ScalarNode, problems: list[Problem]) -> Scalar:
    tag = str(node.tag).rpartition(":")[2]
    raw = str(node.value)
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    if tag not in _PLAIN_TAGS:
        if tag != "timestamp":
            problems.append(Problem(line, column, f"the tag {node.tag} is not used in playbooks"))
        return raw
    try:
        return _plain(tag, raw)
    except ValueError:
        return raw


def _plain(tag: str, raw: str) -> Scalar:
    if tag == "null":
        return None
    if tag == "bool":
        return raw.lower() in ("true", "yes", "on")
    if tag == "int":
        return int(raw.replace("_", ""), 0) if not raw.lstrip("+-").startswith("0") or raw.strip("+-0") else int(raw)
    return float(raw.replace("_", "")) if tag == "float" else raw
