"""`reflexctl act` against a real server, agent and Gunicorn: what it prints, and its exit codes."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from tests.actions.conftest import ROOT


async def reflexctl(stage: Any, *words: str) -> tuple[int | None, str, str]:
    environment = {**os.environ, "REFLEX_URL": stage.url, "REFLEX_TOKEN": stage.token}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ctl", "act", *words),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), errors.decode()


async def test_outcomes_are_printed_and_exit_codes_say_them(stage: Any, site: Any) -> None:
    await site.start(workers=2)
    before = site.children()
    dry = await reflexctl(stage, "gunicorn.recycle_worker", "--service", site.name, "--worker", "1", "--dry-run")
    assert (dry[0], "send SIGTTIN" in dry[1]) == (0, True), dry
    assert site.children() == before
    code, out, _ = await reflexctl(stage, "gunicorn.scale", "--service", site.name, "--param", "by=1")
    assert (code, "done in" in out) == (0, True)
    assert len(site.children()) == 3
    code, out, errors = await reflexctl(stage, "gunicorn.scale", "--service", site.name, "--param", "by=none")
    assert (code, "refused: by must be a whole number, not" in out) == (5, True), (out, errors)
    assert (await reflexctl(stage, "gunicorn.scale", "--service", "no-such"))[0] == 1
    assert (await reflexctl(stage, "gunicorn.scale", "--service", site.name, "--worker", "77"))[0] == 1


async def test_commands_come_again_after_the_server_was_away(stage: Any, site: Any) -> None:
    await site.start(workers=2)
    port = int(stage.url.rpartition(":")[2])
    stage.server.kill()
    await stage.server.wait()
    await stage.start_server(port)
    assert (await site.act("gunicorn.scale", params={"to": 3}))["kind"] == "action.done"
    assert len(site.children()) == 3
