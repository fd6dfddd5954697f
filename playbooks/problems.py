"""What is wrong with a playbook, and where: every mistake of a file at once, each with its line and column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake; lines and columns are counted from 1, as editors do."""

    line: int
    column: int
    text: str


class PlaybookError(ValueError):
    """A playbook that cannot be used. Its text has one line for each problem: `file:line:column: what is wrong`."""

    def __init__(self, file: str, problems: Iterable[Problem]) -> None:
        self.file = file
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(f"{file}:{one.line}:{one.column}: {one.text}" for one in self.problems))


def meant(word: str, known: Sequence[str]) -> str:
    """`; did you mean 'steps'?`, or what there is to choose from where nothing is near and the list is short."""
    from difflib import get_close_matches  # only a mistake needs it, and the agent has the rest of this module

    near = get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there is {', '.join(sorted(known))}" if 0 < len(known) <= 30 else ""
