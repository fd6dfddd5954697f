"""Lets the kernel's records and looks into /proc become events, and whoever goes by them take note."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from agent.clock import Clock
from agent.defects import Defects
from agent.kernel.kernel import Kernel
from agent.oom_beat import OomBeat
from agent.reporter import Reporter
from agent.watcher import Watcher
from agent.wire import Event

READY_POLL_S = 0.05
PATIENT_READY_POLL_S = 1.0
PATIENT_AFTER_US = 30_000_000
DOUBT_S, DOUBT_POLL_S = 3.0, 0.25
"""How long the agent's start waits for names that are not certain; all but the slowest are by then, and the others are looked at
once a second, with everything else going on."""

SCAN_S = 2.0
DRAIN_ROUNDS = 64
LIFECYCLE = ("fork", "exec", "exit")


class Lookout:
    """The agent's eyes once it hears the kernel. `takers` take note of all events that are told, in this order."""

    def __init__(
        self, host: str, kernel: Kernel, watcher: Watcher, ooms: OomBeat, reporter: Reporter, clock: Clock,
        defects: Defects, takers: Sequence[Callable[[list[Event]], None]],
    ) -> None:  # fmt: skip
        self._host = host
        self._kernel = kernel
        self._watcher = watcher
        self._ooms = ooms
        self._reporter = reporter
        self._clock = clock
        self._defects = defects
        self._takers = takers
        self._booting = asyncio.Event()
        self._seen_lost: dict[str, int] = {}
        self._has_heard = False

    def take_has_heard(self) -> bool:
        """Whether the kernel's buffers have been read since this was asked last."""
        has_heard, self._has_heard = self._has_heard, False
        return has_heard

    def beats(self) -> list[Callable[[], Awaitable[None]]]:
        """What runs for ever."""
        needs_scans = any(self._kernel.probe(name).means in ("scan", "off") for name in LIFECYCLE)
        return [self._ready_beat, *([self._scan_beat] if needs_scans else [])]

    async def first_look(self, stopping: asyncio.Event) -> None:
        """Finds what runs already; waits a little for what is not certain, unless `stopping` is set."""
        self._watch(self._watcher.scan)
        ends_ns = self._clock.monotonic_ns() + int(DOUBT_S * 1e9)
        while self._watcher.is_in_doubt and not stopping.is_set() and self._clock.monotonic_ns() < ends_ns:
            await asyncio.sleep(DOUBT_POLL_S)
            self._watch(self._watcher.scan)

    def read_kernel(self) -> bool:
        """Records to events, one by one: a record that the agent cannot cope with costs itself and no other.

        Whether there were any.
        """
        records = self._kernel.read()
        self._has_heard = True
        for record in records:
            try:
                self._watch(lambda: self._watcher.on_record(record))  # noqa: B023 - called at once
            except Exception as defect:  # noqa: BLE001 - told on the timeline; the agent must outlive its defects
                self._defects.tell(f"a kernel record ({type(record).__name__})", defect)
        return bool(records)

    def drain(self) -> None:
        """Reads what the kernel holds, within a bound: it may go on writing."""
        for _ in range(DRAIN_ROUNDS):
            if not self.read_kernel():
                break

    def tick(self) -> None:
        """Once a second."""
        self._watch(self._watcher.tick)

    def look_around(self) -> None:
        """Whatever records missed, a look through /proc finds: who is gone, who is new. Waiting records go first."""
        self._watch(lambda: self._watcher.scan_for_deaths(self.drain))
        self._watch(self._watcher.scan)

    def report_losses(self) -> None:
        """Says what the kernel could not hand over, and looks through /proc for what was missed."""
        lost = {name: count.lost for name, count in self._kernel.counts().items()}
        fresh = {name: n - self._seen_lost.get(name, 0) for name, n in lost.items() if n > self._seen_lost.get(name, 0)}
        self._seen_lost = lost
        if not fresh:
            return
        what = ", ".join(f"{count} of {name}" for name, count in fresh.items())
        self._reporter.about_agent(
            "probe.lost",
            f"The agent on {self._host} lost kernel records because a buffer was full: {what}. "
            "It looked through /proc for services and deaths that it missed.",
            severity="warning",
            attrs=dict(fresh),
        )
        self.look_around()

    async def _ready_beat(self) -> None:
        """Looks at booting workers closely, at slow ones less so, and sleeps while there are none."""
        while True:
            self._watch(self._watcher.look_for_ready)
            since_us = self._watcher.waits_since_us()
            if since_us is None:
                self._booting.clear()
                await self._booting.wait()
                continue
            young = self._clock.now_us() - since_us < PATIENT_AFTER_US
            await asyncio.sleep(READY_POLL_S if young else PATIENT_READY_POLL_S)

    async def _scan_beat(self) -> None:
        """Without records of births and deaths: looks for them."""
        while True:
            await asyncio.sleep(SCAN_S)
            self.look_around()

    def _watch(self, look: Callable[[], list[Event]]) -> None:
        events = self._ooms.notice(look())
        self._reporter.events(events)
        for take_note in self._takers:
            take_note(events)
        if self._watcher.expects_more or any(event.kind == "worker.started" for event in events):
            self._booting.set()
