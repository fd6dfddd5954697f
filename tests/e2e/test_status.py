"""`reflexd status` as a person runs it: against a real agent and a real Gunicorn, and without an agent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from demo.stage import ROOT, ShopOptions, Stage, end

SHOP = ShopOptions(workers=2, import_s=0)


async def _status(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    command = [sys.executable, "-m", "agent", "status", "--state-dir", str(folder), *arguments]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=pipe, stderr=pipe)
    output, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


def _read_until(terminal: int, mark: bytes, times: int) -> bytes:
    shown = b""
    while shown.count(mark) < times:
        shown += os.read(terminal, 65536)
    return shown


async def test_it_shows_services_and_the_last_deaths(stage: Stage) -> None:
    await stage.start_shop(SHOP)
    folder = stage.folder / "agent"
    code, page, errors = await _status(folder, "--service", stage.service)
    assert (code, errors) == (0, "")
    assert "Nothing is wrong that Reflex can see." in page
    (victim, *_) = await stage.events(kind="worker.ready", service=stage.service)
    os.kill(victim["worker"]["pid"], signal.SIGKILL)
    await stage.until(lambda: stage.events(kind="worker.exited", service=stage.service), "no death")
    code, answer, _ = await _status(folder, "--service", stage.service, "--json")
    status = json.loads(answer)
    (service,) = status["services"]
    assert (service["kind"], service["settings"]["workers"]) == ("gunicorn", 2)
    assert [death["pid"] for death in status["deaths"]] == [victim["worker"]["pid"]]
    assert code == 0


async def test_a_service_whose_master_is_killed_is_down_and_an_agent_that_is_killed_is_replaced(stage: Stage) -> None:
    await stage.start_shop(SHOP)
    assert stage.shop is not None and stage.agent is not None
    folder = stage.folder / "agent"
    stage.shop.kill()
    await stage.until(lambda: stage.events(kind="service.stopped", service=stage.service), "no end of the master")
    code, page, _ = await _status(folder, "--service", stage.service)
    assert code == 1
    assert f"! {stage.service} is down, without a master for" in page
    stage.agent.kill()
    await stage.agent.wait()
    assert (folder / "status.sock").exists()
    assert (await _status(folder))[0] == 3
    await stage.start_agent()
    code, answer, _ = await _status(folder, "--json")
    assert code in (0, 1)
    assert json.loads(answer)["source"] == "agent"


async def test_watched_in_a_terminal_it_stays_until_ctrl_c(stage: Stage) -> None:
    await stage.start_shop(SHOP)
    master, slave = os.openpty()
    command = [sys.executable, "-m", "agent", "status", "--watch", "0.2", "--service", stage.service]
    command += ["--state-dir", str(stage.folder / "agent")]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
    )
    os.close(slave)
    shown = await asyncio.to_thread(_read_until, master, b"Nothing is wrong", 3)
    process.send_signal(signal.SIGINT)
    shown += await asyncio.to_thread(_read_until, master, b"\x1b[?1049l", 1)
    assert await asyncio.wait_for(process.wait(), 10) == 0
    os.close(master)
    assert b"Traceback" not in shown
    assert b"\x1b[3" not in shown.replace(b"\x1b[3J", b"")


async def test_it_answers_while_the_server_is_dead_and_says_so(stage: Stage) -> None:
    assert stage.server is not None
    await end(stage.server)
    folder = stage.folder / "agent"

    async def noticed() -> bool:
        code, answer, _ = await _status(folder, "--json")
        return code == 1 and any("cannot reach" in trouble["text"] for trouble in json.loads(answer)["troubles"])

    await stage.until(noticed, "the agent does not say that the server is dead", within_s=60)


async def test_without_an_agent_it_says_what_to_do(tmp_path: Path) -> None:
    code, output, errors = await _status(tmp_path)
    assert (code, output) == (3, "")
    assert "no agent answers" in errors
    assert "reflexd status --look" in errors
    code, output, errors = await _status(tmp_path, "--look", "--json")
    found = json.loads(output)
    assert (code, errors) == (1 if found["troubles"] else 0, "")
    assert found["source"] == "look"
