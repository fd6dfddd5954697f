"""One VM: its command line, its life under two time limits, and its certain end.

virtme-ng boots a kernel of this host on this host's files, read-only. Its processes share a process group, which is
killed as a whole; two small programs around it see to it that the VM ends even when this one is killed with SIGKILL.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

IN_VM = Path(__file__).resolve().parent / "in_vm"
# Both are mounted by virtme-ng under the VM's own /run.
SHARE = "/run/reflex/host"
RESULTS = "/run/reflex/results"
PROGRESS = "progress.jsonl"

MEMORY = "2G"
CPUS = 2
GRACE_S = 5.0
CONSOLE_LINES = 400


@dataclass(frozen=True, slots=True)
class Work:
    """What is run in a VM: tests of `tree`, as its `snapshot` has them, by `python`; `folders` are read in place."""

    tree: Path
    snapshot: Path
    python: Path
    demo_python: Path
    folders: tuple[Path, ...]
    test_limit_s: float
    pytest_arguments: tuple[str, ...]

    def command(self) -> list[str]:
        """The program that the VM runs."""
        environment = ["REFLEX_EMULATED=1", f"REFLEX_DEMO_PYTHON={self.demo_python}", "HOME=/root", "LANG=C.UTF-8"]
        progress = f"{RESULTS}/{PROGRESS}"
        folders = "\n".join(str(folder) for folder in self.folders)
        prepare = ["sh", str(IN_VM / "prepare.sh"), SHARE, str(self.snapshot), str(self.tree), progress, folders, "--"]
        run_tests = [str(self.python), str(IN_VM / "run_tests.py"), progress, f"{self.test_limit_s:g}"]
        return ["env", *environment, *prepare, *run_tests, *self.pytest_arguments]


def vm_command(image: Path, results: Path, work: Work, *, limit_s: float) -> list[str]:
    """The command that boots `image`."""
    vng = [str(Path(sys.executable).with_name("vng")), "--run", str(image)]
    vng += ["--disable-kvm", "--memory", MEMORY, "--cpus", str(CPUS), "--user", "root", "--disable-monitor"]
    # 9p is the one way to share files that works with every QEMU; prepare.sh mounts it anew, with a cache.
    vng += ["--force-9p", f"--rwdir={RESULTS}={results}", f"--rodir={SHARE}=/"]
    # Every byte of the console costs the VM a trap: only errors and the last words of a crash are worth it.
    vng += ["--verbose", "--append", "quiet", "--append", "loglevel=4"]
    return [*guard(limit_s + GRACE_S), *vng, "--exec", shlex.join(work.command())]


def guard(limit_s: float) -> list[str]:
    """Put before a command: it ends, with its whole group, when its parent does, and after `limit_s` at the latest."""
    return ["setpriv", "--pdeathsig", "TERM", "timeout", f"--kill-after={GRACE_S:g}", f"{limit_s:.0f}"]


class Vm:
    """A started VM and the last lines of its console."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines: deque[str] = deque(maxlen=CONSOLE_LINES)
        self._reader = asyncio.create_task(self._read())

    @property
    def console(self) -> str:
        """The last lines that VM and kernel have written; all of them once it was stopped."""
        return "".join(self._lines)

    async def ends_within(self, seconds: float) -> bool:
        """Whether it has ended by then."""
        try:
            await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Ends every process of the VM: asks, waits, kills."""
        self._signal(signal.SIGTERM)
        await self.ends_within(GRACE_S)
        self._signal(signal.SIGKILL)
        await self._process.wait()
        await self._reader

    def _signal(self, number: signal.Signals) -> None:
        """To the group, which has the number of its first process as long as one process of it lives."""
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while chunk := await self._process.stdout.read(65536):
            self._lines.extend(chunk.decode(errors="replace").splitlines(keepends=True))


@asynccontextmanager
async def started_vm(command: Sequence[str], home: Path) -> AsyncIterator[Vm]:
    """A VM that ends with the context at the latest. `home` takes its temporary files."""
    process = await asyncio.create_subprocess_exec(
        *command,
        # virtme-ng finds its own second half on the PATH, and its settings in the home directory.
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),
            "TMPDIR": str(home),
        },
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    vm = Vm(process)
    try:
        yield vm
    finally:
        await vm.stop()
