"""Lends playbooks to hosts that run them by themselves, and takes back what is stopped, disarmed or changed.

A host gets all that it may run at once, anew whenever that changes and each time that its channel opens. What it says it
holds is what counts: until a host has given a playbook back, the server does not run it there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from agent.wire import MOST_LENT, MOST_LENT_CHARS, MOST_USES, Book, Books, Holding, WireError, holding_from_json
from playbooks import Holds, Lend, Place, Use
from playbooks.model import HOUR_US
from server.brain import Brain
from server.commands import CommandHub

LEASE_US = 24 * HOUR_US
"""For so long a host goes on by itself without being reached."""

RENEW_US = HOUR_US
AGAIN_S = 5.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Loan:
    """What a connected host was sent last, and what it has said it holds."""

    key: object = None
    sent_us: int = 0
    serial: int = 0
    held: frozenset[str] | None = None


class Lender:
    """One for all hosts."""

    def __init__(self, brain: Brain, hub: CommandHub, number_of_hosts: Callable[[], int]) -> None:
        self._brain = brain
        self._hub = hub
        self._number_of_hosts = number_of_hosts
        self._loans: dict[str, _Loan] = {}
        self._woken = asyncio.Event()
        self._changed = asyncio.Condition()

    def wake(self) -> None:
        """Modes, files or the kill switch are different now."""
        self._woken.set()

    async def heard(self, host: str, message: object) -> None:
        """A host says what it holds; the first time is when its channel has opened."""
        try:
            if not isinstance(message, dict) or "holding" not in message:
                raise WireError("message", "must be what the host holds")
            holding = holding_from_json(message["holding"])
        except WireError as error:
            log.warning("what %s says on its channel is not understood: %s", host, error)
            return
        loan = self._loans.setdefault(host, _Loan())
        if loan.held is None or holding.serial >= loan.serial:
            await self._note(host, loan, holding)
        self.wake()

    def gone(self, host: str) -> None:
        """The channel of a host has closed."""
        self._loans.pop(host, None)

    def not_reached(self) -> list[str]:
        """Hosts that may run by themselves what the server does not want them to any more."""
        state = self._brain.state
        return sorted(host for host, names in state.lent.items() if set(names) - self._wanted())

    async def until_reached(self, within_s: float) -> list[str]:
        """Hosts that have not given back what they should have, after so long at the most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(lambda: not self.not_reached())
        return self.not_reached()

    async def run(self) -> None:
        """Lends until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S):
                    await self._woken.wait()
            self._woken.clear()
            for host in list(self._loans):
                await self._lend(host)

    async def _note(self, host: str, loan: _Loan, holding: Holding) -> None:
        loan.held = holding.names
        uses = tuple(Use(name, Place(host, service), at_us) for name, service, at_us in holding.uses)
        await self._brain.ask(Holds(host, holding.names, uses))
        async with self._changed:
            self._changed.notify_all()

    def _wanted(self) -> frozenset[str]:
        """What hosts should run by themselves."""
        state = self._brain.state
        if state.killed:
            return frozenset()
        books = self._brain.shelf.playbooks.values()
        able = (one for one in books if one.runs_on == "host" and state.modes.get(one.name, one.mode) == "armed")
        return frozenset(one.name for one in able)

    async def _lend(self, host: str) -> None:
        loan, wanted = self._loans.get(host), self._wanted()
        if loan is None or loan.held is None:
            return
        state, shelf = self._brain.state, self._brain.shelf
        hosts = max(self._number_of_hosts(), 1)
        texts = tuple(shelf.books[name].playbook.digest for name in sorted(wanted))
        key, now_us = (wanted, texts, state.killed, hosts), _now_us()
        is_whole = loan.key == key and loan.held == wanted
        if is_whole and now_us - loan.sent_us < RENEW_US:
            return
        if loan.key == key and loan.held != wanted and now_us - loan.sent_us < AGAIN_S * 1_000_000:
            return
        if not wanted and not loan.held and not state.killed and loan.key is None:
            loan.key, loan.sent_us = key, now_us
            return  # a host without playbooks of its own loads no engine
        until_us = now_us + LEASE_US
        await self._brain.ask(Lend(host, wanted, hosts, until_us))
        books = self._books(host, wanted, now_us, until_us)
        loan.key, loan.sent_us, loan.serial = key, now_us, books.serial
        await self._hub.send_books(host, books)

    def _books(self, host: str, wanted: frozenset[str], serial: int, until_us: int) -> Books:
        """Those of which there is a share for this host, and that one message has room for."""
        state, shelf = self._brain.state, self._brain.shelf
        shares, books, chars = state.lent.get(host, {}), list[Book](), 0
        for name in sorted(wanted & shares.keys()):
            text = shelf.books[name].text
            chars += len(text)
            if len(books) < MOST_LENT and chars <= MOST_LENT_CHARS:
                books.append(Book(name, text, shares[name]))
        lent = {one.name for one in books}
        uses = [
            (use.playbook, use.place.service, use.at_us)
            for use in state.uses
            if use.place.host == host and use.playbook in lent and not use.is_shadow
        ]
        return Books(host, serial, until_us, state.killed[:200], tuple(books), tuple(uses[-MOST_USES:]))


def _now_us() -> int:
    return time.time_ns() // 1000
