"""Installs the worker programs that the tests run, in the versions of tests/workers/programs.toml: `python packaging/programs.py`."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests" / "workers" / "programs.toml"
FOLDER = ROOT / ".reflex" / "programs"
STAMP = "installed"
WITHIN_S = 300
AT_ONCE = 3


@dataclass(frozen=True, slots=True)
class Program:
    """One virtual environment: its name and what is installed in it; `compiled` are packages that are compiled here.

    A binary that was compiled for another Python of the same version does not always work with this one.
    """

    name: str
    requirements: tuple[str, ...]
    compiled: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where it is."""
        return FOLDER / self.name

    @property
    def wanted(self) -> str:
        """What its stamp says when it is as it should be."""
        words = (sys.version, str(ROOT), *self.requirements, *self.compiled)
        return hashlib.sha256("\n".join(words).encode()).hexdigest()

    @property
    def is_there(self) -> bool:
        """Whether it was installed like this, by this interpreter, for this folder."""
        stamp = self.folder / STAMP
        return stamp.exists() and stamp.read_text() == self.wanted


def programs() -> tuple[Program, ...]:
    """All that the list names."""
    tables = tomllib.loads(LIST.read_text())
    return tuple(
        Program(name, tuple(table["requirements"]), tuple(table.get("compiled", ()))) for name, table in tables.items()
    )


def install(program: Program) -> str | None:
    """Installs one; the last words of what went wrong, or None."""
    shutil.rmtree(program.folder, ignore_errors=True)
    make = [sys.executable, "-m", "venv", "--without-pip", str(program.folder)]
    python = str(program.folder / "bin" / "python")
    fill = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *program.requirements]
    if program.compiled:
        fill += ["--no-cache-dir", "--no-binary", ",".join(program.compiled)]
    for command in (make, fill):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
        except subprocess.TimeoutExpired:
            return f"not done within {WITHIN_S} s"
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            return lines[-1] if lines else f"exit code {done.returncode}"
    (program.folder / STAMP).write_text(program.wanted)
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 also where a version cannot be had: its tests are skipped, and that is said."""
    parser = argparse.ArgumentParser(description="Installs the worker programs that the tests run.")
    parser.add_argument("--again", action="store_true", help="also those that are there")
    options = parser.parse_args(argv)
    waiting = [program for program in programs() if options.again or not program.is_there]
    waiting.sort(key=lambda program: not program.compiled)  # what takes longest begins first
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for said in pool.map(_install_and_say, waiting):
            print(said, flush=True)
    return 0


def _install_and_say(program: Program) -> str:
    began_s = time.monotonic()
    problem = install(program)
    if problem is not None:
        return f"{program.name}: cannot be installed: {problem}"
    return f"{program.name}: {time.monotonic() - began_s:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
