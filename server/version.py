"""Which version of Reflex this server is."""

from __future__ import annotations

from importlib import metadata


def server_version() -> str:
    """The installed version, for example `0.1.0`; `0+source` when it runs from a source tree that is not installed."""
    try:
        return metadata.version("reflexd")
    except metadata.PackageNotFoundError:
        return "0+source"
