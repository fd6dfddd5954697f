"""The wheel: built from a copy of the tree, it carries all that an installation needs, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".reflex", "node_modules", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "build", "tests"
)

pytestmark = [
    pytest.mark.skipif(find_spec("build") is None, reason="the package build is missing: ./reflex setup --dev"),
    pytest.mark.skipif(not (ROOT / "agent/kernel/reflex.bpf.o").exists(), reason="the BPF object is not built"),
    pytest.mark.skipif(not (ROOT / "server/web/dist/index.html").exists(), reason="the page is not built"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    tree = tmp_path_factory.mktemp("wheel") / "tree"
    shutil.copytree(ROOT, tree, ignore=NOT_COPIED)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tree.parent), str(tree)]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return zipfile.ZipFile(next(tree.parent.glob("*.whl")))


def test_the_wheel_carries_all_that_runs(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    needed = {"agent/kernel/reflex.bpf.o", "agent/kernel/reflex.bcc.c", "server/web/dist/index.html"}
    for pattern in ("agent/**/*.py", "server/**/*.py", "ctl/**/*.py", "playbooks/**/*.py"):
        needed |= {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern) if "node_modules" not in path.parts}
    for pattern in ("server/store/schema/*.sql", "server/web/dist/assets/*", "playbooks/library/*.yaml"):
        needed |= {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)}
    assert needed - names == set()


def test_the_wheel_carries_nothing_else(wheel: zipfile.ZipFile) -> None:
    allowed = ("agent/", "server/", "playbooks/", "ctl/", "reflexd-")
    names = wheel.namelist()
    assert [name for name in names if not name.startswith(allowed)] == []
    assert [name for name in names if name.startswith("server/web/") and not name.startswith("server/web/dist/")] == []


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    folder = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")).rpartition("/")[0]
    metadata = wheel.read(f"{folder}/METADATA").decode()
    assert "Name: reflexd\n" in metadata
    assert "License-Expression: Apache-2.0\n" in metadata
    assert "Requires-Python: >=3.11\n" in metadata
    scripts = wheel.read(f"{folder}/entry_points.txt").decode().split()
    assert {"reflexd", "reflex-server", "reflexctl"} <= set(scripts)
    licences = {name.removeprefix(folder) for name in wheel.namelist() if "/licenses/" in name}
    assert licences == {"/licenses/LICENSE", "/licenses/bpf/LICENSE"}
