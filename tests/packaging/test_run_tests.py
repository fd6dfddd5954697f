"""The program that runs in a VM, here on the host: every way in which a test can end is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from results import Outcome, Progress, Verdict, parse_lines

RUN_TESTS = Path(__file__).parents[2] / "packaging" / "kernels" / "in_vm" / "run_tests.py"
TESTS = """
import os, signal, time
import pytest

def test_that_passes(): pass
def test_that_fails():
    print("printed before")
    assert 1 == 2
def test_that_is_skipped(): pytest.skip("no such rung here")
@pytest.fixture
def broken(): raise RuntimeError("the set-up broke")
def test_whose_fixture_breaks(broken): pass
async def test_that_awaits(): pass
def test_that_hangs(): time.sleep(60)
"""
DEAF = """
import os, signal, time
def test_before(): pass
def test_that_is_deaf():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(60)
def test_behind(): pass
"""


def run(folder: Path, tests: str, *, limit_s: float = 2.0) -> tuple[Progress, str]:
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    (folder / "test_it.py").write_text(tests)
    lines = folder / "progress.jsonl"
    ran = subprocess.run(
        [sys.executable, str(RUN_TESTS), str(lines), str(limit_s), "test_it.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    progress = Progress()
    for line in parse_lines(lines.read_text()):
        progress.hear(line, 0.0)
    return progress, ran.stdout + ran.stderr


def test_every_way_to_end(tmp_path: Path) -> None:
    progress, _ = run(tmp_path, TESTS)
    ended = {test.name.removeprefix("test_it.py::"): test for test in progress.tests()}
    assert {name: test.outcome for name, test in ended.items()} == {
        "test_that_passes": Outcome.PASSED,
        "test_that_fails": Outcome.FAILED,
        "test_that_is_skipped": Outcome.SKIPPED,
        "test_whose_fixture_breaks": Outcome.FAILED,
        "test_that_awaits": Outcome.PASSED,
        "test_that_hangs": Outcome.FAILED,
    }
    assert "assert 1 == 2" in ended["test_that_fails"].why
    assert "printed before" in ended["test_that_fails"].why
    assert ended["test_that_is_skipped"].why == "no such rung here"
    assert "the set-up broke" in ended["test_whose_fixture_breaks"].why
    assert "took longer than its limit of 2 s" in ended["test_that_hangs"].why
    assert progress.finished
    assert progress.probes, "reflexd probes was asked"


def test_a_test_that_is_deaf_takes_pytest_with_it_and_shows_where_it_hung(tmp_path: Path) -> None:
    progress, output = run(tmp_path, DEAF)
    assert [test.outcome for test in progress.tests()] == [Outcome.PASSED, Outcome.CUT_OFF, Outcome.NOT_RUN]
    assert not progress.finished
    assert "in test_that_is_deaf" in output


def test_tests_that_cannot_be_loaded(tmp_path: Path) -> None:
    progress, _ = run(tmp_path, "import no_such_module\n")
    assert "no_such_module" in progress.collection_error
    assert progress.tests() == ()


def test_seconds_are_told(tmp_path: Path) -> None:
    progress, _ = run(tmp_path, "import time\ndef test_it(): time.sleep(0.2)\n")
    (test,) = progress.tests()
    assert isinstance(test, Verdict)
    assert 0.2 <= test.seconds < 5
