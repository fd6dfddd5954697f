"""The kinds of workers, one file each: a module with a `KIND` is found by itself."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType
from typing import cast

from agent.workers.kind import Kind


def _kinds() -> dict[str, Kind]:
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    return {module.KIND: cast(Kind, module) for module in modules if hasattr(module, "KIND")}


KINDS: Mapping[str, Kind] = MappingProxyType(_kinds())
"""Every kind by its name. More than one may know a command line; the first in alphabetical order has it."""
