"""Bounds of what travels, and the checks that hold it to them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias
from uuid import UUID

MAX_TEXT_CHARS = 2_000
MAX_NAME_CHARS = 200
MAX_ATTRS = 64
MAX_ATTR_CHARS = 4_000
MAX_INTEGER = 2**53
"""Largest whole number that JSON readers (browsers among them) and a Float64 column keep exactly."""

Scalar: TypeAlias = str | int | float | bool


class WireError(ValueError):
    """A record that does not keep the contract; `where` is a path such as `evidence[0].source`."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem


def mapping_of(value: object, where: str) -> Mapping[str, Any]:
    """An object with its members; raises WireError, as all of these do."""
    if not isinstance(value, dict):
        raise WireError(where, f"must be an object, not {type(value).__name__}")
    return value


def shown(value: object) -> str:
    """A wrong value in a few characters; a container by its type, as one can be too deep or too large to print."""
    if isinstance(value, dict | list):
        return type(value).__name__
    return repr(value[:60] if isinstance(value, str) else value)


def text_of(obj: Mapping[str, Any], key: str, limit: int) -> str:
    """A text of 1 to `limit` characters."""
    value = obj.get(key)
    if not isinstance(value, str) or not value:
        raise WireError(key, f"must be a non-empty string, not {shown(value)}")
    if len(value) > limit:
        raise WireError(key, f"is {len(value)} characters long; the limit is {limit}")
    return value


def optional_text_of(obj: Mapping[str, Any], key: str) -> str | None:
    """A name, or nothing."""
    return None if obj.get(key) is None else text_of(obj, key, MAX_NAME_CHARS)


def whole_of(obj: Mapping[str, Any], key: str) -> int:
    """A whole number that every reader of JSON keeps exactly."""
    value = obj.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_INTEGER:
        raise WireError(key, f"must be a whole number from 0 to 2^53, not {shown(value)}")
    return value


def uuid_of(obj: Mapping[str, Any], key: str) -> str:
    """An id in its usual form."""
    value = text_of(obj, key, MAX_NAME_CHARS)
    try:
        return str(UUID(value))
    except ValueError:
        raise WireError(key, f"must be a UUID, not {shown(value)}") from None


def attrs_of(value: object, name: str = "attrs") -> dict[str, Scalar]:
    """Names with strings, numbers or booleans."""
    obj = mapping_of(value, name)
    if len(obj) > MAX_ATTRS:
        raise WireError(name, f"has {len(obj)} entries; the limit is {MAX_ATTRS}")
    for key, item in obj.items():
        where = f"{name}.{key:.60}"
        if not key or len(key) > MAX_NAME_CHARS:
            raise WireError(where, f"names have 1 to {MAX_NAME_CHARS} characters")
        if isinstance(item, str):
            if len(item) > MAX_ATTR_CHARS:
                raise WireError(where, f"is {len(item)} characters long; the limit is {MAX_ATTR_CHARS}")
        elif not isinstance(item, int | float):
            raise WireError(where, f"must be a string, number or boolean, not {type(item).__name__}")
        elif not isinstance(item, bool) and abs(item) > MAX_INTEGER:
            raise WireError(where, "is beyond 2^53 and would lose digits")
    return dict(obj)
