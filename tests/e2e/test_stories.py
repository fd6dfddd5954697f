"""The demo's stories, played once each as users play them."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.procfs import ProcFs
from demo.__main__ import STORIES
from demo.deploying import DeployOptions
from demo.queue_of_jobs import JobsOptions
from demo.stage import ROOT, StageError, demo_python

PLAYED_WITHIN_S = 400
STARTED_WITHIN_S = 30


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the demo loads BPF programs and makes a memory cgroup")
@pytest.mark.timeout(PLAYED_WITHIN_S + 30)
@pytest.mark.parametrize("story", STORIES)
def test_every_link_of_the_story_is_there(story: str) -> None:
    try:
        demo_python()
    except StageError as error:
        pytest.skip(str(error))
    options = importlib.import_module(f"demo.stories.{story.replace('-', '_')}").OPTIONS
    needs_broker = isinstance(options, JobsOptions | DeployOptions)
    if needs_broker and shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: ./reflex setup --dev installs it")
    played = subprocess.run(
        [sys.executable, "-m", "demo", story, "--once", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PLAYED_WITHIN_S,
    )
    assert played.returncode == 0, played.stderr + played.stdout
    result = json.loads(played.stdout)
    assert result["ok"]
    if isinstance(options, DeployOptions):
        assert result["traffic"]["v2, good"]["requests"] >= 10_000
        assert sum(one["failed"] for one in result["traffic"].values()) == 0
        assert result["tasks"]["ran_once"] == result["tasks"]["sent"] > 100
        return
    assert result["chain"]["root"] == result["chain"]["events"][0]["id"]
    assert result["chain"]["missing"] == []
    assert len(result["chain"]["links"]) >= len(result["links"]) - 1
    if story == "repair-leak":
        alone, repaired = result["traffic"]["without the playbook"], result["traffic"]["with it"]
        assert alone["oom_kills"] >= 1
        assert repaired["requests"] >= 5_000
        assert (repaired["failed"], repaired["oom_kills"]) == (0, 0)
    else:
        assert result["traffic"]["requests"] > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the demo loads BPF programs and makes a memory cgroup")
def test_sigterm_leaves_nothing_behind() -> None:
    try:
        demo_python()
    except StageError as error:
        pytest.skip(str(error))
    playing = subprocess.Popen([sys.executable, "-m", "demo", "oom"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert playing.stdout is not None
    for line in playing.stdout:
        if "#token=" in line:
            break
    procfs = ProcFs(Path("/proc"))
    until_s = time.monotonic() + STARTED_WITHIN_S
    while len(started := children(procfs, playing.pid)) < len(("server", "agent", "shop")):
        assert time.monotonic() < until_s, started
        time.sleep(0.05)
    playing.terminate()
    playing.wait(30)
    assert playing.returncode == 130
    assert [pid for pid in started if procfs.start_ticks(pid) is not None] == []


def children(procfs: ProcFs, parent: int) -> list[int]:
    """Pids of the processes that it started."""
    return [pid for pid in procfs.pids() if procfs.parent_pid(pid) == parent]
