"""Orders of releases on a host: one at a time for an app, the next one waits, and what was cut off is told and gone on with."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.acting import Performer
from agent.celery.hands import CeleryHands
from agent.clock import Clock
from agent.ids import new_event_id
from agent.procfs import ProcFs
from agent.release.records import OrderRecord, Records
from agent.release.releaser import Releaser
from agent.reporter import Reporter
from agent.rollup import Rollup
from agent.spool import Spool
from agent.watcher import Watcher
from agent.wire import Event, Order, order_to_json, sign_order
from agent.wire.app import App, Migrate, Web
from agent.wire.order import Phase
from demo.stage import StageError, demo_python

KEY = "the-key-of-the-host"
KEY_HASH = hashlib.sha256(KEY.encode()).hexdigest()
WITHIN_S = 20.0
SERVICE = f"shop-web-{os.getpid()}"
ENDS = ("release.kept", "release.failed", "release.refused")
RELEASE, BEFORE = "20261124T020304-aaaaaaa", "20261123T020304-bbbbbbb"


class Place:
    """A host's releaser, with a runner that takes jobs and never answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.app = App("shop", f"{folder}/shop.git", "main", "nobody", f"{folder}/srv/shop", web=(Web(SERVICE),))
        self.told: list[Event] = []
        self.jobs: list[asyncio.StreamWriter] = []
        self.asked: list[list[str]] = []
        self._clock = Clock()
        self._procfs = ProcFs()
        self.rollup = Rollup(new_event_id)
        self._runner: asyncio.Server | None = None
        self._spool = Spool.open(folder / "spool", 2**20)
        reporter = Reporter(self._spool, self._clock)
        reporter.notice = self.told.append
        performer = Performer(self._procfs, self.rollup, CeleryHands(None), lambda worker: asyncio.sleep(0, ""))  # type: ignore[arg-type]
        policy, runner = folder / "policy.toml", folder / "runner.sock"
        policy.write_text(f'[apps.shop]\nuser = "nobody"\nfolder = "{self.app.folder}"\n')
        self.releaser = Releaser(
            "web-1", KEY, folder, policy, runner, performer, self._procfs, self.rollup.services, reporter, self._clock,
            lambda said: None,
        )  # fmt: skip

    async def open_runner(self) -> None:
        """From now on jobs are taken."""

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.asked.append(json.loads(await reader.readline()).get("argv", []))
            self.jobs.append(writer)

        self._runner = await asyncio.start_unix_server(take, self.folder / "runner.sock")

    async def close(self) -> None:
        """Ends what is under way."""
        await self.releaser.stop()
        for job in self.jobs:
            job.close()
        if self._runner is not None:
            self._runner.close()
        self._spool.close()

    def order(self, phase: Phase, release: str = "", *, id_: str = "", migrates: bool = False) -> str:
        """The server orders that; the order's id."""
        now_us = time.time_ns() // 1000
        id_ = id_ or new_event_id(now_us)
        order = Order(id_, id_, phase, "web-1", now_us, now_us + 60_000_000, id_, self.app, release, migrates)
        self.releaser.take(order_to_json(order), sign_order(order, KEY_HASH))
        return id_

    async def ended(self, order: str) -> Event:
        """The event that tells the end of an order."""
        async with asyncio.timeout(WITHIN_S):
            while not (found := [event for event in self.told if event.attrs.get("order") == order]):
                await asyncio.sleep(0.01)
        return found[-1]

    async def answered(self, order: str) -> Event:
        """The event that tells the end of an order, of which every job succeeds."""
        async with asyncio.timeout(WITHIN_S):
            while not any(event.attrs.get("order") == order and event.kind in ENDS for event in self.told):
                for job in self.jobs:
                    job.write(b'{"code": 0}\n')
                    job.close()
                self.jobs.clear()
                await asyncio.sleep(0.01)
        return await self.ended(order)

    async def has_jobs(self, count: int) -> None:
        """Returns when so many jobs have come."""
        async with asyncio.timeout(WITHIN_S):
            while len(self.jobs) < count:
                await asyncio.sleep(0.01)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    await made.open_runner()
    yield made
    await made.close()


async def test_an_order_waits_for_the_one_of_its_app_that_is_under_way(place: Place) -> None:
    first = place.order("prepare")
    await place.has_jobs(1)
    second = place.order("prepare")
    third = place.order("prepare")
    refused = await place.ended(second)
    assert (refused.kind, refused.attrs["reason"]) == ("release.refused", "busy")
    place.order("prepare", id_=third)
    assert len(place.jobs) == 1
    place.order("cancel", first)
    assert (await place.ended(first)).text == "The prepare of shop on web-1 was cancelled."
    await place.has_jobs(2)
    place.order("cancel", third)
    assert (await place.ended(third)).attrs["reason"] == "cancelled"
    assert [event.attrs.get("order") for event in place.told] == [second, first, third]


async def test_one_that_waits_can_be_cancelled(place: Place) -> None:
    first = place.order("prepare")
    await place.has_jobs(1)
    second = place.order("prepare")
    place.order("cancel", second)
    assert (await place.ended(second)).text == "The prepare of shop on web-1 was cancelled."
    place.order("cancel", first)
    await place.ended(first)
    assert len(place.jobs) == 1


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Gunicorn of the release, without a runner and an agent."""
    folder = tmp_path / "srv" / "shop" / "releases" / RELEASE
    folder.mkdir(parents=True)
    (folder / "app.py").write_text("def app(environ, start_response):\n    raise NotImplementedError\n")
    try:
        python = str(demo_python())
    except StageError as error:
        pytest.skip(str(error))
    command = [python, "-m", "gunicorn", "--bind", "127.0.0.1:0", "--name", SERVICE, "app:app"]
    started = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield started
    started.terminate()
    started.wait(20)


async def test_what_was_cut_off_is_told_with_what_serves(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    records = Records(tmp_path / "releases.json")
    folder = f"{tmp_path}/srv/shop"
    records.orders["one"] = OrderRecord("switch", "shop", RELEASE, before=BEFORE, folder=folder, services=[SERVICE])
    records.save()
    place = Place(tmp_path)
    watcher = Watcher(ProcFs(), place.rollup, Clock(), None)
    async with asyncio.timeout(WITHIN_S):
        while process.pid not in place.rollup.services:
            watcher.scan()
            await asyncio.sleep(0.05)
    place.releaser.open()
    (cut,) = place.told
    assert cut.kind == "release.interrupted"
    assert f"in the middle of the switch of shop; its services run {RELEASE}." in cut.text
    assert cut.attrs["serves"] == RELEASE


async def test_what_was_cut_off_and_nothing_runs_it_is_told_by_the_link(tmp_path: Path) -> None:
    records = Records(tmp_path / "releases.json")
    folder = tmp_path / "srv" / "shop"
    (folder / "releases" / BEFORE).mkdir(parents=True)
    os.symlink(f"releases/{BEFORE}", folder / "current")
    records.orders["one"] = OrderRecord("switch", "shop", RELEASE, folder=str(folder), services=[SERVICE])
    records.save()
    place = Place(tmp_path)
    place.releaser.open()
    assert "no service of it is seen" in place.told[0].text
    assert place.told[0].attrs["serves"] == BEFORE


async def test_a_new_order_ends_what_was_cut_off_of_its_app(tmp_path: Path) -> None:
    records = Records(tmp_path / "releases.json")
    records.orders["one"] = OrderRecord("switch", "shop", RELEASE)
    records.orders["two"] = OrderRecord("switch", "till", RELEASE)
    records.save()
    place = Place(tmp_path)
    await place.ended(place.order("rollback"))
    known: dict[str, Any] = Records(tmp_path / "releases.json").orders
    assert ("one" in known, "two" in known) == (False, True)


async def test_a_release_that_nothing_runs_is_kept_and_where_something_ran_before_that_is_a_warning(
    tmp_path: Path,
) -> None:
    (tmp_path / "srv" / "shop" / "releases" / RELEASE).mkdir(parents=True)
    place = Place(tmp_path)
    await place.open_runner()
    first = await place.answered(place.order("switch", RELEASE))
    assert (first.kind, first.severity, first.attrs["seen"]) == ("release.kept", "info", False)
    assert first.text.endswith("is current, and nothing that runs it is seen, so nothing was watched.")
    await place.close()
    records = Records(tmp_path / "releases.json")
    records.app("shop").ran = [SERVICE]
    records.save()
    later = Place(tmp_path)
    await later.open_runner()
    second = await later.answered(later.order("switch", RELEASE))
    await later.close()
    assert (second.kind, second.severity) == ("release.kept", "warning")
    assert f"{SERVICE}, which has been seen here before, does not run, or under another name" in second.text
    switched = next(event for event in later.told if event.kind == "release.switched")
    assert switched.text.startswith(f"Release {RELEASE} of shop is current on web-1; ")
    assert switched.text.endswith(". Nothing that runs it is seen, so nothing is watched.")


async def test_a_migration_that_was_cut_off_is_run_again_and_one_that_has_ended_is_not(tmp_path: Path) -> None:
    (tmp_path / "srv" / "shop" / "releases" / RELEASE).mkdir(parents=True)
    order, asked = "", []
    for answers in (0, 1, 0):
        place = Place(tmp_path)
        place.app = replace(place.app, web=(), migrate=Migrate(("migrate-all",)))
        await place.open_runner()
        order = place.order("switch", RELEASE, id_=order, migrates=True)
        for number in range(answers):
            await place.has_jobs(number + 1)
            place.jobs[number].write(b'{"code": 0}\n')
        await place.has_jobs(answers + 1)
        asked.append([argv[0] for argv in place.asked])
        await place.close()
    assert asked == [["migrate-all"], ["migrate-all", "sh"], ["sh"]]


def test_a_record_that_is_broken_is_kept_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "releases.json"
    file.write_text('{"apps": {"shop": {"serving": 7, "evil": 1}}, "orders": {}}')
    assert Records(file).apps == {}
    assert "bad releases are forgotten" in caplog.text
    assert file.with_suffix(".broken").exists()
    Records(file).save()
    assert Records(file).apps == {}
