"""Brings the store's schema up to date: numbered files, each applied once, in order, and never changed afterwards."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from server.errors import StoreCannotStart, StoreError
from server.store.database import Database

SCHEMA_DIR = Path(__file__).parent / "schema"

ENGINES: Mapping[str, str] = {
    "merge_tree": "MergeTree",
    "aggregating_merge_tree": "AggregatingMergeTree",
    "on_cluster": "",
}
"""What the placeholders of the schema files stand for on one server; a cluster would name Replicated engines here."""

_FILE_NAME = re.compile(r"(\d{3})_\w+\.sql")
_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_files $on_cluster
(number UInt32, name String, sha256 String, applied_s UInt64)
ENGINE = $merge_tree ORDER BY number SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
"""


@dataclass(frozen=True, slots=True)
class SchemaFile:
    """One file of the schema; `sha256` is taken before placeholders are filled in."""

    number: int
    name: str
    sha256: str
    statements: tuple[str, ...]


def read_schema(directory: Path = SCHEMA_DIR, engines: Mapping[str, str] = ENGINES) -> list[SchemaFile]:
    """All files in order. Raises StoreCannotStart when a number is missing or used twice."""
    files = [
        _read(path, int(match[1]), engines) for path in directory.iterdir() if (match := _FILE_NAME.match(path.name))
    ]
    files.sort(key=lambda file: file.number)
    if [file.number for file in files] != list(range(1, len(files) + 1)):
        raise StoreCannotStart(f"the schema files in {directory} are not numbered 001, 002, …: reinstall Reflex")
    return files


async def migrate(database: Database, files: Sequence[SchemaFile]) -> None:
    """Applies what the store does not have yet. Raises StoreCannotStart when store and files contradict each other."""
    try:
        await database.define(Template(_LEDGER).substitute(ENGINES))
        rows = await database.ask("SELECT number, name, sha256 FROM schema_files ORDER BY number")
        applied = {number: (name, sha256) for number, name, sha256 in rows}
        _check(applied, files)
        for file in files:
            if file.number not in applied:
                await _apply(database, file)
    except StoreError as error:
        raise StoreCannotStart(f"the store's schema cannot be brought up to date: {error}") from error


async def _apply(database: Database, file: SchemaFile) -> None:
    """Every statement can be repeated, so that a crash before the ledger's row only means doing them again."""
    for statement in file.statements:
        await database.define(statement)
    row = [file.number, file.name, file.sha256, int(time.time())]
    await database.insert("schema_files", ["number", "name", "sha256", "applied_s"], [row])


def _check(applied: Mapping[int, tuple[str, str]], files: Sequence[SchemaFile]) -> None:
    known = {file.number: file for file in files}
    for number, (name, sha256) in applied.items():
        if number not in known:
            raise StoreCannotStart(
                f"the store was written by a newer Reflex (schema file {name} is not known here); start that version"
            )
        if known[number].sha256 != sha256:
            raise StoreCannotStart(
                f"schema file {name} differs from the one that this store was made with; reinstall Reflex"
            )


def _read(path: Path, number: int, engines: Mapping[str, str]) -> SchemaFile:
    text = path.read_text(encoding="utf-8")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    statements = tuple(part.strip() for part in Template(code).substitute(engines).split(";\n") if part.strip(" ;\n"))
    return SchemaFile(number, path.name, hashlib.sha256(text.encode()).hexdigest(), statements)
