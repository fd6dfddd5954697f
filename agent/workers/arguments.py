"""Command lines taken apart: options with their values and the words between them. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class Arguments:
    """`options` by name with every value that was given, the last one last; `words` are what belongs to no option."""

    options: Mapping[str, tuple[str, ...]]
    words: tuple[str, ...]

    def last(self, *names: str) -> str | None:
        """The value of the first of these options that was given; the empty string for a flag."""
        return next((self.options[name][-1] for name in names if name in self.options), None)

    def every(self, *names: str) -> tuple[str, ...]:
        """All values of these options."""
        return tuple(value for name in names for value in self.options.get(name, ()))

    def has(self, *names: str) -> bool:
        """Whether one of these options was given."""
        return any(name in self.options for name in names)

    def over(self, other: Arguments) -> Arguments:
        """These arguments, and for options that are not among them the other's."""
        return Arguments({**other.options, **self.options}, self.words or other.words)


def take_apart(arguments: Sequence[str], flags: Collection[str]) -> Arguments:
    """Options begin with a dash; those in `flags` take no value, a value may follow `=`, a short one needs no space.

    What begins with two dashes is nobody's value: an option before it takes none, or has left it out as uWSGI's may.
    """
    options: dict[str, tuple[str, ...]] = {}
    words: list[str] = []
    rest = list(reversed(arguments))
    while rest:
        word = rest.pop()
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word.partition("=")
            known = value if equals or name in flags else _value_of_next(rest)
        elif word.startswith("-") and len(word) > 1:
            name, value = word[:2], word[2:].removeprefix("=")
            known = value if value or name in flags else _value_of_next(rest)
        else:
            words.append(word)
            continue
        options[name] = (*options.get(name, ()), known)
    return Arguments(options, tuple(words))


def _value_of_next(rest: list[str]) -> str:
    """Takes the value that follows off the end of `rest`; the empty string where none does."""
    return rest.pop() if rest and not rest[-1].startswith("--") else ""


def program_name(word: str) -> str:
    """What a program's file is called; of `…/gunicorn/__main__.py`, as `-m gunicorn` shows when it starts anew, `gunicorn`."""
    path = PurePosixPath(word)
    return path.parent.name if path.name == "__main__.py" else path.name


def after_program(argv: Sequence[str], programs: Collection[str]) -> list[str] | None:
    """The arguments of a program that the vector starts by its file, by an interpreter, or as `-m`; None if it does not.

    `/venv/bin/python -I -m celery …`, `/venv/bin/python /venv/bin/celery …` and `celery …` are the same.
    """
    for index, word in enumerate(argv):
        if program_name(word) in programs and (index == 0 or argv[index - 1] == "-m" or index == 1):
            return list(argv[index + 1 :])
        if index and argv[index - 1] == "-m":
            return None
    return None


def shell_words(text: str) -> list[str]:
    """The words of a text as a shell sees them; none if it cannot be read."""
    try:
        return shlex.split(text)
    except ValueError:
        return []


def number(text: str | None) -> float | None:
    """The number that a text is."""
    try:
        return float(text) if text else None
    except ValueError:
        return None


def whole(text: str | None) -> int | None:
    """The whole number that a text is."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None
