"""What a server lends to a host: playbooks that the host runs by itself, each with its share of the fleet's limit. Pure.

The server sends all of them at once, signed as commands are; the host answers with what it holds.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from agent.wire.checks import MAX_NAME_CHARS, WireError, mapping_of, text_of, whole_of

MOST_LENT = 50
MOST_BOOK_CHARS = 65_536
MOST_LENT_CHARS = 196_608
"""Texts of all that is lent to one host."""

MOST_USES = 2_000
_PURPOSE = b"reflex books v1"

Use: TypeAlias = tuple[str, str, int]
"""A run of this playbook has acted on this service (empty: on the host) at this time (UTC, us since 1970)."""


@dataclass(frozen=True, slots=True)
class Book:
    """One playbook. `share`: how often it may act on this host within an hour, of what all hosts may."""

    name: str
    text: str
    share: int


@dataclass(frozen=True, slots=True)
class Books:
    """All that one host runs by itself from now on. Of two, the one with the higher `serial` counts.

    `until_us`: after this the host runs nothing by itself any more. `killed` says who has stopped all playbooks.
    `uses` are runs that have acted on this host before, which its limits count.
    """

    host: str
    serial: int
    until_us: int
    killed: str = ""
    books: tuple[Book, ...] = ()
    uses: tuple[Use, ...] = ()


@dataclass(frozen=True, slots=True)
class Holding:
    """What a host says it holds: the serial and names of what it runs by itself, and its uses, also of what it gives back."""

    serial: int
    names: frozenset[str]
    uses: tuple[Use, ...] = ()


def books_to_json(books: Books) -> dict[str, Any]:
    """The books as plain values, ready for orjson."""
    return {
        "host": books.host,
        "serial": books.serial,
        "until_us": books.until_us,
        "killed": books.killed,
        "books": [{"name": one.name, "text": one.text, "share": one.share} for one in books.books],
        "uses": [list(use) for use in books.uses],
    }


def books_from_json(value: object) -> Books:
    """The books that `value` describes; raises WireError."""
    obj = mapping_of(value, "books")
    killed = obj.get("killed", "")
    if not isinstance(killed, str) or len(killed) > MAX_NAME_CHARS:
        raise WireError("killed", f"must be a string of at most {MAX_NAME_CHARS} characters")
    books = tuple(_book(one) for one in _list(obj, "books", MOST_LENT))
    if sum(len(one.text) for one in books) > MOST_LENT_CHARS:
        raise WireError("books", f"have more than {MOST_LENT_CHARS} characters")
    return Books(
        host=text_of(obj, "host", MAX_NAME_CHARS),
        serial=whole_of(obj, "serial"),
        until_us=whole_of(obj, "until_us"),
        killed=killed,
        books=books,
        uses=_uses(obj),
    )


def holding_to_json(holding: Holding) -> dict[str, Any]:
    """What is held as plain values."""
    return {
        "serial": holding.serial,
        "names": sorted(holding.names),
        "uses": [list(use) for use in holding.uses[-MOST_USES:]],
    }


def holding_from_json(value: object) -> Holding:
    """What a host holds; raises WireError."""
    obj = mapping_of(value, "holding")
    names = frozenset(_name(one, "names") for one in _list(obj, "names", MOST_LENT))
    return Holding(whole_of(obj, "serial"), names, _uses(obj))


def sign_books(books: Books, host_key_hash: str) -> str:
    """The signature in hex, by the same key as that of commands and for no other purpose."""
    key = hmac.digest(host_key_hash.encode(), _PURPOSE, hashlib.sha256)
    content = orjson.dumps(books_to_json(books), option=orjson.OPT_SORT_KEYS)
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def are_signed(books: Books, signature: str, host_key_hash: str) -> bool:
    """Whether the signature is that of these books and this host."""
    return hmac.compare_digest(sign_books(books, host_key_hash).encode(), signature.encode("utf-8", "replace"))


def _book(value: object) -> Book:
    obj = mapping_of(value, "books[]")
    return Book(text_of(obj, "name", MAX_NAME_CHARS), text_of(obj, "text", MOST_BOOK_CHARS), whole_of(obj, "share"))


def _uses(obj: Mapping[str, Any]) -> tuple[Use, ...]:
    return tuple(_each_use(_list(obj, "uses", MOST_USES)))


def _each_use(values: Iterable[object]) -> Iterable[Use]:
    for one in values:
        if not isinstance(one, list) or len(one) != 3:
            raise WireError("uses", "must be lists of a playbook, a service and a time")
        name, service, at_us = one
        if not isinstance(service, str) or len(service) > MAX_NAME_CHARS:
            raise WireError("uses", "must name a service")
        yield _name(name, "uses"), service, whole_of({"at_us": at_us}, "at_us")


def _name(value: object, where: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_CHARS:
        raise WireError(where, f"must have names of 1 to {MAX_NAME_CHARS} characters")
    return value


def _list(obj: Mapping[str, Any], key: str, most: int) -> list[object]:
    value = obj.get(key, [])
    if not isinstance(value, list) or len(value) > most:
        raise WireError(key, f"must be a list of at most {most}")
    return value
