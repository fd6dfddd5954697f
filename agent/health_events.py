"""Makes the events of workers' health and hands them on: each with its cause, its evidence and its numbers."""

from __future__ import annotations

from agent import health_sentences as sentences
from agent.clock import Clock
from agent.ids import new_event_id
from agent.leak import Leak
from agent.leaks import Leaking
from agent.limits import Room
from agent.reporter import Reporter
from agent.service import Service, Worker
from agent.snapshots import Snapshot
from agent.stacks import Stack, Untold, lines_of
from agent.stillness import Still
from agent.wire import MAX_ATTR_CHARS, Event, Evidence, Scalar, Severity


class HealthEvents:
    """Every method tells one event and returns its id."""

    def __init__(self, reporter: Reporter, clock: Clock) -> None:
        self._reporter = reporter
        self._clock = clock

    def new_id(self) -> str:
        """An id for an event that is told later."""
        return new_event_id(self._clock.now_us())

    def leaking(self, service: Service, leaking: Leaking, room: Room, left_s: float) -> str:
        """Workers of one service leak; the event is the worst one's."""
        worst, leak = max(leaking, key=lambda pair: pair[1].slope)
        return self._tell(
            "worker.leaking",
            "warning",
            sentences.leaking(service, leaking, room, left_s),
            worst,
            cause=worst.started_event,
            evidence=sentences.leak_evidence(leaking, room),
            attrs={
                "workers": len(leaking),
                "slope_bytes_per_s": round(sum(one.slope for _, one in leaking)),
                "slope_at_least_bytes_per_s": round(sum(one.slope_at_least for _, one in leaking)),
                "seen_s": round(leak.seconds),
                "memory_bytes": leak.bytes,
                "limit_bytes": room.limit_bytes,
                "used_bytes": room.usage_bytes,
                "limited_by": room.name or "host",
                "time_left_s": round(left_s),
            },
        )

    def leak_ended(self, worker: Worker, leak: Leak, quiet_s: float) -> str:
        """A worker that leaked has shown no trend for a while."""
        return self._tell(
            "worker.leak_ended",
            "info",
            sentences.leak_ended(worker, quiet_s),
            worker,
            cause=worker.health.leaking_event,
            evidence=(Evidence("trend of memory", f"pid {worker.ref.pid}: no steady growth any more"),),
            attrs={"grown_bytes": leak.grown_bytes, "seen_s": round(leak.seconds)},
        )

    def boot_hung(
        self, worker: Worker, event_id: str, age_s: float, limit_s: float, sleeps_in: str | None, found: Stack | Untold
    ) -> str:
        """A worker does not become ready. `sleeps_in` is the kernel's function that it sleeps in; None: it runs."""
        doing = "it is using CPU" if sleeps_in is None else "it is waiting for something"
        does = "runs" if sleeps_in is None else f"sleeps in {sleeps_in}"
        return self._tell(
            "worker.boot_hung",
            "critical",
            sentences.boot_hung(worker, age_s, limit_s, doing, sentences.where(found)),
            worker,
            cause=worker.started_event,
            evidence=(Evidence("procfs", f"pid {worker.ref.pid} {does}"), sentences.stack_evidence(found)),
            attrs={"age_s": round(age_s, 1), "limit_s": round(limit_s, 1), **_stack_attr(found)},
            event_id=event_id,
        )

    def still(self, still: Still) -> str:
        """A worker, or threads of it, stand still; again when more of them do."""
        worker, where = still.worker, sentences.standing_in(still)
        of_worker = still.what == "worker"
        text = sentences.blocked(worker, still.seconds, where) if of_worker else sentences.threads_stuck(still, where)
        evidence = [Evidence("procfs", f"not given a CPU for {still.seconds:.0f} s, in the system call {still.call}")]
        if still.calls:
            evidence.append(Evidence("py-spy", where))
        attrs: dict[str, Scalar] = {"stuck_threads": still.number, "still_s": round(still.seconds, 1)}
        if still.of is not None:
            attrs["threads"] = still.of
        return self._tell(
            "worker.stuck" if of_worker else "worker.threads_stuck",
            "critical" if of_worker or still.number == still.of else "warning",
            text,
            worker,
            cause=worker.health.blocked_event or worker.started_event,
            evidence=tuple(evidence),
            attrs={**attrs, **_stack_attr(Stack(still.calls))},
        )

    def freed(self, worker: Worker, lasted_s: float) -> str:
        """A worker that stood still does not any more."""
        text, evidence = sentences.moves_again(worker, lasted_s), Evidence("procfs", "what stood still was given a CPU")
        cause = worker.health.blocked_event
        return self._tell("worker.unstuck", "info", text, worker, cause=cause, evidence=(evidence,))

    def snapshot(self, worker: Worker, event_id: str, why: str, snapshot: Snapshot) -> str:
        """A snapshot was kept; it is handed on before the event that names it."""
        texts = {"stack": snapshot.stack, "memory_map": snapshot.mappings}
        attrs: dict[str, Scalar] = {name: text[:MAX_ATTR_CHARS] for name, text in texts.items() if text}
        return self._tell(
            "worker.snapshot",
            "warning",
            sentences.snapshot(worker, why, sentences.where(snapshot.found)),
            worker,
            cause=worker.health.leaking_event or worker.started_event,
            evidence=(sentences.stack_evidence(snapshot.found), Evidence("file on the host", str(snapshot.path))),
            attrs={"artifact": event_id, "file": str(snapshot.path), **attrs},
            event_id=event_id,
        )

    def _tell(
        self,
        kind: str,
        severity: Severity,
        text: str,
        worker: Worker,
        *,
        cause: str | None,
        evidence: tuple[Evidence, ...],
        attrs: dict[str, Scalar] | None = None,
        event_id: str | None = None,
    ) -> str:
        event = Event(
            id=event_id or self.new_id(),
            ts_us=self._clock.now_us(),
            kind=kind,
            severity=severity,
            text=text,
            service=worker.service.name,
            worker=worker.ref,
            release=worker.release,
            cause=cause,
            evidence=evidence,
            attrs=attrs or {},
        )
        self._reporter.events((event,))
        return event.id


def _stack_attr(found: Stack | Untold) -> dict[str, Scalar]:
    lines = lines_of(found) if isinstance(found, Stack) else []
    return {"stack": "\n".join(lines)[:MAX_ATTR_CHARS]} if lines else {}
