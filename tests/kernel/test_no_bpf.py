"""The agent with its privileges really taken away: what it still tells of a real Gunicorn, and what it says it cannot see."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from agent.procfs import ProcFs
from agent.spool import Spool
from demo.cgroup import CgroupError, MemoryGroup, make_group
from demo.stage import ROOT, StageError, demo_python, end, free_port

EMULATED = bool(os.environ.get("REFLEX_EMULATED"))
WAIT_S = 180.0 if EMULATED else 40.0
LIMIT_BYTES = 192 * 1024 * 1024
NOBODY = 65534
NAME = f"eater-{os.getpid()}"
APP = """
def app(environ, start_response):
    held = []
    while environ["PATH_INFO"] == "/eat":
        held.append(bytearray(b"x" * 1_000_000))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""

BPF = "-sys_admin,-bpf,-perfmon"
ROOT_WITHOUT_BPF = ("setpriv", f"--bounding-set={BPF}", f"--inh-caps={BPF}")
NEEDED = "-all,+net_admin,+sys_ptrace,+dac_read_search"
ANOTHER_USER = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *(f"--inh-caps={NEEDED}", f"--ambient-caps={NEEDED}", f"--bounding-set={NEEDED}"),
)
WITHOUT_CONNECTOR = ("unshare", "--net", *ROOT_WITHOUT_BPF)
WAYS = {"root-without-bpf": ROOT_WITHOUT_BPF, "another-user": ANOTHER_USER, "another-network": WITHOUT_CONNECTOR}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it takes capabilities away and makes cgroups")


class Agent:
    """A running reflexd without a server: its log is read live, its events afterwards from its spool."""

    def __init__(self, process: asyncio.subprocess.Process, state: Path) -> None:
        self._process = process
        self._state = state
        self.log: list[str] = []

    async def until(self, *parts: str) -> str:
        """The first line of the log, past or to come, that has all the parts."""
        for line in self.log:
            if all(part in line for part in parts):
                return line
        try:
            async with asyncio.timeout(WAIT_S):
                async for line in self._lines():
                    if all(part in line for part in parts):
                        return line
        except TimeoutError:
            pass
        raise AssertionError(f"the agent did not say {parts}:\n{''.join(self.log)}")

    async def stop(self) -> list[dict[str, Any]]:
        """Ends it in good order; the events that it spooled."""
        await asyncio.wait_for(asyncio.gather(self._end(), self._drain()), WAIT_S)
        assert self._process.returncode == 0, "".join(self.log)
        spool = Spool.open(self._state / "spool", 2**24)
        batch = spool.next_batch(2000, 2**22)
        spool.close()
        return [orjson.loads(payload) for _, payload in batch.events]

    async def _end(self) -> None:
        await end(self._process)

    async def _drain(self) -> None:
        async for _ in self._lines():
            pass

    async def _lines(self) -> AsyncIterator[str]:
        assert self._process.stderr is not None
        async for raw in self._process.stderr:
            self.log.append(raw.decode())
            yield self.log[-1]


@pytest.fixture
def state() -> Iterator[Path]:
    """A folder for an agent, with a key."""
    folder = Path(tempfile.mkdtemp(prefix="reflex-no-bpf-"))
    key = folder / "key"
    key.write_text("secret")
    key.chmod(0o600)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def reflexd(state: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts reflexd through a program that takes something away; ended with the test."""
    started: list[asyncio.subprocess.Process] = []

    async def start(way: Sequence[str], *extra: str) -> Agent:
        command = [*way, sys.executable, "-m", "agent", "run", "--server-url", f"http://127.0.0.1:{free_port()}"]
        command += ["--host", "web-1", "--host-key-file", str(state / "key"), "--state-dir", str(state / "agent")]
        owner = NOBODY if way is ANOTHER_USER else 0
        for path in (state, state / "key"):
            os.chown(path, owner, owner)
        started.append(
            await asyncio.create_subprocess_exec(
                *command, *extra, cwd=ROOT, stderr=asyncio.subprocess.PIPE, limit=2**20
            )
        )
        agent = Agent(started[-1], state / "agent")
        await agent.until("watching")
        return agent

    yield start
    for process in started:
        await end(process)


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    try:
        made = make_group(f"reflex-nobpf-{os.getpid()}", LIMIT_BYTES)
    except CgroupError as error:
        pytest.skip(str(error))
    yield made
    made.remove()


class Shop:
    """A real Gunicorn with two workers in a memory cgroup."""

    def __init__(self, master: asyncio.subprocess.Process, url: str) -> None:
        self.master = master
        self._url = url

    def workers(self) -> tuple[int, ...]:
        return ProcFs().children(self.master.pid)

    async def until_up(self) -> None:
        async with asyncio.timeout(WAIT_S), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(self._url) as answer:
                        await answer.read()
                        return
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)

    async def eat(self) -> None:
        """A request that ends with an OOM kill."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            with pytest.raises(aiohttp.ClientError):
                await session.post(f"{self._url}/eat")


@pytest.fixture
async def shop(group: MemoryGroup, tmp_path: Path) -> AsyncIterator[Callable[[], Any]]:
    """Starts the shop; ended before its cgroup."""
    started: list[asyncio.subprocess.Process] = []

    async def start() -> Shop:
        try:
            python = demo_python()
        except StageError as error:
            pytest.skip(str(error))
        (tmp_path / "app.py").write_text(APP)
        port = free_port()
        gunicorn = [str(python), "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-w", "2", "--name", NAME, "app:app"]
        launcher = [sys.executable, str(ROOT / "demo" / "cgroup.py"), str(group.procs), *gunicorn]
        with (tmp_path / "log").open("wb") as log:
            started.append(await asyncio.create_subprocess_exec(*launcher, cwd=tmp_path, stdout=log, stderr=log))
        made = Shop(started[-1], f"http://127.0.0.1:{port}")
        await made.until_up()
        return made

    yield start
    for process in started:
        await end(process)


async def _probes(way: Sequence[str]) -> dict[str, dict[str, str]]:
    command = [*way, sys.executable, "-m", "agent", "probes", "--json"]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    output, _ = await asyncio.wait_for(process.communicate(), WAIT_S)
    return {probe["signal"]: probe for probe in json.loads(output)}


@pytest.mark.parametrize("way", WAYS)
async def test_the_reasons_are_said_in_words(way: str) -> None:
    probes = await _probes(WAYS[way])
    means = "scan" if way == "another-network" else "netlink"
    assert {probes[name]["means"] for name in ("fork", "exec", "exit")} == {means}
    assert probes["oom"]["means"] == "counters"
    for name in ("oom", "fork", "exec", "exit", "signal"):
        assert "CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, which this process does not have" in probes[name]["reason"]
    assert "victim and allocator are not named" in probes["oom"]["reason"]
    assert "who sent a signal is not known" in probes["signal"]["reason"]
    if means == "scan":
        assert "it speaks in the initial network namespace only" in probes["exit"]["reason"]


async def test_a_namespace_or_a_capability_that_is_missing_is_named() -> None:
    probes = await _probes(["unshare", "--user", "--map-root-user"])
    assert "netlink proc connector: it speaks in the initial user namespace only" in probes["exit"]["reason"]
    stripped = f"{BPF},-net_admin"
    probes = await _probes(["setpriv", f"--bounding-set={stripped}", f"--inh-caps={stripped}"])
    if probes["exit"]["means"] == "scan":  # Linux before 6.6; later ones ask for no capability
        assert "it needs CAP_NET_ADMIN, which this process does not have" in probes["exit"]["reason"]


@pytest.mark.parametrize("way", WAYS)
async def test_deaths_and_oom_kills_are_still_told(way: str, reflexd: Any, shop: Any, group: MemoryGroup) -> None:
    agent: Agent = await reflexd(WAYS[way])
    running: Shop = await shop()
    by_scan = way == "another-network"
    await agent.until(f"{NAME} is running" if by_scan else f"{NAME} started")
    if not by_scan:
        await agent.until(f"Worker 0 of {NAME} ", "is ready to serve")
        await agent.until(f"Worker 1 of {NAME} ", "is ready to serve")

    victim = min(running.workers())
    os.kill(victim, signal.SIGKILL)
    death = await agent.until(f"pid {victim}", "how it ended is not known" if by_scan else "a sender that was not seen")
    assert "OOM" not in death
    await agent.until(f"after pid {victim} had ended there")

    await running.eat()
    counted = await agent.until("The kernel's OOM killer killed one process in memory cgroup", group.folder.name)
    assert f"{group.folder.name}, where {NAME} runs; a counter does not say which one." in counted
    killed = await agent.until(f"of {NAME} ", "Most likely the kernel's OOM killer did it")
    pid = killed.partition("(pid ")[2].partition(")")[0]
    await agent.until(f"after pid {pid} had ended there")

    events = await agent.stop()
    (oom,) = [event for event in events if event["kind"] == "process.oom_killed" and event["service"] == NAME]
    (exited,) = [e for e in events if e["service"] == NAME and e["attrs"].get("likely_death") == "kernel_oom"]
    assert exited["cause"] == oom["id"]
    assert exited["attrs"]["death"] == ("unknown" if by_scan else "killed_unseen")
    assert oom["ts_us"] < exited["ts_us"]
    assert [event for event in events if event["kind"] == "worker.started" and event["cause"] == exited["id"]]
    assert not [event for event in events if event["kind"] in ("agent.defect", "worker.oom_killed")]
    assert "peak_rss_bytes" not in exited["attrs"]


async def test_with_every_privilege_records_and_counts_agree(reflexd: Any, shop: Any) -> None:
    if (await _probes(()))["oom"]["means"] == "counters":
        pytest.skip("no BPF here")
    agent: Agent = await reflexd(())
    running: Shop = await shop()
    await agent.until(f"Worker 0 of {NAME} ", "is ready to serve")
    await agent.until(f"Worker 1 of {NAME} ", "is ready to serve")
    await running.eat()
    await agent.until("The kernel's OOM killer killed worker", NAME)
    events = await agent.stop()
    assert [e["kind"] for e in events if e["service"] == NAME].count("worker.oom_killed") == 1
    assert [event["text"] for event in events if event["kind"] in ("probe.mismatch", "agent.defect")] == []
