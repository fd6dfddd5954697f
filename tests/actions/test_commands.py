"""Signed commands against a real process: what is refused, and that nothing is ever done twice."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from agent.acting import Performer
from agent.celery.hands import CeleryHands
from agent.clock import Clock
from agent.command_journal import Journal
from agent.commands import Commands
from agent.procfs import ProcFs
from agent.reporter import Reporter
from agent.rollup import Rollup
from agent.service import Service
from agent.slots import Slots
from agent.spool import Spool
from agent.wire import Command, Event, Target, command_to_json, sign, uuid7

KEY, HOST, SERVICE = "rfx_host_example", "web-3", "shop-web"
HASH = hashlib.sha256(KEY.encode()).hexdigest()
PROGRAM = """
import signal
wanted = {signal.SIGUSR1, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
print("up", flush=True)
while signal.sigwait(wanted) == signal.SIGUSR1:
    print("hit", flush=True)
"""


class Host:
    """One host with one service, whose master tells of each SIGUSR1 that it gets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[Event] = []
        self.procfs, self.rollup = ProcFs(), Rollup(lambda ts_us: uuid7(ts_us, secrets.randbits(62)))
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE)
        assert self.process.stdout is not None and self.process.stdout.readline() == b"up\n"
        ticks = self.procfs.start_ticks(self.process.pid)
        assert ticks is not None
        self.target = Target(self.process.pid, ticks)
        service = Service(SERVICE, "gunicorn", self.process.pid, ticks, None, "", Slots())
        self.rollup.service_appeared(service, 0, started=False, parent_pid=1)
        self.spool = Spool.open(folder / "spool", 1 << 24)
        self.commands = self.start()

    def start(self) -> Commands:
        """The part of an agent that takes commands, as a start makes it."""
        clock = Clock()
        reporter = Reporter(self.spool, clock)
        reporter.notice = self.told.append

        async def never(*_: Any) -> str:
            raise AssertionError

        performer = Performer(self.procfs, self.rollup, cast(CeleryHands, None), never)
        return Commands(HOST, KEY, self.folder, self.folder / "policy.toml", performer, reporter, clock)

    def command(self, **other: Any) -> Command:
        now_us = time.time_ns() // 1000
        asked = uuid7(now_us, secrets.randbits(62))
        given: dict[str, Any] = {
            "id": uuid7(now_us, secrets.randbits(62)),
            "issued_us": now_us,
            "expires_us": now_us + 60_000_000,
            "host": HOST,
            "run": asked,
            "step": "poke",
            "action": "process.signal",
            "params": {"signal": "USR1"},
            "service": SERVICE,
            "target": self.target,
            "cause": asked,
        }
        return Command(**{**given, **other})

    async def take(self, command: Command, signature: str | None = None) -> Event:
        """The outcome of one command."""
        signature = sign(command, HASH) if signature is None else signature
        self.commands.take({"command": command_to_json(command), "signature": signature})
        for task in list(self.commands._tasks):
            await task
        return self.told[-1]

    def hits(self) -> int:
        """How many signals arrived, after which the process is ended."""
        self.process.terminate()
        assert self.process.stdout is not None
        return self.process.stdout.read().count(b"hit")

    async def close(self) -> None:
        await self.commands.stop()
        self.process.kill()
        self.process.wait()
        self.spool.close()


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    await made.close()


async def test_a_good_command_is_done_once_and_linked(host: Host) -> None:
    command = host.command()
    done = await host.take(command)
    assert (done.kind, done.cause, done.attrs["command"]) == ("action.done", command.cause, command.id), done.text
    again = await host.take(command)
    assert (again.kind, again.attrs["reason"]) == ("action.refused", "replayed")
    await host.commands.stop()
    host.commands = host.start()
    assert (await host.take(command)).attrs["reason"] == "replayed"
    assert host.hits() == 1


NOW_US = time.time_ns() // 1000
REFUSED: dict[str, Callable[[Host, Command], Command]] = {
    "expired": lambda _h, c: replace(c, issued_us=NOW_US - 120_000_000, expires_us=NOW_US - 60_000_000),
    "foreign": lambda _h, c: replace(c, host="web-4"),
    "stale": lambda h, c: replace(c, target=Target(h.target.pid, h.target.start_ticks + 1)),
    "unknown_action": lambda _h, c: replace(c, action="process.explode"),
    "params": lambda _h, c: replace(c, params={"signal": "STOP"}),
    "policy": lambda _h, c: replace(c, action="command.run", params={"name": "x"}, target=None),
}


@pytest.mark.parametrize("reason", REFUSED)
async def test_what_must_not_be_done_is_refused(host: Host, reason: str) -> None:
    refused = await host.take(REFUSED[reason](host, host.command()))
    assert (refused.kind, refused.attrs.get("reason")) == ("action.refused", reason), refused.text
    assert host.hits() == 0


async def test_a_forged_command_is_refused_and_linked_to_nothing(host: Host) -> None:
    command = host.command()
    other = sign(command, hashlib.sha256(b"another key").hexdigest())
    refused = await host.take(command, other)
    assert (refused.kind, refused.attrs["reason"], refused.cause) == ("action.refused", "forged", None)
    changed = replace(command, params={"signal": "KILL"})
    await host.take(changed, sign(command, HASH))
    assert host.process.poll() is None
    assert host.hits() == 0


async def test_a_process_of_no_service_is_not_acted_upon(host: Host) -> None:
    ticks = host.procfs.start_ticks(os.getpid())
    assert ticks is not None
    for service in (None, SERVICE):
        refused = await host.take(host.command(service=service, target=Target(os.getpid(), ticks)))
        assert refused.attrs["reason"] == "stale"


async def test_a_master_that_is_younger_than_the_command_is_not_acted_upon(host: Host) -> None:
    command = host.command(action="gunicorn.rotate", params={}, target=None)
    began_us = Clock().boot_to_us(host.target.start_ticks * 10_000_000)
    refused = await host.take(replace(command, issued_us=began_us - 50_000, expires_us=began_us + 60_000_000))
    assert refused.attrs["reason"] == "stale", refused.text
    assert "another master" in refused.text


async def test_the_kill_switch_and_a_broken_policy_refuse_everything(host: Host) -> None:
    (host.folder / "policy.toml").write_text("allow = 1\n")
    refused = await host.take(host.command())
    assert refused.attrs["reason"] == "policy"
    assert "line 1" in refused.text
    (host.folder / "stop-acting").touch()
    assert (await host.take(host.command())).attrs["reason"] == "killed"
    assert host.hits() == 0


CRASH = """
import os, signal, sys
from pathlib import Path
import orjson
from agent.command_journal import Journal
from agent.wire import command_from_json
journal = Journal(Path(sys.argv[1]), 0)
command = command_from_json(orjson.loads(sys.argv[2]))
journal.reserve(command)
journal.begin(command)
os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_an_end_between_journal_and_act_is_told_and_nothing_is_done_later(host: Host) -> None:
    command = host.command()
    await host.commands.stop()
    arguments = [str(host.folder / "commands.jsonl"), orjson.dumps(command_to_json(command)).decode()]
    crashed = await asyncio.create_subprocess_exec(sys.executable, "-c", CRASH, *arguments)
    assert await crashed.wait() == -9
    host.commands = host.start()
    cut = host.told[-1]
    assert (cut.kind, cut.cause, cut.attrs["command"]) == ("action.failed", command.cause, command.id)
    assert "unknown: the agent ended while it acted" in cut.text
    assert (await host.take(command)).attrs["reason"] == "replayed"
    assert host.hits() == 0


async def test_a_torn_line_is_no_command_and_old_ids_are_forgotten(host: Host, tmp_path: Path) -> None:
    path, command = tmp_path / "other.jsonl", host.command()
    path.write_bytes(orjson.dumps({"begun": command_to_json(command)})[:-20])
    journal = Journal(path, command.issued_us)
    assert (journal.cut, command.id in journal) == ((), False)
    journal.reserve(command)
    journal.begin(command)
    journal.end(command, command.issued_us)
    journal.close()
    late = Journal(path, command.expires_us + 2 * 3_600_000_000)
    assert (late.cut, command.id in late) == ((), False)
    late.close()
