"""Makes text that came over the network harmless for a terminal: no control characters, no hidden ones. Pure.

An event's sentence can hold what an attacker put into a request. Printed as it is, an escape sequence in it could
move the cursor, rename the window or type into the shell. A direction override could make a line read backwards.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import orjson

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_SPACES = frozenset("\t\n\v\f\r\x85\u2028\u2029")


def clean(text: str) -> str:
    """The text on one line: breaks and tabs become blanks, every other hidden character is left out."""
    if text.isascii() and text.isprintable():
        return text
    kept = (" " if one in _SPACES else one for one in text if one in _SPACES or not _is_hidden(one))
    return "".join(kept)


def json_line(value: Any) -> bytes:
    """The value as JSON on one line, in UTF-8; hidden characters are escaped, so that it means the same and does no harm."""
    text = orjson.dumps(value).decode()
    if not text.isascii() or "\x7f" in text:
        text = "".join(_escape(one) if _is_hidden(one) else one for one in text)
    return text.encode() + b"\n"


def cells(text: str) -> int:
    """How many columns the text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_width(one) for one in text)


def pad(text: str, width: int) -> str:
    """The text, filled with blanks up to `width` columns."""
    return text + " " * (width - cells(text))


def wrap(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` columns, broken at blanks and, inside of longer words, anywhere."""
    lines, line = [], ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if cells(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        while cells(word) > width:
            head = _head(word, width)
            lines.append(head)
            word = word[len(head) :]
        line = word
    return [*lines, line] if line or not lines else lines


def _head(word: str, width: int) -> str:
    """The longest beginning that fits, and at least one character."""
    taken = 0
    for index, one in enumerate(word):
        taken += _width(one)
        if taken > width and index:
            return word[:index]
    return word


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN


def _escape(character: str) -> str:
    """JSON's own escape, as a surrogate pair where one is needed."""
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
