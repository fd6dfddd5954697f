"""Gunicorn services with workers to watch; they end with the context."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from agent.procfs import ProcFs
from demo.stage import StageError, demo_python, end, free_port

BOOT_S = 60.0
POLL_S = 0.1
_PROC = ProcFs(Path("/proc"))


@dataclass(frozen=True, slots=True)
class Member:
    """One service: its master's pid, and the port that it listens on."""

    name: str
    master: int
    port: int

    def workers(self) -> tuple[int, ...]:
        """Pids of the workers."""
        return _PROC.children(self.master)


class Crowd:
    """Use as an async context manager. `workers` is the number over all services; each gets its share."""

    def __init__(self, *, services: int, workers: int) -> None:
        self._services = services
        self.size = workers
        self.name = f"crowd-{os.getpid()}"
        self.members: list[Member] = []
        self._processes: list[asyncio.subprocess.Process] = []
        self._folder = tempfile.TemporaryDirectory(prefix="reflex-crowd-")

    async def __aenter__(self) -> Self:
        try:
            for number in range(self._services):
                share = self.size // self._services + (number < self.size % self._services)
                await self._start(f"{self.name}-{number + 1}", share)
            await self._booted()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(end(process) for process in self._processes))
        self._folder.cleanup()

    def workers(self) -> list[int]:
        """Pids of all workers."""
        return [pid for member in self.members for pid in member.workers()]

    async def _start(self, name: str, workers: int) -> None:
        port = free_port()
        command = [str(demo_python()), "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", str(workers)]
        command += ["--preload", "--name", name, "--log-level", "warning", "--chdir", str(Path(__file__).parent)]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        with (Path(self._folder.name) / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command, "hello:app", env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self._processes.append(process)
        self.members.append(Member(name, process.pid, port))

    async def _booted(self) -> None:
        deadline = time.monotonic() + BOOT_S
        while len(self.workers()) < self.size or not all(await asyncio.gather(*map(answers, self.members))):
            if time.monotonic() > deadline or any(process.returncode is not None for process in self._processes):
                raise StageError(f"the Gunicorns to be watched do not come up; the end of their logs:\n{self._logs()}")
            await asyncio.sleep(POLL_S)

    def _logs(self) -> str:
        return "".join(path.read_text(errors="replace") for path in Path(self._folder.name).glob("*.log"))[-2000:]


async def answers(member: Member) -> bool:
    """Whether the service answers a request now."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", member.port)
    except OSError:
        return False
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.endswith(b"hello world\n")
