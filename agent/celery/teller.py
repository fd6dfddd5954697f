"""Makes events about Celery services and hands them on."""

from __future__ import annotations

from agent.clock import Clock
from agent.ids import new_event_id
from agent.reporter import Reporter
from agent.service import Service
from agent.wire import MAX_EVIDENCE, MAX_TEXT_CHARS, Event, Evidence, Scalar, Severity, WorkerRef


class Teller:
    """The way of Celery's events to the spool."""

    def __init__(self, reporter: Reporter, clock: Clock) -> None:
        self._reporter = reporter
        self._clock = clock

    def tell(
        self,
        kind: str,
        text: str,
        *,
        severity: Severity = "warning",
        service: Service | None = None,
        worker: WorkerRef | None = None,
        cause: str | None = None,
        evidence: tuple[Evidence, ...] = (),
        attrs: dict[str, Scalar | None] | None = None,
    ) -> str:
        """Tells one event, now; its id. Attributes that are None are not known, and left out."""
        now_us = self._clock.now_us()
        event = Event(
            id=new_event_id(now_us),
            ts_us=now_us,
            kind=kind,
            severity=severity,
            text=text[:MAX_TEXT_CHARS],
            service=service.name if service is not None else None,
            worker=worker,
            release=service.release if service is not None else None,
            cause=cause,
            evidence=evidence[:MAX_EVIDENCE],
            attrs={name: value for name, value in (attrs or {}).items() if value is not None},
        )
        self._reporter.events((event,))
        return event.id
