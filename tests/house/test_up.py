"""`./reflex up` for real: server and agent on a state directory and a port of their own, until they are stopped."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

ROOT = Path(__file__).parents[2]
# Without .venv the script would first make it; its last step is called instead.
COMMAND = [str(ROOT / "reflex")] if (ROOT / ".venv").exists() else [sys.executable, str(ROOT / "packaging" / "up.py")]
TOKEN = re.compile(r"(http://\S+)/#token=(rfx_op_\S+)")
WITHIN_S = 60


@dataclass
class Up:
    """A running `./reflex up` and the lines that it has shown."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def line(self, pattern: str) -> re.Match[str]:
        """The next line that fits."""
        assert self.process.stdout is not None
        async with asyncio.timeout(WITHIN_S):
            async for raw in self.process.stdout:
                self.lines.append(raw.decode().rstrip())
                if found := re.search(pattern, self.lines[-1]):
                    return found
        raise AssertionError(f"no line fits {pattern!r}:\n" + "\n".join(self.lines))

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stops it; the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        assert self.process.stdout is not None
        async with asyncio.timeout(WITHIN_S):
            self.lines += (await self.process.stdout.read()).decode().splitlines()
            return await self.process.wait()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("REFLEX", "DISPLAY", "WAYLAND"))}
    return kept | {"REFLEX_STATE": str(tmp_path / "state"), "REFLEX_HOST": "house-test"}


@asynccontextmanager
async def up(environment: dict[str, str], *arguments: str) -> AsyncIterator[Up]:
    listen = () if "--listen" in arguments else ("--listen", "127.0.0.1:0")
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "up", *listen, *arguments,
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    running = Up(process)
    try:
        yield running
    finally:
        await running.end()


async def call(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """A command that ends by itself: its exit code, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(WITHIN_S):
        said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def get(url: str, token: str) -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        assert answer.status == 200
        return await answer.json()


async def until(ask: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await ask():
            await asyncio.sleep(0.05)


async def test_a_first_start_a_second_one_beside_it_and_a_next_one(environment: dict[str, str], tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with up(environment) as first:
        url, token = (await first.line(TOKEN.pattern)).groups()
        await first.line("shown only now")
        await first.line(r"reflex-server operator-token new --state")

        async def host_is_live() -> bool:
            hosts = (await get(f"{url}/v1/hosts", token))["hosts"]
            return any(host["name"] == "house-test" and host["state"] == "live" for host in hosts)

        await until(host_is_live)
        async with aiohttp.ClientSession() as session, session.get(url) as page:
            assert page.status == 200
            assert "Reflex" in await page.text()
        assert not (state / "first-token").exists()
        assert stat.S_IMODE((state / "host-key").stat().st_mode) == 0o600
        assert stat.S_IMODE(state.stat().st_mode) == 0o700

        code, said = await call(environment, "up")
        assert (code, url in said, "already" in said, token in said) == (0, True, True, False)
        code, said = await call(environment, "status")
        assert (code, url in said) == (0, True)
        assert await first.end(signal.SIGINT) == 0
    stopped = [line for line in first.lines if re.search("stopping|stopped", line)]
    assert [line.split()[0] for line in stopped] == ["reflex", "agent", "server", "reflex"]

    async with up(environment) as second:
        await second.line(r"the page: http://127.0.0.1:\d+$")
        assert await second.end() == 0
    assert not any(TOKEN.search(line) for line in second.lines)
    assert (await call(environment, "status"))[0] == 1


async def test_what_dies_is_started_again_on_the_same_port(environment: dict[str, str]) -> None:
    async with up(environment) as running:
        url, token = (await running.line(TOKEN.pattern)).groups()
        for name in ("server", "agent"):
            os.kill(_child(running.process.pid, name), signal.SIGKILL)
            await running.line(f"{name} was killed by SIGKILL after .* again in 1 s")
            await running.line("reflex-server: ready on" if name == "server" else "The agent started on")
            await get(f"{url}/v1/timeline", token)
        assert await running.end() == 0


async def test_a_port_that_is_taken(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, said = await call(environment, "up", "--listen", f"127.0.0.1:{port}")
    assert code == 5
    assert re.fullmatch(
        rf"reflex: another program listens on 127.0.0.1:{port}; stop it, or choose another port: [^\n]+\n", said
    )


async def test_in_the_background(environment: dict[str, str], tmp_path: Path) -> None:
    code, said = await call(environment, "up", "--detach", "--listen", "127.0.0.1:0")
    try:
        assert code == 0, said
        shown = TOKEN.search(said)
        assert shown is not None
        assert await get(f"{shown[1]}/v1/timeline", shown[2])
        assert shown[2] not in (tmp_path / "state" / "up.log").read_text()
    finally:
        code, said = await call(environment, "down")
    assert (code, said) == (0, "Reflex has stopped.\n")
    assert (await call(environment, "down"))[0] == 0


async def test_nothing_is_left_when_it_is_killed(environment: dict[str, str]) -> None:
    async with up(environment) as running:
        await running.line("The agent started on")
        parts = [_child(running.process.pid, name) for name in ("server", "agent")]
        await running.end(signal.SIGKILL)

        async def all_ended() -> bool:
            return not any(_runs(pid) for pid in parts)

        await until(all_ended)


async def test_a_state_directory_that_cannot_be_written(environment: dict[str, str]) -> None:
    environment["REFLEX_STATE"] = "/proc/reflex"
    code, said = await call(environment, "up")
    assert code == 3
    assert re.search(r"^reflex: the state directory /proc/reflex cannot be written .*REFLEX_STATE=", said, re.M)


async def test_wrong_usage(environment: dict[str, str], tmp_path: Path) -> None:
    code, said = await call(environment, "up", "--listen", "8765")
    assert code == 2
    assert "is no ADDRESS:PORT" in said
    assert not (tmp_path / "state").exists()


def _child(parent: int, name: str) -> int:
    """The part of that name below `parent`; the note in the state directory is not asked, so that it can be wrong."""
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for pid in children.read_text().split():
            if f"\0-m\0{name}\0" in Path(f"/proc/{pid}/cmdline").read_text():
                return int(pid)
    raise AssertionError(f"pid {parent} has no child {name}")


def _runs(pid: int) -> bool:
    """Whether a process is there that is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
