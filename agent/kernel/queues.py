"""The accept queues of watched listeners, whatever the means: what programs count, and what looks by netlink add."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from agent.kernel.diag import DiagError, Sight
from agent.kernel.listener_table import ListenerTable, Row, SecondSeen

log = logging.getLogger(__name__)

MAX_LISTENERS = 1024
"""As many as the kernel's map takes; further ones are not watched."""


@dataclass(frozen=True, slots=True)
class QueueReading:
    """What is known of one listener's queue. None stands for what the means at hand cannot tell.

    `depth` is that of now, `depth_at_most` a bound where it is not known exactly. `seconds` are the latest seconds in
    which something was seen. All other numbers have risen since the listener is watched: `found_waiting` is the sum,
    over arrivals, of the connections that were there before; `waits[0]` counts accepts after less than 1 us,
    `waits[i]` those after 2^(i-1) to 2^i us, the last one all longer ones; `turned_away` counts TCP handshake packets
    dropped, or unix connects refused, because the queue was full, or for any reason where `any_reason` says so (a listener
    with TCP_DEFER_ACCEPT drops the last packet of each handshake); `blocked` counts unix connects that waited for room.
    """

    depth: int | None = None
    depth_at_most: int | None = None
    limit: int | None = None
    seconds: tuple[SecondSeen, ...] = ()
    arrivals: int | None = None
    found_waiting: int | None = None
    accepts: int | None = None
    waited_ns: int | None = None
    waits: tuple[int, ...] | None = None
    turned_away: int | None = None
    blocked: int | None = None
    any_reason: bool = False


@dataclass(frozen=True, slots=True)
class Hearing:
    """What the attached programs tell: `enqueues` and `accepts` one by one, `refusals` by a full queue, or only that
    a listener was woken (`data_ready`). `looks`: netlink may be asked for what they leave open; `always_looks`: it is
    asked every time, as it is what depths are known by."""

    enqueues: bool = False
    data_ready: bool = False
    accepts: bool = False
    refusals: bool = False
    looks: bool = False
    always_looks: bool = False

    @classmethod
    def by(cls, programs: Collection[str], *, looks: bool, always_looks: bool) -> Hearing:
        """What these programs tell, by their names."""

        def has(start: str) -> bool:
            return any(program.startswith(start) for program in programs)

        return cls(
            enqueues=has("on_tcp_enqueue_"),
            data_ready=has("on_data_ready"),
            accepts=has("on_accept_"),
            refusals=has("on_unix_connected_"),
            looks=looks,
            always_looks=always_looks,
        )

    @property
    def counts(self) -> bool:
        """Whether programs count connections at all."""
        return self.enqueues or self.data_ready


class Diag(Protocol):
    """Looks at listeners from outside; see agent.kernel.diag."""

    def look(self, holders: Mapping[int, int | None]) -> dict[int, Sight]: ...

    def forget(self, inode: int) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class _Watched:
    """One listener: a process that holds it, and what looks have shown.

    `drops` are a TCP socket's own counter at the first and the latest look. `found` is the depth at the latest look and
    the number of arrivals before it: without another arrival there cannot be more.
    """

    holder_pid: int | None
    seconds: tuple[SecondSeen, ...] = ()
    sight: Sight | None = None
    drops: tuple[int, int] | None = None
    found: tuple[int, int] | None = None


class Queues:
    """All watched listeners."""

    def __init__(self, table: ListenerTable | None, diag: Diag | None, hearing: Hearing) -> None:
        self._table = table
        self._diag = diag
        self._watched: dict[int, _Watched] = {}
        self._look_failed = ""
        self._is_full_told = False
        self.hearing = hearing

    def watch(self, inode: int, holder_pid: int | None = None) -> None:
        """Follows this listening socket from now on. `holder_pid` has it open; None: one in the agent's namespace."""
        watched = self._watched.get(inode)
        if watched is not None:
            watched.holder_pid = holder_pid or watched.holder_pid
        elif len(self._watched) < MAX_LISTENERS:
            self._watched[inode] = _Watched(holder_pid)
            if self._table is not None:
                self._table.watch(inode)
        elif not self._is_full_told:
            self._is_full_told = True
            log.warning("more than %d listeners: the accept queues of further ones are not watched", MAX_LISTENERS)

    def forget(self, inode: int) -> None:
        """Follows it no more."""
        if self._watched.pop(inode, None) is None:
            return
        if self._table is not None:
            self._table.forget(inode)
        if self._diag is not None:
            self._diag.forget(inode)

    def look(self, second: int) -> None:
        """Between two readings, where depths are known by looks: one more chance to see a peak."""
        if self.hearing.always_looks:
            self._look(dict.fromkeys(self._watched), second)

    def read(self, second: int) -> dict[int, QueueReading]:
        """What is known of each watched listener, by inode. `second` is the running second of the boot clock."""
        rows = {inode: None if self._table is None else self._table.row(inode) for inode in self._watched}
        for watched in self._watched.values():
            watched.sight = None
        self._look({inode: row for inode, row in rows.items() if self._is_open(inode, row)}, second)
        return {inode: self._reading(self._watched[inode], row) for inode, row in rows.items()}

    def close(self) -> None:
        """Looks no more."""
        if self._diag is not None:
            self._diag.close()

    def _is_open(self, inode: int, row: Row | None) -> bool:
        """Whether a look is needed. A queue that fills and stands still is silent, and one that nobody hears refuse
        clients too: so one that was last heard half full is looked at until it is found emptier."""
        hearing = self.hearing
        if not hearing.looks or hearing.always_looks:
            return hearing.looks
        if row is None or not row.limit or (hearing.accepts and hearing.refusals):
            return False
        return 2 * _at_most(self._watched[inode], row, hearing) >= row.limit

    def _look(self, rows: Mapping[int, Row | None], second: int) -> None:
        if self._diag is None or not rows:
            return
        try:
            found = self._diag.look({inode: self._watched[inode].holder_pid for inode in rows})
        except DiagError as error:
            if str(error) != self._look_failed:
                log.warning("accept queues cannot be looked at now: %s", error)
            self._look_failed = str(error)
            return
        self._look_failed = ""
        for inode, sight in found.items():
            self._watched[inode] = self._seen(self._watched[inode], sight, rows[inode], second)

    def _seen(self, watched: _Watched, sight: Sight, row: Row | None, second: int) -> _Watched:
        """The listener after a look."""
        now = SecondSeen(second, sight.depth, sight.limit)
        return _Watched(
            holder_pid=watched.holder_pid,
            seconds=_united(watched.seconds, (now,))[-2:],
            sight=sight,
            drops=_joined(watched.drops, None if sight.drops is None else (sight.drops, sight.drops)),
            found=None if row is None else (sight.depth, _arrivals(row, self.hearing)),
        )

    def _reading(self, watched: _Watched, row: Row | None) -> QueueReading:
        sight, hearing = watched.sight, self.hearing
        if row is None or not hearing.counts:
            if sight is None:
                return QueueReading()
            return QueueReading(
                depth=sight.depth,
                depth_at_most=sight.depth,
                limit=sight.limit,
                seconds=watched.seconds,
                turned_away=_dropped(watched.drops),
                any_reason=True,
            )
        arrivals = _arrivals(row, hearing)
        depth = _depth_now(row, sight, hearing)
        return QueueReading(
            depth=depth,
            depth_at_most=_at_most(watched, row, hearing) if depth is None and arrivals else depth,
            limit=sight.limit if sight is not None else row.limit if arrivals else None,
            seconds=_united(row.seconds, watched.seconds),
            arrivals=arrivals,
            found_waiting=row.found_waiting if hearing.data_ready else None,
            accepts=row.accepts if hearing.accepts else None,
            waited_ns=row.waited_ns if hearing.accepts else None,
            waits=row.waits if hearing.accepts else None,
            turned_away=_turned_away(watched, row, hearing),
            blocked=row.blocked if hearing.refusals else None,
            any_reason=not hearing.refusals,
        )


def _arrivals(row: Row, hearing: Hearing) -> int:
    return row.arrivals_hooked if hearing.enqueues else row.arrivals_data_ready


def _at_most(watched: _Watched, row: Row, hearing: Hearing) -> int:
    """The depth after the latest arrival or accept that was heard, or what a look has found since."""
    if watched.found is not None and watched.found[1] == _arrivals(row, hearing):
        return min(watched.found[0], row.depth)
    return row.depth


def _depth_now(row: Row, sight: Sight | None, hearing: Hearing) -> int | None:
    if sight is not None:
        return sight.depth
    return row.depth if hearing.accepts and row.arrivals_hooked else None


def _turned_away(watched: _Watched, row: Row, hearing: Hearing) -> int | None:
    if hearing.refusals:
        return row.turned_away
    return _dropped(_joined(watched.drops, row.drops)) if hearing.looks else None


def _joined(some: tuple[int, int] | None, others: tuple[int, int] | None) -> tuple[int, int] | None:
    """The first and the latest value of a counter that two means have read."""
    if some is None or others is None:
        return some or others
    return min(some[0], others[0]), max(some[1], others[1])


def _dropped(drops: tuple[int, int] | None) -> int | None:
    return None if drops is None else drops[1] - drops[0]


def _united(some: tuple[SecondSeen, ...], others: tuple[SecondSeen, ...]) -> tuple[SecondSeen, ...]:
    """Seconds seen by two means, in order; of one that both saw, the extremes."""
    united: dict[int, SecondSeen] = {}
    for seen in (*some, *others):
        known = united.get(seen.second, seen)
        united[seen.second] = SecondSeen(
            seen.second,
            max(known.depth, seen.depth),
            seen.limit,
            max(known.longest_wait_ns, seen.longest_wait_ns),
        )
    return tuple(united[second] for second in sorted(united))
