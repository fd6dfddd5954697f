"""Reads the members of one mapping, each once, and gathers what is wrong instead of stopping at the first mistake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from playbooks.durations import parse_duration
from playbooks.expressions import Expression, ExpressionError, Template
from playbooks.located import Key, Located
from playbooks.problems import Problem, meant

T = TypeVar("T")
_TYPES = {
    dict: "a mapping",
    tuple: "a list",
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


class Fields:
    """The members of a mapping. A member that is asked for and wrong leaves a problem and counts as absent."""

    def __init__(self, place: Located, what: str, known: Sequence[str], problems: list[Problem]) -> None:
        """`what` is the mapping's name in sentences; keys that are not `known` are problems."""
        self.place = place
        self._what = what
        self._problems = problems
        value = place.value
        if not isinstance(value, dict):
            self.problem(place, f"{what} must be a mapping, not {type_of(place)}")
        self._members: dict[Key, Located] = value if isinstance(value, dict) else {}
        for key in self._members:
            if key.name not in known:
                self._problems.append(
                    Problem(key.line, key.column, f"{what} has no {key.name!r}{meant(key.name, known)}")
                )

    def problem(self, place: Located, text: str) -> None:
        """Something is wrong there."""
        self._problems.append(Problem(place.line, place.column, text))

    def has(self, name: str) -> bool:
        """Whether the member is there, right or wrong."""
        return any(key.name == name for key in self._members)

    def get(self, name: str) -> Located | None:
        """The member as it stands."""
        return next((value for key, value in self._members.items() if key.name == name), None)

    def must(self, name: str) -> Located | None:
        """The member, whose absence is a problem."""
        if not self.has(name):
            self.problem(self.place, f"{self._what} lacks {name!r}")
        return self.get(name)

    def text(self, name: str, *, must: bool = False, most: int = 2_000) -> str | None:
        """A text that is not empty."""
        place = self.must(name) if must else self.get(name)
        if place is None:
            return None
        if not isinstance(place.value, str) or not place.value.strip():
            self.problem(place, f"{name!r} must be a text, not {type_of(place)}")
            return None
        if len(place.value) > most:
            self.problem(place, f"{name!r} has {len(place.value)} characters; at most {most}")
            return None
        return place.value

    def choice(self, name: str, known: Sequence[str], *, must: bool = False) -> str | None:
        """One of some words."""
        place = self.must(name) if must else self.get(name)
        if place is None:
            return None
        if not isinstance(place.value, str) or place.value not in known:
            shown = place.value if isinstance(place.value, str) else type_of(place)
            self.problem(place, f"{name!r} is {shown!r}{meant(str(shown), known)}")
            return None
        return place.value

    def whole(self, name: str, default: int, *, least: int, most: int) -> int:
        """A whole number."""
        place = self.get(name)
        if place is None:
            return default
        if isinstance(place.value, bool) or not isinstance(place.value, int) or not least <= place.value <= most:
            self.problem(place, f"{name!r} must be a whole number from {least} to {most}, not {_shown(place)}")
            return default
        return place.value

    def number(self, name: str) -> float | None:
        """Any number."""
        place = self.get(name)
        if place is None:
            return None
        if isinstance(place.value, bool) or not isinstance(place.value, int | float):
            self.problem(place, f"{name!r} must be a number, not {_shown(place)}")
            return None
        return float(place.value)

    def flag(self, name: str) -> bool:
        """True or false; false where it is not there."""
        place = self.get(name)
        if place is None:
            return False
        if not isinstance(place.value, bool):
            self.problem(place, f"{name!r} must be true or false, not {_shown(place)}")
        return place.value is True

    def span_us(self, name: str, default: int, *, least_us: int = 0) -> int:
        """A span of time."""
        found = self.parsed(name, parse_duration)
        place = self.get(name)
        if found is not None and found < least_us and place is not None:
            self.problem(place, f"{name!r} is too short")
        return default if found is None else found

    def parsed(self, name: str, parse: Callable[[str], T], *, must: bool = False) -> T | None:
        """A text as `parse` reads it, which raises ValueError."""
        place = self.must(name) if must else self.get(name)
        if place is None:
            return None
        if not isinstance(place.value, str):
            self.problem(place, f"{name!r} must be a text, not {_shown(place)}")
            return None
        try:
            return parse(place.value)
        except ValueError as error:
            self.problem(place, f"{name!r}: {error}")
            return None

    def expression(self, name: str) -> Expression | None:
        """A condition."""
        return self._compiled(self.get(name), name, Expression.of)

    def template(self, place: Located, name: str) -> Template | None:
        """A text with expressions in it."""
        return self._compiled(place, name, Template.of)

    def items(self, name: str, *, must: bool = False, least: int = 0) -> tuple[Located, ...]:
        """The members of a list."""
        place = self.must(name) if must else self.get(name)
        if place is None:
            return ()
        if not isinstance(place.value, tuple):
            self.problem(place, f"{name!r} must be a list (lines that begin with `- `), not {type_of(place)}")
            return ()
        if len(place.value) < least:
            self.problem(place, f"{name!r} must have at least {least} member")
        return place.value

    def _compiled(self, place: Located | None, name: str, compile_: Callable[[str], T]) -> T | None:
        if place is None:
            return None
        if not isinstance(place.value, str):
            self.problem(place, f"{name!r} must be an expression, not {_shown(place)}")
            return None
        try:
            return compile_(place.value)
        except ExpressionError as error:
            self.problem(place, f"{name!r} {error}")
            return None


def type_of(place: Located) -> str:
    """What stands there, in a word."""
    return "nothing" if place.value is None else _TYPES[type(place.value)]


def _shown(place: Located) -> str:
    return repr(place.value) if isinstance(place.value, str | int | float) else type_of(place)
