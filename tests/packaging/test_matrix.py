"""A kernel's run under its limits, with small scripts in the place of VMs: no process of one outlives it."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import matrix
import pytest
from images import Image
from matrix import Limits, run_kernel
from results import Outcome, Progress, Run, State
from vm import PROGRESS, Work, started_vm, vm_command

KERNELS = Path(__file__).parents[2] / "packaging" / "kernels"
WITHIN_S = 20.0
WORK = Work(Path("/tree"), Path("/copy"), Path("/p y/python"), Path("/demo/python"), (Path("/a b"),), 30, ("-k", "x y"))
ALL_LINES = """
say '{"at": "booted"}'
say '{"at": "collected", "tests": ["a", "b"]}'
say '{"at": "started", "test": "a"}'
say '{"at": "ended", "test": "a", "outcome": "passed", "seconds": 1.0, "why": ""}'
say '{"at": "started", "test": "b"}'
"""
END = """
say '{"at": "ended", "test": "b", "outcome": "passed", "seconds": 1.0, "why": ""}'
say '{"at": "finished", "exit": 0}'
"""


class Silent:
    """Hears and says nothing."""

    def tell(self, kernel: str, progress: Progress, elapsed_s: float) -> None:
        """Nothing."""


@pytest.fixture(autouse=True)
def _an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    images = {"6.1": Image("6.1.0-1-amd64", Path("/boot/vmlinuz"))}
    monkeypatch.setattr(matrix, "find_image", images.get)


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    """A FIFO to which processes of a VM write their pids."""
    os.mkfifo(tmp_path / "pids")
    return tmp_path / "pids"


async def run(script: str, *, boot_s: float = 10, kernel_s: float = 20, left_s: float = 60) -> Run:
    """A run of a `VM` that is a shell script; `say` writes a line of progress."""

    def boot(image: Path, results: Path, work: Work, *, limit_s: float) -> list[str]:
        return ["sh", "-c", f'say() {{ echo "$*" >>{results}/{PROGRESS}; }}\n{script}']

    limits = Limits(boot_s, kernel_s, time.monotonic() + left_s)
    async with asyncio.timeout(WITHIN_S):
        return await run_kernel("6.1", WORK, limits, Silent(), boot=boot)


async def test_a_whole_run() -> None:
    ran = await run(ALL_LINES + END)
    assert (ran.state, ran.why, ran.release) == (State.RAN, "", "6.1.0-1-amd64")
    assert ran.count(Outcome.PASSED) == 2


async def test_a_boot_that_hangs_is_killed_and_told() -> None:
    ran = await run("echo last words; exec sleep 300", boot_s=0.5)
    assert (ran.state, ran.why) == (State.NOT_BOOTED, "did not come up within 0.5 s; killed")
    assert ran.console == "last words\n"
    assert not ran.has_failed


async def test_a_kernel_that_takes_too_long_is_killed_and_told() -> None:
    ran = await run(ALL_LINES + "exec sleep 300", kernel_s=3, boot_s=3)
    assert ran.state is State.CUT_OFF
    assert ran.why == "took longer than 3 s; killed, in b"
    assert [test.outcome for test in ran.tests] == [Outcome.PASSED, Outcome.CUT_OFF]


async def test_a_kernel_that_crashes_in_a_test() -> None:
    ran = await run(ALL_LINES + "echo Kernel panic; exit 255")
    assert (ran.state, ran.why) == (State.CUT_OFF, "the VM ended in the middle, in b")
    assert ran.has_failed
    assert "Kernel panic" in ran.console


async def test_an_emulator_that_cannot_start() -> None:
    ran = await run("echo no such machine >&2; exit 1")
    assert (ran.state, ran.why) == (State.NOT_BOOTED, "the VM ended before any program of the tests ran")
    assert ran.console == "no such machine\n"


async def test_a_kernel_for_which_no_time_is_left_is_not_started() -> None:
    ran = await run("exit 1", boot_s=10, left_s=5)
    assert ran.state is State.NOT_HAD
    assert "were left, less than a boot" in ran.why


def test_the_time_that_is_left_is_shared() -> None:
    limits = Limits(boot_s=10, kernel_s=100, deadline_s=1000)
    assert [limits.of_kernel(900, left) for left in (1, 2, 4)] == [100, 50, 25]
    assert limits.of_kernel(0, 2) == 100


async def test_a_kernel_that_is_out_of_time_has_not_failed() -> None:
    """Its limit is not the kernel's own but what was left of the time for all."""
    ran = await run(ALL_LINES + "exec sleep 300", boot_s=2, kernel_s=60, left_s=3)
    assert ran.state is State.OUT_OF_TIME
    assert re.fullmatch(r"took longer than the \d s that were left for it; killed, in b", ran.why)
    assert not ran.has_failed
    failed = '"outcome": "failed"'
    ran = await run(ALL_LINES.replace('"outcome": "passed"', failed) + "exec sleep 300", boot_s=2, left_s=3)
    assert ran.has_failed


async def test_a_kernel_that_is_not_there() -> None:
    ran = await run_kernel("9.9", WORK, Limits(1, 1, 1), Silent(), missing="apt knows no package of it")
    assert (ran.state, ran.why) == (State.NOT_HAD, "apt knows no package of it")
    ran = await run_kernel("9.9", WORK, Limits(1, 1, 1), Silent())
    assert ran.why == "there is no /boot/vmlinuz-9.9*"


async def test_stubborn_children_end_with_their_vm(tmp_path: Path, pids: Path) -> None:
    deaf = f"trap '' TERM; echo $$ >{pids}; while :; do sleep 300; done"
    async with started_vm(["sh", "-c", f'sh -c "$1" & {deaf}', "sh", deaf], tmp_path):
        handles = await asyncio.to_thread(two_processes, pids)
    assert ended(handles, within_s=5)  # a killed process needs a moment to be gone


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_vm_ends_with_its_runner(tmp_path: Path, pids: Path, number: signal.Signals) -> None:
    """Also when the runner is killed without a last word: then the guards around the VM end it."""
    script = f"sh -c 'echo $$ >{pids}; exec sleep 300' & echo $$ >{pids}; wait"
    code = f"""
import asyncio, pathlib, sys
sys.path.insert(0, {str(KERNELS)!r})
from vm import guard, started_vm
async def main():
    task = asyncio.current_task()
    for number in (2, 15):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with started_vm([*guard(300), "sh", "-c", {script!r}], pathlib.Path({str(tmp_path)!r})):
        await asyncio.sleep(300)
asyncio.run(main())
"""
    runner = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    handles = two_processes(pids)
    runner.send_signal(number)
    assert runner.wait(WITHIN_S) != 0
    assert ended(handles, within_s=WITHIN_S)


def test_the_command_of_a_vm() -> None:
    command = vm_command(Path("/boot/vmlinuz-6.1"), Path("/tmp/results"), WORK, limit_s=900)
    assert command[:6] == ["setpriv", "--pdeathsig", "TERM", "timeout", "--kill-after=5", "905"]
    assert command[command.index("--run") + 1] == "/boot/vmlinuz-6.1"
    assert "--disable-kvm" in command
    inside = command[command.index("--exec") + 1]
    assert "REFLEX_EMULATED=1" in inside
    assert "'/p y/python'" in inside
    assert inside.endswith("-k 'x y'")


def two_processes(fifo: Path) -> list[int]:
    """Handles of the two processes that write their pids to the FIFO."""
    with os.fdopen(os.open(fifo, os.O_RDWR)) as told:
        return [os.pidfd_open(int(told.readline())) for _ in range(2)]


def ended(handles: list[int], *, within_s: float) -> bool:
    """Whether all of the processes end in time, each."""
    return all(select.select([handle], [], [], within_s)[0] for handle in handles)
