"""Secrets of a service stay on its host: what the agent reads of environments and arguments is not sent. Real parts only."""

from __future__ import annotations

import json
import os
import secrets
import signal
from dataclasses import replace
from typing import Any

import pytest

from demo.stage import ShopOptions, Stage

SHOP = ShopOptions(workers=2, import_s=0)


async def test_nothing_of_environment_and_arguments_is_sent(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    by_environment, by_argument, by_default = (f"hush{secrets.token_hex(12)}" for _ in range(3))
    monkeypatch.setenv("DATABASE_URL", f"postgres://shop:{by_environment}@db/shop")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", f"--env TOKEN={by_default}")
    await stage.start_shop(replace(SHOP, extra=("--env", f"API_KEY={by_argument}")))
    (ready, *_) = await stage.events(kind="worker.ready", service=stage.service)
    os.kill(ready["worker"]["pid"], signal.SIGKILL)

    async def told() -> list[dict[str, Any]]:
        return await stage.events(kind="worker.exited", service=stage.service)

    (exited,) = await stage.until(told, "the death is not told")
    everything = {
        "timeline": json.dumps(await stage.events(limit="500")).encode(),
        "chain": json.dumps(await stage.get(f"/v1/chain/{exited['id']}")).encode(),
        "hosts": json.dumps(await stage.get("/v1/hosts")).encode(),
    }
    parts = [*(stage.folder / "agent").rglob("*"), stage.folder / "agent.log", stage.folder / "server.log"]
    everything |= {str(path): path.read_bytes() for path in parts if path.is_file()}
    assert stage.service.encode() in everything["hosts"]
    for place, content in everything.items():
        for secret in (by_environment, by_argument, by_default):
            assert secret.encode() not in content, place
