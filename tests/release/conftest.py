"""A real runner whose policy knows one app."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.release.hired import Runner

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "packaging" / "systemd" / "reflexd-runner.service"


def is_listening(path: Path) -> bool:
    """Whether somebody takes connections there: the file is there a moment before."""
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(str(path)) == 0


def bounded() -> list[str]:
    """Runs a program with the capabilities that the runner's unit has; as it is for who is not root."""
    (given,) = re.findall(r"^CapabilityBoundingSet=(.+)$", UNIT.read_text(), re.M)
    kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in given.split())
    return ["setpriv", f"--bounding-set=-all,{kept}", "--inh-caps=-all"] if os.geteuid() == 0 else []


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that everybody can go through."""
    folder = Path("/tmp") / f"reflex-test-runner-{os.getpid()}"
    folder.mkdir(mode=0o755)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture
def runner(home: Path) -> Iterator[Runner]:
    """A runner of its own whose policy knows one app. It may do what its systemd unit lets it do, and no more."""
    policy, path = home / "policy.toml", home / "runner.sock"
    policy.write_text(f'[apps.shop]\nuser = "nobody"\nfolder = "{home}/shop"\n')
    command = [sys.executable, "-m", "agent", "runner", "--socket", str(path), "--policy-file", str(policy)]
    process = subprocess.Popen([*bounded(), *command, "--until-closed", "0"], stdin=subprocess.PIPE, cwd=ROOT)
    while not is_listening(path):
        assert process.poll() is None
        time.sleep(0.02)
    yield Runner(path, "shop")
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0
