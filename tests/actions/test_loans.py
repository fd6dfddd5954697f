"""What a host takes of loans, keeps over its own end, and gives up: no server and no service is needed for that."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.clock import Clock
from agent.reflex_file import load, save
from agent.reflexes import LoanRefused, Reflexes
from agent.reporter import Reporter
from agent.spool import Spool
from agent.wire import Book, Books, Command, Event, WorkerRef, books_to_json, sign_books, uuid7

KEY, HOST = "rfx_host_example", "web-3"
HASH = hashlib.sha256(KEY.encode()).hexdigest()
TEXT = """
name: surge
title: rotate
on: [{event: worker.leaking}]
steps: [{action: gunicorn.rotate, timeout: 20s}]
limits: {cooldown: 0s, per_hour: 2, fleet_per_hour: 9}
runs_on: host
"""


class Lent:
    """The engine of a host, and what it would have done and told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock_us = time.time_ns() // 1000
        self.clock = Clock(wall_ns=lambda: self.clock_us * 1000)
        self.spool = Spool.open(folder / "spool", 1 << 24)
        self.begin()

    def begin(self) -> None:
        self.told: list[Event] = []
        self.commands: list[Command] = []
        self.failed: list[str] = []
        reporter = Reporter(self.spool, self.clock)
        self.reflexes = Reflexes(HOST, KEY, self.folder, {}, reporter, self.clock, self)
        reporter.notice = self._notice
        self.reflexes.open()
        self.task = asyncio.create_task(self.reflexes.reflex_beat())

    def own(self, command: Command) -> None:
        self.commands.append(command)

    def fail(self, command: Command, why: str) -> None:
        self.failed.append(why)

    def _notice(self, event: Event) -> None:
        self.told.append(event)
        self.reflexes.notice(event)

    def books(self, **other: Any) -> Books:
        books = Books(HOST, self.clock_us, self.clock_us + 3_600_000_000, "", (Book("surge", TEXT, 5),))
        return replace(books, **other)

    def take(self, books: Books, signature: str | None = None) -> dict[str, Any]:
        return self.reflexes.take(books_to_json(books), signature or sign_books(books, HASH))

    def happens(self) -> None:
        """A leak."""
        self.clock_us += 1_000_000
        ref = WorkerRef(0, 1, 9, 9)
        event_id = uuid7(self.clock_us, secrets.randbits(62))
        self._notice(Event(event_id, self.clock_us, "worker.leaking", "warning", "It leaks.", "shop", ref))

    async def leak(self) -> None:
        """A leak, and something that is told because of it."""
        self.happens()
        before = len(self.told)
        async with asyncio.timeout(10):
            while len(self.told) == before:
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def lent(tmp_path: Path) -> AsyncIterator[Lent]:
    made = Lent(tmp_path)
    yield made
    await made.close()
    made.spool.close()


@pytest.mark.parametrize(
    ("reason", "other"),
    [
        ("foreign", {"host": "web-4"}),
        ("replayed", {"serial": 0}),
        ("expired", {"until_us": 1}),
    ],
)
async def test_a_loan_that_is_not_for_now_and_here_is_refused(lent: Lent, reason: str, other: dict[str, Any]) -> None:
    with pytest.raises(LoanRefused) as refused:
        lent.take(lent.books(**other))
    assert refused.value.reason == reason
    assert lent.reflexes.holding()["names"] == []


@pytest.mark.parametrize(
    "value", [None, 7, [], {}, {"host": HOST}, {"host": HOST, "serial": 1, "until_us": 2, "books": 3}]
)
async def test_a_loan_that_cannot_be_read_is_refused(lent: Lent, value: object) -> None:
    with pytest.raises(LoanRefused) as refused:
        lent.reflexes.take(value, "00")
    assert refused.value.reason == "malformed"


async def test_a_loan_with_a_wrong_signature_is_refused(lent: Lent) -> None:
    books = lent.books()
    for signature in (None, 7, "", "00", sign_books(replace(books, serial=1), HASH)):
        with pytest.raises(LoanRefused) as refused:
            lent.reflexes.take(books_to_json(books), signature)
        assert refused.value.reason == "forged"


async def test_it_acts_within_its_share_and_remembers_over_its_end(lent: Lent) -> None:
    assert lent.take(lent.books())["names"] == ["surge"]
    await lent.leak()
    (command,) = lent.commands
    assert (command.action, command.host, command.service) == ("gunicorn.rotate", HOST, "shop")
    await lent.close()
    lent.begin()
    assert lent.reflexes.holding()["names"] == ["surge"]
    await asyncio.sleep(0)
    assert lent.commands == [command], "what was on its way is asked for again, with its own id"
    lent.happens()
    async with asyncio.timeout(10):
        while [run["joined"] for run in lent.reflexes.status()["runs"]] != [1]:
            await asyncio.sleep(0.01)


async def test_what_cannot_be_written_down_is_not_done(lent: Lent) -> None:
    lent.take(lent.books())
    (lent.folder / "playbooks.new").mkdir()
    await lent.leak()
    assert lent.commands == []
    assert lent.failed == ["not done, because what this host decides cannot be written down"]
    assert any("so playbooks on this host do not act" in event.text for event in lent.told)


async def test_a_loan_ends_by_itself(lent: Lent) -> None:
    lent.take(lent.books())
    lent.clock_us += 3_600_000_001
    await lent.leak()
    assert lent.commands == []
    assert any("runs no playbooks by itself any more" in event.text for event in lent.told)


async def test_a_damaged_file_is_told_and_costs_a_new_loan(lent: Lent) -> None:
    lent.take(lent.books())
    await lent.close()
    for content in (b"{", b"{}", b'{"format": 9}', (lent.folder / "playbooks.json").read_bytes()[:-40]):
        (lent.folder / "playbooks.json").write_bytes(content)
        lent.begin()
        assert lent.reflexes.holding()["names"] == []
        assert lent.told
        await lent.close()
    assert lent.take(lent.books(serial=lent.clock_us + 1))["names"] == ["surge"]


async def test_a_playbook_that_cannot_be_read_here_is_not_held(lent: Lent) -> None:
    books = lent.books(books=(Book("surge", TEXT, 5), Book("newer", TEXT.replace("surge", "newer") + "odd: 1\n", 5)))
    assert lent.take(books)["names"] == ["surge"]


async def test_the_kill_switch_comes_with_the_loan(lent: Lent) -> None:
    lent.take(lent.books())
    lent.take(lent.books(serial=lent.clock_us + 1, killed="ada"))
    await lent.leak()
    assert lent.commands == []


def test_the_file(tmp_path: Path) -> None:
    assert load(tmp_path / "none.json").trouble is None
    kept = replace(load(tmp_path / "none.json"), serial=7, rows=(("one", "seed", "x"),))
    save(tmp_path / "kept.json", kept)
    assert load(tmp_path / "kept.json") == kept
    assert (tmp_path / "kept.json").stat().st_mode & 0o777 == 0o600
