"""A runner of its own, and a folder for the app of its policy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.release.hired import Runner

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that everybody can go through."""
    folder = Path("/tmp") / f"reflex-test-runner-{os.getpid()}"
    folder.mkdir(mode=0o755)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture
def runner(home: Path) -> Iterator[Runner]:
    """A runner of its own whose policy knows one app."""
    policy, path = home / "policy.toml", home / "runner.sock"
    policy.write_text(f'[apps.shop]\nuser = "nobody"\nfolder = "{home}/shop"\n')
    command = [sys.executable, "-m", "agent", "runner", "--socket", str(path), "--policy-file", str(policy)]
    process = subprocess.Popen([*command, "--until-closed", "0"], stdin=subprocess.PIPE, cwd=ROOT)
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.02)
    yield Runner(path, "shop")
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0
