"""Puts what the agent has to say into the spool: events at once, samples on their beat, each with an id or a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import orjson

from agent.clock import Clock
from agent.ids import new_event_id
from agent.spool import Spool
from agent.wire import (
    MAX_ROWS,
    Artifact,
    Event,
    Evidence,
    Row,
    Sample,
    Scalar,
    Severity,
    artifact_to_json,
    event_to_json,
    moment_to_json,
    sample_to_json,
)

log = logging.getLogger(__name__)


class Reporter:
    """The way from the watcher to the spool."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self.notice: Callable[[Event], None] | None = None
        """Told of every event, for who keeps what happened lately."""

        self.measured: Callable[[Sequence[Row]], None] | None = None
        """Told of every sample."""

    def events(self, events: Iterable[Event]) -> None:
        """Spools events and logs their sentences."""
        for event in events:
            log.log(logging.INFO if event.severity == "info" else logging.WARNING, "%s", event.text)
            self._spool.append_event(orjson.dumps(event_to_json(event)))
            if self.notice is not None:
                self.notice(event)

    def artifact(self, artifact: Artifact) -> None:
        """Spools what an event will name. To be called before the event, so that it is there first."""
        self._spool.append_artifact(orjson.dumps(artifact_to_json(artifact)))

    def about_agent(
        self,
        kind: str,
        text: str,
        *,
        severity: Severity = "info",
        cause: str | None = None,
        evidence: tuple[Evidence, ...] = (),
        attrs: dict[str, Scalar] | None = None,
    ) -> str:
        """Spools an event about the agent itself, now; its id."""
        now_us = self._clock.now_us()
        event = Event(
            id=new_event_id(now_us),
            ts_us=now_us,
            kind=kind,
            severity=severity,
            text=text,
            cause=cause,
            evidence=evidence,
            attrs=attrs or {},
        )
        self.events((event,))
        return event.id

    def sample(self, metric: str, value: float, *, service: str | None = None, subject: str | None = None) -> None:
        """Spools one number, now."""
        if self.measured is not None:
            self.measured(((metric, value, service, subject),))
        sample = Sample(self._clock.now_us(), metric, value, service, subject)
        self._spool.append_sample(orjson.dumps(sample_to_json(sample)))

    def samples(self, ts_us: int, rows: Sequence[Row]) -> None:
        """Spools many numbers of one moment, in as few records as the contract allows."""
        if self.measured is not None:
            self.measured(rows)
        for start in range(0, len(rows), MAX_ROWS):
            self._spool.append_sample(orjson.dumps(moment_to_json(ts_us, rows[start : start + MAX_ROWS])))
