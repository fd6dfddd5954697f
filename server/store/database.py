"""The connections to ClickHouse, embedded or by URL; every statement of the store goes through here."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit, urlunsplit

from server.errors import SomethingMissing, StoreCannotStart, StoreError

DATABASE = "reflex"
READ_TIMEOUT_S = 10
REMOTE_READERS = 8

_INSERT_SETTINGS = {"max_partitions_per_insert_block": 0}
"""A host with a wrong clock may spread one batch over many months; its events are taken all the same."""

Row = tuple[Any, ...]


class QueryAnswer(Protocol):
    """The part of clickhouse-connect's QueryResult that is used."""

    result_rows: Sequence[Row]


class InsertContext(Protocol):
    """What clickhouse-connect knows of a table's columns; making it costs a query, so it is kept."""

    data: Any


class Client(Protocol):
    """The part of clickhouse-connect's async client that is used; chdb's client has it too."""

    async def query(self, query: str, *, parameters: dict[str, Any], settings: dict[str, Any]) -> QueryAnswer: ...

    async def command(self, cmd: str) -> object: ...

    async def create_insert_context(
        self, table: str, column_names: Sequence[str], *, settings: dict[str, Any]
    ) -> InsertContext: ...

    async def data_insert(self, context: InsertContext) -> object: ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class Database:
    """One writer and one reader, so that a long question never holds an insert up.

    `reading` limits how many questions run at once. An embedded connection answers one at a time and holds
    a thread of the loop's executor meanwhile: without the limit, waiting readers would use up all threads.
    """

    writer: Client
    reader: Client
    reading: asyncio.Semaphore
    inserting: asyncio.Lock = field(default_factory=asyncio.Lock)
    contexts: dict[str, InsertContext] = field(default_factory=dict)

    async def ask(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Rows of a question that somebody asks; ends after READ_TIMEOUT_S. Raises StoreError."""
        async with self.reading:
            return await _rows(self.reader, sql, parameters, {"max_execution_time": READ_TIMEOUT_S})

    async def ask_before_insert(self, sql: str, parameters: Mapping[str, Any]) -> list[Row]:
        """Rows of a question that an insert depends on; waits for no reader. Raises StoreError."""
        return await _rows(self.writer, sql, parameters, {})

    async def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Adds the rows; when this returns they can be queried. Raises StoreError."""
        try:
            async with self.inserting:
                context = self.contexts.get(table)
                if context is None:
                    context = await self.writer.create_insert_context(table, columns, settings=_INSERT_SETTINGS)
                    self.contexts[table] = context
                context.data = rows
                await self.writer.data_insert(context)
        except _failures() as error:
            raise StoreError(f"insert of {len(rows)} rows into {table} failed: {_brief(error)}") from error

    async def define(self, sql: str) -> None:
        """Runs one statement of the schema. Raises StoreError."""
        try:
            await self.writer.command(sql)
        except _failures() as error:
            raise StoreError(_brief(error)) from error

    async def close(self) -> None:
        """Closes both connections; the embedded engine then gives its directory free."""
        await self.reader.close()
        await self.writer.close()


async def open_embedded(directory: Path, *, memory_bytes: int) -> Database:
    """The engine inside this process, on `directory`. Raises StoreCannotStart, SomethingMissing."""
    try:
        from chdb.cc_backend import backend
    except ImportError as error:
        raise SomethingMissing(_missing("chdb", error)) from error
    scratch = directory.parent / "tmp"
    scratch.mkdir(mode=0o700, exist_ok=True)
    for leftover in scratch.glob("*.native"):
        leftover.unlink()
    # The engine is fed through temporary files: beside the store they share its disk and stay private.
    tempfile.tempdir = str(scratch)
    options = {"max_server_memory_usage": memory_bytes, "mark_cache_size": 64 << 20, "background_pool_size": 2}

    def client(name: str) -> Client:
        # Connections with equal options are one connection with one lock; log_comment makes them two.
        return cast(
            Client, backend.create_async_client(chdb_path=str(directory), chdb_options={**options, "log_comment": name})
        )

    try:
        writer = await asyncio.to_thread(client, "reflex-writer")
        await writer.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
        reader = await asyncio.to_thread(client, "reflex-reader")
        for one in (writer, reader):
            await one.command(f"USE {DATABASE}")
    except _failures(RuntimeError) as error:
        raise StoreCannotStart(
            f"the embedded ClickHouse does not open {directory} ({_brief(error)}); "
            "look whether the disk is healthy and has room, or name another --state"
        ) from error
    return Database(writer, reader, asyncio.Semaphore(1))


async def open_remote(url: str) -> Database:
    """A ClickHouse server by URL. Raises StoreCannotStart, SomethingMissing."""
    try:
        from clickhouse_connect import get_async_client
    except ImportError as error:
        raise SomethingMissing(_missing("clickhouse-connect", error)) from error
    parts = urlsplit(url)
    database = parts.path.strip("/") or DATABASE
    if not database.isidentifier():
        raise StoreCannotStart(f"the database name {database!r:.60} in the ClickHouse URL is not a plain name")
    within = urlunsplit(parts._replace(path=f"/{database}"))
    try:
        first = await get_async_client(dsn=urlunsplit(parts._replace(path="/default")))
        await first.command(f"CREATE DATABASE IF NOT EXISTS {database}")
        await first.close()
        writer = await get_async_client(dsn=within, form_encode_query_params=True, send_receive_timeout=30)
        reader = await get_async_client(dsn=within, form_encode_query_params=True, send_receive_timeout=30)
    except _failures() as error:
        raise StoreCannotStart(
            f"the ClickHouse server at {parts.hostname}:{parts.port} does not let us in ({_brief(error)}); "
            "check the URL, the user's rights and that the server runs"
        ) from error
    return Database(cast(Client, writer), cast(Client, reader), asyncio.Semaphore(REMOTE_READERS))


async def _rows(
    client: Client, sql: str, parameters: Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> list[Row]:
    try:
        answer = await client.query(sql, parameters=dict(parameters or {}), settings=dict(settings))
    except _failures() as error:
        raise StoreError(f"query failed: {_brief(error)}") from error
    return list(answer.result_rows)


def _failures(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What clickhouse-connect raises when the store is at fault, imported only where the store is used."""
    from clickhouse_connect.driver.exceptions import ClickHouseError

    return (ClickHouseError, OSError, TimeoutError, *more)


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _missing(package: str, error: ImportError) -> str:
    return f"the Python package {package} cannot be imported ({error}); run: pip install 'reflexd[server]'"
