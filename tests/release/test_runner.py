"""The runner and the keeper, run for real."""

from __future__ import annotations

import asyncio
import os
import pwd
import subprocess
import time
from pathlib import Path

import pytest

from agent.release.hired import Runner, RunnerTrouble

ROOT = Path(__file__).parents[2]
PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
USER = pwd.getpwnam("nobody")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the runner becomes another user")


def sleepers(marker: str) -> bytes:
    """Processes that sleep for so long."""
    return subprocess.run(["pgrep", "-f", f"sleep {marker}"], capture_output=True, check=False).stdout


async def test_a_job_is_its_apps_user_in_its_folder(runner: Runner, home: Path) -> None:
    await runner.make_folder()
    lines: list[str] = []
    script = 'id -u; pwd; echo "$A"; cat; echo "nice $(nice)"; cat /proc/self/oom_score_adj; exit 3'
    done = await runner.run(
        ["sh", "-c", script], f"{home}/shop", {**PATH, "A": "b"}, seconds=10, given="given\n", on_line=lines.append
    )
    assert done.code == 3
    assert lines == [str(USER.pw_uid), f"{home}/shop", "b", "given", "nice 10", "500"]
    assert (home / "shop").stat().st_uid == USER.pw_uid


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel groups no tasks by session")
@pytest.mark.parametrize(("is_modest", "nice"), [(True, 3), (False, 0)])
async def test_a_modest_job_gives_way_to_other_sessions(
    runner: Runner, home: Path, *, is_modest: bool, nice: int
) -> None:
    """Its own niceness counts only in its own session, in which there is nobody else."""
    await runner.make_folder()
    lines: list[str] = []
    command, folder = ["cat", "/proc/self/autogroup"], f"{home}/shop"
    await runner.run(command, folder, PATH, seconds=10, is_modest=is_modest, on_line=lines.append)
    assert [line.partition(" ")[2] for line in lines] == [f"nice {nice}"]


async def test_a_job_ends_with_its_time_and_leaves_nothing(runner: Runner, home: Path) -> None:
    await runner.make_folder()
    marker = "86399"
    done = await runner.run(["sh", "-c", f"sleep {marker} & sleep {marker}"], f"{home}/shop", PATH, seconds=0.5)
    assert done.code is None
    assert sleepers(marker) == b""


async def test_a_job_ends_with_who_asked_for_it(runner: Runner, home: Path) -> None:
    await runner.make_folder()
    marker = "86398"
    began = asyncio.Event()
    script = f"echo begun; exec sleep {marker}"
    task = asyncio.ensure_future(
        runner.run(["sh", "-c", script], f"{home}/shop", PATH, seconds=60, on_line=lambda _line: began.set())
    )
    await asyncio.wait_for(began.wait(), 20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    until_s = time.monotonic() + 20
    while sleepers(marker):
        assert time.monotonic() < until_s
        await asyncio.sleep(0.02)


async def test_what_goes_on_by_itself_writes_where_the_user_may(runner: Runner, home: Path) -> None:
    await runner.make_folder()
    log = home / "shop" / "bridge.log"
    pid = await runner.begin(["sh", "-c", "echo hello; id -u"], f"{home}/shop", PATH, log=str(log))
    assert pid > 1
    until_s = time.monotonic() + 20
    while not log.exists() or len(log.read_text().splitlines()) < 2:
        assert time.monotonic() < until_s
        await asyncio.sleep(0.02)
    assert log.read_text() == f"hello\n{USER.pw_uid}\n"


@pytest.mark.parametrize(
    ("app", "folder", "said"),
    [
        ("till", "", "does not let till be deployed"),
        ("shop", "/etc", "/etc is not inside of"),
        ("shop", "{home}/shop/../..", "is not inside of"),
        ("shop", "{home}/shopping", "is not inside of"),
    ],
)
async def test_what_the_policy_does_not_name_is_refused(
    runner: Runner, home: Path, app: str, folder: str, said: str
) -> None:
    await runner.make_folder()
    asked = Runner(home / "runner.sock", app)
    with pytest.raises(RunnerTrouble, match=said):
        await asked.run(["id"], folder.format(home=home), PATH, seconds=5)


async def test_a_folder_of_somebody_else_is_not_taken(runner: Runner, home: Path) -> None:
    (home / "shop").mkdir()
    with pytest.raises(RunnerTrouble, match="must be a folder that belongs to nobody; run: chown nobody"):
        await runner.make_folder()


async def test_no_runner_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunnerTrouble, match="the runner of this host, which runs builds, cannot be asked"):
        await Runner(tmp_path / "nobody.sock", "shop").run(["id"], "", PATH, seconds=1)
