"""The one door onto the timeline: events, samples and artifacts go through here into the store, each exactly once.

An agent sends again whatever was not acknowledged: after a lost answer, after either side was killed, and
perhaps cut into other batches. So the writer looks before it inserts, and inserts what is not stored yet.
That is enough because there is one writer: nothing can land between the look and the insert.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from agent.wire import MAX_BATCH_RECORDS
from server.commit import GroupCommit
from server.store import Store
from server.stored import StoredArtifact, StoredEvent, StoredSample

MOST_ARTIFACTS = 64
"""Of one insert: 16 MiB at most."""

Publish = Callable[[Sequence[StoredEvent]], object]


class Recorder:
    """Stores what comes in, and tells `publish` of every event that became visible, in order of arrival."""

    def __init__(self, store: Store, publish: Publish, *, last_arrival: int) -> None:
        """`last_arrival` is the highest arrival number in the store; arrivals continue behind it."""
        self._store = store
        self._publish = publish
        self._last_arrival = last_arrival
        self._events = GroupCommit(self._write_events, most_items=MAX_BATCH_RECORDS)
        self._samples = GroupCommit(self._write_samples, most_items=2 * MAX_BATCH_RECORDS)
        self._artifacts = GroupCommit(self._write_artifacts, most_items=MOST_ARTIFACTS)

    async def record(
        self,
        events: Sequence[StoredEvent],
        samples: Sequence[StoredSample] = (),
        artifacts: Sequence[StoredArtifact] = (),
    ) -> None:
        """Returns when all are stored and can be queried; artifacts before the events that name them.

        Raises StoreError, then some may be stored.
        """
        if artifacts:
            await self._artifacts.commit(artifacts)
        waits = []
        if events:
            waits.append(self._events.commit(events))
        if samples:
            waits.append(self._samples.commit(samples))
        results = await asyncio.gather(*waits, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def close(self) -> None:
        """Stores what is waiting and ends."""
        await asyncio.gather(self._events.close(), self._samples.close(), self._artifacts.close())

    async def _write_events(self, events: Sequence[StoredEvent]) -> None:
        once = {stored.event.id: stored for stored in events}
        known = await self._store.events.stored_ids(list(once.values()))
        fresh = [self._arrive(stored) for id_, stored in once.items() if id_ not in known]
        if fresh:
            await self._store.events.insert(fresh)
            self._publish(fresh)

    async def _write_samples(self, samples: Sequence[StoredSample]) -> None:
        once = {(one.spool, one.seq, one.sample): one for one in samples}
        known = await self._store.samples.stored_keys(list(once.values()))
        fresh = [one for one in once.values() if (one.spool, one.seq) not in known]
        if fresh:
            await self._store.samples.insert(fresh)

    async def _write_artifacts(self, artifacts: Sequence[StoredArtifact]) -> None:
        once = {stored.artifact.id: stored for stored in artifacts}
        known = await self._store.artifacts.stored_ids(once)
        fresh = [stored for id_, stored in once.items() if id_ not in known]
        if fresh:
            await self._store.artifacts.insert(fresh)

    def _arrive(self, stored: StoredEvent) -> StoredEvent:
        self._last_arrival = max(self._last_arrival + 1, time.time_ns() // 1000)
        return replace(stored, arrival=self._last_arrival)
