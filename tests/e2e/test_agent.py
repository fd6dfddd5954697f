"""The agent as a process: without BPF, without a server, with a wrong key, with a second agent, and its clean stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.kernel.ladder import LADDERS
from demo.stage import ROOT, ShopOptions, Stage, end

SHOP = ShopOptions(workers=2, import_s=0)


async def _reflexd(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one run."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "agent",
        *arguments,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_without_bpf_it_watches_by_proc_and_says_what_it_cannot_see(stage: Stage) -> None:
    assert stage.agent is not None
    await end(stage.agent)
    by_scan = "fork=scan,exec=scan,exit=scan"
    await stage.start_agent("--bpf-object", "/does/not/exist", "--rungs", by_scan)

    async def all_told() -> list[dict[str, Any]]:
        told = await stage.events(kind="probe.degraded")
        return told if {event["attrs"]["signal"] for event in told} == set(LADDERS) else []

    degraded = await stage.until(all_told, "not every probe is told")
    oom = next(event for event in degraded if event["attrs"]["signal"] == "oom")
    assert "is not built" in oom["text"]
    assert "victim and allocator are not named" in oom["text"]

    await stage.start_shop(SHOP, wait_ready=False)
    victim = await stage.until(lambda: _a_worker(stage), "the scan finds no worker")
    os.kill(victim, signal.SIGKILL)

    async def dead() -> list[dict[str, Any]]:
        return [e for e in await stage.events(kind="worker.exited") if e["worker"]["pid"] == victim]

    (exited,) = await stage.until(dead, "the scan does not notice the death")
    assert exited["attrs"]["death"] == "unknown"
    assert "how it ended is not known" in exited["text"]

    async def replaced() -> bool:
        started = await stage.events(kind="worker.started")
        return any(event["cause"] == exited["id"] for event in started)

    await stage.until(replaced, "the scan does not find the replacement")


async def _a_worker(stage: Stage) -> int | None:
    for host in (await stage.get("/v1/hosts"))["hosts"]:
        for service in host["status"].get("services", []):
            if service["name"] == stage.service and len(service["workers"]) == SHOP.workers:
                pid: int = service["workers"][0]["pid"]
                return pid
    return None


async def test_the_status_names_services_workers_and_costs(stage: Stage) -> None:
    await stage.start_shop(SHOP)

    async def told() -> dict[str, Any] | None:
        status: dict[str, Any] = (await stage.get("/v1/hosts"))["hosts"][0]["status"]
        shop: dict[str, Any] = next(
            (s for s in status.get("services", []) if s["name"] == stage.service), {"workers": []}
        )
        all_ready = len(shop["workers"]) == SHOP.workers and {w["state"] for w in shop["workers"]} == {"ready"}
        return status if all_ready and status["rss_bytes"] else None

    status = await stage.until(told, "the status is not complete")
    (service,) = [service for service in status["services"] if service["name"] == stage.service]
    # Gunicorn 25 and newer listen on a control socket too, sometimes before the application's.
    assert any(listener.startswith("tcp 127.0.0.1:") for listener in service["listeners"])
    assert [worker["slot"] for worker in service["workers"]] == [0, 1]
    assert {probe["state"] for probe in status["probes"]} <= {"attached", "degraded", "off"}
    assert 10 * 2**20 < status["rss_bytes"] < 100 * 2**20


@pytest.mark.parametrize("wrong", ["no key", "no address", "no table"])
async def test_what_a_person_has_to_mend_ends_the_agent_for_good(tmp_path: Path, wrong: str) -> None:
    """Exit code 2 keeps systemd from starting it again."""
    key, services = tmp_path / "key", tmp_path / "services.toml"
    key.write_text("rfx_host_" + 43 * "0")
    key.chmod(0o644 if wrong == "no key" else 0o600)
    services.write_text("service = 1" if wrong == "no table" else "")
    options = ["--host-key-file", str(key), "--services-file", str(services), "--state-dir", str(tmp_path / "state")]
    options += ["--server-url", "ftp://127.0.0.1" if wrong == "no address" else "http://127.0.0.1:9"]
    code, _, errors = await _reflexd("run", *options)
    assert code == 2, errors
    assert errors.startswith("reflexd: ")


async def test_a_clean_stop_is_told_and_a_second_agent_is_refused(stage: Stage) -> None:
    state = str(stage.folder / "agent")
    key = str(stage.folder / "host-key")
    code, _, errors = await _reflexd("run", "--server-url", stage.url, "--host-key-file", key, "--state-dir", state)
    assert code == 3
    assert "in use by another agent" in errors
    assert stage.agent is not None
    await end(stage.agent)
    assert stage.agent.returncode == 0

    async def stopped() -> bool:
        return bool(await stage.events(kind="agent.stopped"))

    await stage.until(stopped, "the stop is not told")


async def test_wrong_settings_are_named(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    key.chmod(0o644)
    code, _, errors = await _reflexd("run", "--host-key-file", str(key), "--state-dir", str(tmp_path))
    assert (code, "chmod 600" in errors, "secret" in errors) == (2, True, False)
    key.chmod(0o600)
    code, _, errors = await _reflexd("run", "--host-key-file", str(key), "--server-url", "http://192.0.2.1")
    assert (code, "unencrypted" in errors) == (2, True)
    code, _, errors = await _reflexd("run", "--log-level", "loud")
    assert (code, "log_level must be one of" in errors) == (2, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: BPF programs can be loaded by root only")
async def test_probes_as_json() -> None:
    code, output, _ = await _reflexd("probes", "--json")
    probes = json.loads(output)
    assert [probe["signal"] for probe in probes] == list(LADDERS)
    assert code == (0 if all(probe["state"] == "attached" for probe in probes) else 1)
