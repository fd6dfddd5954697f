"""One program that is kept running: its lines are shown under its name, and it is started again when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

Show: TypeAlias = Callable[[str, str], None]
"""Shows one line of a part: its name, and the line."""

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
HEALTHY_AFTER_S = 60.0
STOP_WITHIN_S = 15.0
LONGEST_LINE_BYTES = 1024 * 1024
_COLOURS = {"server": "\x1b[36m", "agent": "\x1b[35m", "reflex": "\x1b[1m"}


def stdout_show() -> Show:
    """Shows lines on standard output, with coloured names on a terminal unless NO_COLOR is set."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def show(name: str, line: str) -> None:
        start, end = (_COLOURS.get(name, ""), "\x1b[0m") if coloured else ("", "")
        # A terminal that was closed takes nothing more; the parts are stopped in good order all the same.
        with contextlib.suppress(OSError):
            print(f"{start}{name:6} |{end} {line}", flush=True)

    return show


class Kept:
    """`start` or `keep` begins, `stop` ends. Between restarts it waits longer and longer, up to half a minute."""

    def __init__(self, name: str, argv: Sequence[str], show: Show, *, cwd: Path) -> None:
        self._name = name
        self._argv = [*_ends_with_parent(), *argv]
        self._show = show
        self._cwd = cwd
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def start(self, ready_line: str) -> asyncio.Task[str | None]:
        """Starts the program; the task gives its line that begins with `ready_line`, or None when it ends before.

        Only a program that was ready once is started again later: what cannot start at all ends at once.
        """
        ready: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep_if_ready(ready_line, ready))
        return asyncio.create_task(_result(ready))

    def keep(self) -> None:
        """Starts the program and starts it again whenever it ends."""
        self._task = asyncio.create_task(self._keep())

    async def ended(self) -> int:
        """The exit code of a program that has ended, or is about to."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, a while to end in good order, then SIGKILL."""
        self._stopping.set()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), STOP_WITHIN_S)
            except TimeoutError:
                self._show("reflex", f"{self._name} did not end within {STOP_WITHIN_S:g} s of SIGTERM; killing it")
                self._process.kill()
        if self._task is not None:
            await self._task

    async def _keep_if_ready(self, ready_line: str, ready: asyncio.Future[str | None]) -> None:
        started = time.monotonic()
        await self._spawn()
        await self._follow(ready_line, ready)
        if ready.done():
            await self._keep(ended_after_s=time.monotonic() - started)
        else:
            ready.set_result(None)

    async def _keep(self, *, ended_after_s: float | None = None) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            if ended_after_s is not None:
                pause_s = FIRST_PAUSE_S if ended_after_s >= HEALTHY_AFTER_S else pause_s
                self._show("reflex", f"{self._how_it_ended()} after {ended_after_s:.0f} s; again in {pause_s:g} s")
                if await self._stopped_within(pause_s):
                    return
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            started = time.monotonic()
            await self._spawn()
            await self._follow()
            ended_after_s = time.monotonic() - started

    async def _spawn(self) -> None:
        """In a session of its own, so that Ctrl-C reaches only us and the parts are stopped in order."""
        self._process = await asyncio.create_subprocess_exec(
            *self._argv,
            cwd=self._cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=LONGEST_LINE_BYTES,
        )

    async def _follow(self, ready_line: str = "", ready: asyncio.Future[str | None] | None = None) -> None:
        """Shows the program's lines until it ends."""
        assert self._process is not None
        assert self._process.stdout is not None
        if self._stopping.is_set():
            self._process.send_signal(signal.SIGTERM)
        async for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self._show(self._name, line)
            if ready is not None and not ready.done() and line.startswith(ready_line):
                ready.set_result(line)
        await self._process.wait()

    async def _stopped_within(self, pause_s: float) -> bool:
        try:
            await asyncio.wait_for(self._stopping.wait(), pause_s)
        except TimeoutError:
            return False
        return True

    def _how_it_ended(self) -> str:
        assert self._process is not None
        code = self._process.returncode
        if code is not None and code < 0:
            return f"{self._name} was killed by {signal.Signals(-code).name}"
        return f"{self._name} ended with exit code {code}"


def _ends_with_parent() -> list[str]:
    """A prefix by which the kernel sends the program SIGTERM when we die without a word."""
    setpriv = shutil.which("setpriv")
    return [] if setpriv is None else [setpriv, "--pdeathsig", "SIGTERM", "--"]


async def _result(future: asyncio.Future[str | None]) -> str | None:
    return await future
