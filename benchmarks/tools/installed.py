"""Where the tools to compare with are: unpacked by `./reflex bench`, or installed on this host."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from demo.stage import ROOT

UNPACKED = ROOT / ".reflex" / "bench-tools"
_FOLDERS = ("usr/bin", "usr/sbin")


def find(program: str) -> Path | None:
    """The program's path; None where it is neither unpacked nor installed."""
    unpacked = (UNPACKED / folder / program for folder in _FOLDERS)
    found = next((path for path in unpacked if path.exists()), None)
    installed = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    return found or (Path(installed) if installed else None)


def environment(program: Path) -> dict[str, str]:
    """This process's environment, with the unpacked libraries for an unpacked program."""
    if not program.is_relative_to(UNPACKED):
        return dict(os.environ)
    libraries = [str(path) for path in (UNPACKED / "usr" / "lib").glob("*-linux-gnu")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}
