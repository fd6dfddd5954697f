"""The table `samples`: adding rows, each exactly once.

The samples of one record share its number and its time, so they are in one partition and, as an insert writes each
partition at once, all there or none: the number of the record stands for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.errors import StoreError
from server.store.database import Database
from server.stored import StoredSample

_COLUMNS = ("ts", "metric", "host", "service", "subject", "value", "spool", "seq")

SampleKey = tuple[str, int]
"""The name of a record of samples: its spool and its number there."""


@dataclass(frozen=True, slots=True)
class SampleTable:
    """Writes samples. Everything raises StoreError when the store does not answer."""

    database: Database

    async def stored_keys(self, samples: Sequence[StoredSample]) -> set[SampleKey]:
        """Keys of records among `samples` that are stored already."""
        times = [one.sample.ts_us for one in samples]
        rows = await self.database.ask_before_insert(
            "SELECT DISTINCT spool, seq FROM samples WHERE metric IN {metrics:Array(String)} AND host IN {hosts:Array(String)} "
            "AND ts >= fromUnixTimestamp64Micro({first:Int64}) AND ts <= fromUnixTimestamp64Micro({last:Int64}) "
            "AND (spool, seq) IN {keys:Array(Tuple(String, UInt64))}",
            {
                "metrics": sorted({one.sample.metric for one in samples}),
                "hosts": sorted({one.host for one in samples}),
                "first": min(times),
                "last": max(times),
                "keys": sorted({(one.spool, one.seq) for one in samples}),
            },
        )
        return {(spool, seq) for spool, seq in rows}

    async def insert(self, samples: Sequence[StoredSample]) -> None:
        """Adds the samples and makes sure that each one can be read back."""
        await self.database.insert("samples", _COLUMNS, [_row(one) for one in samples])
        missing = {(one.spool, one.seq) for one in samples} - await self.stored_keys(samples)
        if missing:
            raise StoreError(f"{len(missing)} records of {len(samples)} samples cannot be read back after their insert")


def _row(one: StoredSample) -> list[str | int | float]:
    sample = one.sample
    return [
        sample.ts_us,
        sample.metric,
        one.host,
        sample.service or "",
        sample.subject or "",
        sample.value,
        one.spool,
        one.seq,
    ]
