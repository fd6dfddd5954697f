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


async def test_it_answers_while_the_server_is_dead_and_says_so(stage: Stage) -> None:
    assert stage.server is not None
    await end(stage.server)
    folder = stage.folder / "agent"

    async def noticed() -> bool:
        code, answer, _ = await _status(folder, "--json")
        return code == 1 and any("cannot reach" in trouble for trouble in json.loads(answer)["troubles"])

    await stage.until(noticed, "the agent does not say that the server is dead", within_s=60)


async def test_without_an_agent_it_says_what_to_do(tmp_path: Path) -> None:
    code, output, errors = await _status(tmp_path)
    assert (code, output) == (3, "")
    assert "no agent answers" in errors
    assert "reflexd status --look" in errors
    code, output, errors = await _status(tmp_path, "--look", "--json")
    assert (code, errors) == (0, "")
    assert json.loads(output)["source"] == "look"
