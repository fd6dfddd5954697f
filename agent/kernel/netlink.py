"""The parts of pyroute2 that the agent uses, loaded without the rest.

pyroute2's package file imports everything it has: 12 MB of memory on top of the agent's own. The parts alone cost
less than 2 MB. Whoever needs a part asks `load` for it and never says `import pyroute2`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

_PACKAGE = "pyroute2"


class NetlinkMissingError(RuntimeError):
    """pyroute2 is not installed, or lacks the part; the text says which."""


def load(part: str) -> Any:
    """A part by its name inside the package, such as `netlink.connector.cn_proc`; raises NetlinkMissingError."""
    if _PACKAGE not in sys.modules:
        sys.modules[_PACKAGE] = _bare_package()
    try:
        return importlib.import_module(f"{_PACKAGE}.{part}")
    except ImportError as error:
        raise NetlinkMissingError(f"this version of {_PACKAGE} lacks {part}: {error}") from None


def _bare_package() -> ModuleType:
    """The package as a place to import parts from; its own file is not run."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None:
        raise NetlinkMissingError(f"the Python package {_PACKAGE} is not installed")
    return importlib.util.module_from_spec(spec)
