"""The table `artifacts`: adding rows, each exactly once, and reading one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from agent.wire import Artifact, WorkerRef
from server.errors import StoreError
from server.store.database import Database
from server.stored import StoredArtifact

_COLUMNS = ("ts", "id", "host", "kind", "service", "release", "slot", "generation", "pid", "start_ticks", "content")
_SELECTED = "toUnixTimestamp64Micro(ts), " + ", ".join(_COLUMNS[1:])


@dataclass(frozen=True, slots=True)
class ArtifactTable:
    """Writes and reads artifacts. Everything raises StoreError when the store does not answer."""

    database: Database

    async def stored_ids(self, ids: Collection[str]) -> set[str]:
        """Those among `ids` that are stored already."""
        rows = await self.database.ask_before_insert(
            "SELECT id FROM artifacts WHERE id IN {ids:Array(UUID)}", {"ids": sorted(ids)}
        )
        return {str(row[0]) for row in rows}

    async def insert(self, artifacts: Sequence[StoredArtifact]) -> None:
        """Adds the artifacts and makes sure that each one can be read back."""
        await self.database.insert("artifacts", _COLUMNS, [_row(stored) for stored in artifacts])
        ids = {stored.artifact.id for stored in artifacts}
        missing = ids - await self.stored_ids(ids)
        if missing:
            raise StoreError(f"{len(missing)} of {len(artifacts)} artifacts cannot be read back after their insert")

    async def by_id(self, id_: str) -> StoredArtifact | None:
        """The artifact of this id; None when it is not stored, or not any more."""
        rows = await self.database.ask(f"SELECT {_SELECTED} FROM artifacts WHERE id = {{id:UUID}} LIMIT 1", {"id": id_})
        if not rows:
            return None
        ts_us, found, host, kind, service, release, slot, generation, pid, start_ticks, content = rows[0]
        worker = None if slot is None else WorkerRef(slot, generation, pid, start_ticks)
        artifact = Artifact(str(found), ts_us, kind, content.encode(), service or None, worker, release or None)
        return StoredArtifact(host, artifact)


def _row(stored: StoredArtifact) -> list[str | int | None]:
    artifact, worker = stored.artifact, stored.artifact.worker
    process = (worker.slot, worker.generation, worker.pid, worker.start_ticks) if worker else (None,) * 4
    return [
        artifact.ts_us,
        artifact.id,
        stored.host,
        artifact.kind,
        artifact.service or "",
        artifact.release or "",
        *process,
        artifact.content.decode(),
    ]
