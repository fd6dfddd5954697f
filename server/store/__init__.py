"""The store: one timeline in ClickHouse, embedded or by URL. The only place with SQL for it."""

from __future__ import annotations

from dataclasses import dataclass

from server.errors import StoreError
from server.settings import Settings
from server.store.artifacts import ArtifactTable
from server.store.cpu import check_cpu
from server.store.database import Database, open_embedded, open_remote
from server.store.events import EventTable
from server.store.migrate import migrate, read_schema
from server.store.samples import SampleTable


@dataclass(frozen=True, slots=True)
class Store:
    """The open store and its tables."""

    database: Database
    events: EventTable
    samples: SampleTable
    artifacts: ArtifactTable

    async def ping(self) -> None:
        """Raises StoreError when the store does not answer a trivial question."""
        if await self.database.ask_before_insert("SELECT 1", {}) != [(1,)]:
            raise StoreError("the store gave a wrong answer to SELECT 1")

    async def close(self) -> None:
        """Closes the store; nothing may use it afterwards."""
        await self.database.close()


async def open_store(settings: Settings) -> Store:
    """The store that the settings name, with its schema up to date. Raises StartError."""
    if settings.clickhouse:
        database = await open_remote(settings.clickhouse)
    else:
        check_cpu()
        database = await open_embedded(settings.store_dir, memory_bytes=settings.embedded_memory_bytes)
    try:
        await migrate(database, read_schema())
        await _warm_up(database)
    except BaseException:
        await database.close()
        raise
    return Store(database, EventTable(database), SampleTable(database), ArtifactTable(database))


async def _warm_up(database: Database) -> None:
    """Makes the first insert now: it loads modules for a third of a second, which no event should wait for."""
    await database.define("CREATE TABLE IF NOT EXISTS warm_up (x UInt8) ENGINE = Null")
    await database.insert("warm_up", ["x"], [[0]])
