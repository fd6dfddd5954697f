"""All actions, found in this package: each module with `ACTIONS` has one or a family. Pure."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from agent.actions.action import Action

MODULES = tuple(
    module
    for found in pkgutil.iter_modules(__path__)
    if hasattr(module := importlib.import_module(f"{__name__}.{found.name}"), "ACTIONS")
)
ACTIONS: Mapping[str, Action] = {action.name: action for module in MODULES for action in module.ACTIONS}
"""Every action that this host can carry out, by its name."""
