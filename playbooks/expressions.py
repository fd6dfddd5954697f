"""Conditions and the parts of texts that are worked out: the Common Expression Language, which can only look.

What an expression asks for and nobody knows (an attribute that an event does not have, a sum of a number and a text)
makes its answer unknown, and unknown decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cel

MOST_CHARS = 1_000
NAMES = ("event", "run", "service", "worker", "outcome", "value")
"""What expressions may ask for: docs/playbooks.md says what each has."""

_OF_LISTS = re.compile(r"\.(?:all|exists|exists_one|filter|map)\(\s*(\w+)\s*,")
"""Names that an expression gives to the members of a list."""

_TEMPLATE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


class ExpressionError(ValueError):
    """An expression that cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Expression:
    """One condition or value. Two with the same text are equal."""

    text: str
    _program: Any = field(compare=False, repr=False)

    @classmethod
    def of(cls, text: str) -> Expression:
        """Raises ExpressionError."""
        if len(text) > MOST_CHARS:
            raise ExpressionError(f"has {len(text)} characters; an expression has at most {MOST_CHARS}")
        try:
            program = cel.compile(text)
        except ValueError as error:
            raise ExpressionError(_reason(str(error))) from None
        unknown = sorted(set(program.variables()) - set(NAMES) - set(_OF_LISTS.findall(text)))
        if unknown:
            raise ExpressionError(f"asks for {unknown[0]!r}; there is {', '.join(NAMES)}")
        return cls(text, program)

    def value(self, known: Mapping[str, Any]) -> Any:
        """What it comes to; None where something that it asks for is not known."""
        try:
            return self._program.execute(dict(known))
        except (LookupError, TypeError, ValueError, RuntimeError, ArithmeticError):
            return None

    def holds(self, known: Mapping[str, Any]) -> bool | None:
        """Whether it is true; None where that is not known, or where it is no condition at all."""
        value = self.value(known)
        return value if isinstance(value, bool) else None


@dataclass(frozen=True, slots=True)
class Template:
    """A text with `{{ expressions }}` in it."""

    text: str
    _parts: tuple[str | Expression, ...] = field(compare=False, repr=False)

    @classmethod
    def of(cls, text: str) -> Template:
        """Raises ExpressionError."""
        parts: list[str | Expression] = []
        for place, piece in enumerate(_TEMPLATE.split(text)):
            if place % 2:
                parts.append(Expression.of(piece.strip()))
            elif "{{" in piece or "}}" in piece:
                raise ExpressionError("has {{ without }}, or }} without {{")
            elif piece:
                parts.append(piece)
        return cls(text, tuple(parts))

    def fill(self, known: Mapping[str, Any]) -> str:
        """The text; `?` stands for what is not known."""
        return "".join(part if isinstance(part, str) else _shown(part.value(known)) for part in self._parts)


def _shown(value: Any) -> str:
    if value is None:
        return "?"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _reason(error: str) -> str:
    """The parser's own words without what it repeats."""
    found = re.search(r":(\d+):(\d+): (Syntax error: )?([^\n]+)", error)
    return f"is no expression: at character {found[2]}, {found[4]}" if found else f"is no expression: {error:.200}"
