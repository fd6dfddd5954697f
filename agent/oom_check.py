"""Checks the agent's OOM events against the kernel's own counts, and tells of every kill that was counted and not told."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from agent import oom_sentences as sentences
from agent.counters import Balance, Counted, Difference
from agent.ids import new_event_id
from agent.oom_counts import CountReader
from agent.pulse import next_pulse
from agent.wire import Event, Evidence

log = logging.getLogger(__name__)

CHECK_EVERY_S = 10

CHECK_AGAIN_S = 4
"""Longer than a marked process may take to end before it is told (rollup.OOM_CONFIRM_US) and the tick that tells it."""

_OOM_KINDS = ("worker.oom_killed", "process.oom_killed")


class OomCheck:
    """Compares counted kills with told ones, for the host and for the cgroups of services.

    The kernel marks more than it kills: a process that is ending already is marked and not counted. Such a surplus is
    logged and no event. It counts the first victim of a group kill (memory.oom.group) twice: that is no difference.
    """

    def __init__(
        self, reader: CountReader, tell: Callable[[list[Event]], None], host: str, heard: Callable[[], int]
    ) -> None:
        """`heard` gives how many OOM records the kernel has handed over so far."""
        self._reader = reader
        self._tell = tell
        self._host = host
        self._heard = heard
        self._told = 0
        self._told_of: Counter[str] = Counter()
        self._host_balance: Balance | None = None
        self._cgroups: dict[str, Balance] = {}
        self._compare()

    def notice(self, events: list[Event]) -> list[Event]:
        """Counts what is told; changes nothing."""
        told = [event for event in events if event.kind in _OOM_KINDS]
        self._told += len(told)
        self._told_of.update(event.service for event in told if event.service is not None)
        if told:
            self._reader.note_group_kills()
        return events

    async def oom_beat(self) -> None:
        """Compares now and then, and soon again where something differs."""
        while True:
            await next_pulse(CHECK_AGAIN_S if self._is_suspicious() else CHECK_EVERY_S)
            self._compare()

    def finish(self) -> None:
        """The last comparison. There is no second look: what was heard and waits for its confirmation counts as told."""
        self._told = max(self._told, self._heard())
        self._compare()
        if self._is_suspicious():
            self._compare()

    def _compare(self) -> None:
        now = self._reader.read()
        if now is None:
            return
        killed = now.kills - now.group_kills
        if self._host_balance is None:
            self._host_balance = Balance(killed, self._told, now.at_us)
        everywhere = self._host_balance.compare(killed, self._told, now.at_us)
        unheard = max(everywhere.missing, 0) if everywhere is not None else 0
        unplaced = self._compare_cgroups(now, unheard)
        if everywhere is not None and unheard > unplaced:
            self._tell([self._mismatch(everywhere, now.at_us)])
        elif everywhere is not None and everywhere.missing < 0:
            log.info("the OOM killer marked %d processes that were ending already", -everywhere.missing)

    def _compare_cgroups(self, now: Counted, unheard: int) -> int:
        """Compares each cgroup; how many kills were told to be missing. `unheard` are missing on the host."""
        missing = 0
        for path, kills in now.cgroups.items():
            services = self._reader.services_in(path)
            told = sum(self._told_of[name] for name in services)
            balance = self._cgroups.setdefault(path, Balance(kills - now.group_kills, told, now.at_us))
            difference = balance.compare(kills - now.group_kills, told, now.at_us)
            if difference is not None and difference.missing > 0:
                self._tell([self._mismatch(difference, now.at_us, path=path, heard=missing >= unheard)])
                missing += difference.missing
        self._cgroups = {path: balance for path, balance in self._cgroups.items() if path in now.cgroups}
        return missing

    def _is_suspicious(self) -> bool:
        balances = [self._host_balance, *self._cgroups.values()]
        return any(balance is not None and balance.is_open for balance in balances)

    def _mismatch(self, found: Difference, at_us: int, *, path: str | None = None, heard: bool = False) -> Event:
        """`heard`: the kills are on the timeline, but not with the services of the cgroup."""
        services = () if path is None else self._reader.services_in(path)
        source = "vmstat" if path is None else f"{self._reader.counter} of {path}"
        return Event(
            id=new_event_id(at_us),
            ts_us=at_us,
            kind="probe.mismatch",
            severity="info" if heard else "warning",
            text=sentences.mismatch(found, self._host, (at_us - found.since_us) / 1e6, path, services, heard=heard),
            service=services[0] if len(services) == 1 else None,
            evidence=(Evidence(source, f"oom_kill rose by {found.counted}, group kills counted once"),),
            attrs=sentences.mismatch_attrs(found, path),
        )
