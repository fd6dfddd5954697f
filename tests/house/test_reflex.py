"""The script `./reflex`: its help, its exit codes, and one clear sentence for each thing that a machine can lack."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

ROOT = Path(__file__).parents[2]
Run: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, or mounts: needs root")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
COMMANDS = ("up", "status", "down", "demo", "test", "bench", "setup", "help")


@pytest.fixture
def fresh() -> Iterator[Path]:
    """The script in a folder that everybody may read and where nothing was set up."""
    folder = Path(tempfile.mkdtemp(prefix="reflex-house-"))
    folder.chmod(0o755)
    (folder / "agent").mkdir()
    for name in ("reflex", "setup.cfg", "pyproject.toml", "README.md", "agent/__init__.py"):
        shutil.copy2(ROOT / name, folder / name)
    shutil.copytree(ROOT / "packaging", folder / "packaging", ignore=shutil.ignore_patterns("__pycache__"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def reflex(fresh: Path) -> Run:
    """Runs the fresh script; `before` is put in front of it, `env` into its environment."""

    def run(*arguments: str, before: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REFLEX_")} | env
        command = [*before, str(fresh / "reflex"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)

    return run


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",), ("-h",), ("up", "--help"), ("setup", "-h")])
def test_help_names_every_command_and_exit_code(reflex: Run, arguments: tuple[str, ...]) -> None:
    shown = reflex(*arguments)
    assert shown.returncode == 0
    assert shown.stderr == ""
    assert [name for name in COMMANDS if not re.search(rf"^  {name} ", shown.stdout, re.M)] == []
    assert [code for code in range(6) if not re.search(rf"\b{code}  ", shown.stdout)] == []
    assert "\x1b" not in shown.stdout


def test_help_fits_a_terminal(reflex: Run) -> None:
    assert max(map(len, reflex("help").stdout.splitlines())) <= 120


@pytest.mark.parametrize(
    "arguments", [("start",), ("--version",), ("bench",), ("setup", "now"), ("setup", "--dev", "x")]
)
def test_wrong_usage_is_2_with_one_sentence(reflex: Run, arguments: tuple[str, ...]) -> None:
    answer = reflex(*arguments)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert re.fullmatch(r"reflex: [^\n]+\n", answer.stderr)


def test_wrong_usage_sets_nothing_up(reflex: Run, fresh: Path) -> None:
    reflex("start")
    reflex("bench")
    assert not (fresh / ".reflex").exists()


@needs_root
@pytest.mark.parametrize("command", ["demo", "bench latency"])
def test_what_needs_root_says_so_before_it_sets_anything_up(reflex: Run, fresh: Path, command: str) -> None:
    answer = reflex(*command.split(), before=NOBODY)
    assert answer.returncode == 3
    name = command.split(maxsplit=1)[0]
    assert re.fullmatch(
        rf"reflex: not root: [^\n]+; run: sudo ./reflex {name}. What works without [^\n]+\n", answer.stderr
    )
    assert not (fresh / ".venv").exists()


@needs_root
def test_a_folder_of_another_user(reflex: Run) -> None:
    answer = reflex("setup", before=NOBODY)
    assert answer.returncode == 3
    assert "cannot be written by this user" in answer.stderr


def test_status_and_down_where_nothing_was_set_up(reflex: Run) -> None:
    for command in ("status", "down"):
        answer = reflex(command)
        assert answer.returncode == 3
        assert "not set up" in answer.stderr


def test_a_python_that_is_named_and_is_none(reflex: Run) -> None:
    answer = reflex("setup", REFLEX_PYTHON="/bin/false")
    assert answer.returncode == 3
    assert "REFLEX_PYTHON names /bin/false" in answer.stderr


@needs_root
def test_no_network(reflex: Run) -> None:
    if subprocess.run(["unshare", "--net", "true"], check=False).returncode:
        pytest.skip("no network namespace can be made here")
    answer = reflex("setup", before=("unshare", "--net"), PIP_RETRIES="1", PIP_FIND_LINKS="", PIP_NO_CACHE_DIR="1")
    assert answer.returncode == 4
    assert re.search(
        r"reflex: the network did not answer while fetching (Python packages|packages of the)", answer.stderr
    )
    assert "\n    " in answer.stderr, "the log's last lines are shown"


@needs_root
def test_a_disk_that_is_nearly_full(fresh: Path) -> None:
    small = fresh / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        shutil.copy2(fresh / "reflex", small)
        shutil.copytree(fresh / "packaging", small / "packaging")
        answer = subprocess.run([small / "reflex", "setup"], capture_output=True, text=True, check=False)
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert answer.returncode == 3
    assert re.search(r"the disk of \S+ has \d+ MB left and the setup needs 3000 MB; make room", answer.stderr)


@pytest.mark.parametrize(
    ("call", "code", "sentence"),
    [
        ("need_known_machine Darwin arm64", 3, "watches Linux hosts and this is Darwin"),
        ("need_known_machine Linux riscv64", 3, "exists for x86_64 and aarch64 and this is riscv64"),
        ("need_known_machine Linux aarch64", 0, ""),
        ("need_room 2999", 3, "has 2999 MB left"),
        ("need_room 3000", 0, ""),
        ("uname() { echo x86_64; }; need_avx2 'the page' {empty}", 3, "no AVX2.*What works without it: the page"),
        ("uname() { echo aarch64; }; need_avx2 'the page' {empty}", 0, ""),
        (
            "warn_about_kernel {empty} 5.4.0-150-generic",
            0,
            "Linux 5.4.0-150-generic has no BPF ring buffer.*Server, page",
        ),
        ("warn_about_kernel {empty}.missing 6.1.0-9-amd64", 0, "describes no types.*Server, page"),
        ("warn_about_kernel {empty} 5.8.0", 0, ""),
        ("warn_about_kernel {empty} 5.10.0-21-amd64", 0, ""),
        ("warn_about_kernel {empty} 6.18.44-fc", 0, ""),
        ("has_command() { false; }; is_root() { false; }; set_up_packages", 3, "has no apt-get; install what the list"),
        ("missing_packages() { echo make; }; is_root() { false; }; set_up_packages", 3, "sudo apt-get install make;"),
        ("is_root() { false; }; has_chromium() { false; }; set_up_browser", 0, "tests that open the page.*are skipped"),
        ("find_python() { return 1; }; set_up_python server", 3, "no Python 3.11 or newer here"),
    ],
)
def test_what_a_machine_can_lack(tmp_path: Path, call: str, code: int, sentence: str) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    answer = _call(call.replace("{empty}", str(empty)), tmp_path)
    assert answer.returncode == code, answer.stderr
    assert re.search(sentence, answer.stderr, re.S)
    assert bool(answer.stderr) == bool(sentence)


def test_a_step_is_done_once_for_the_same_inputs(tmp_path: Path) -> None:
    step = 'begin_setup; step name "$1" title "" bash -c "echo run >>ran"; end_setup'
    for inputs in ("a", "a", "b", "b", "a"):
        assert _call(step, tmp_path, inputs).returncode == 0
    assert (tmp_path / "ran").read_text() == "run\n" * 3


def test_a_step_that_fails_shows_its_last_lines_and_is_run_again(tmp_path: Path) -> None:
    step = 'begin_setup; step name a "the work" "" bash -c "seq 100; echo told why >&2; exit 9"'
    for _ in range(2):
        answer = _call(step, tmp_path)
        assert answer.returncode == 4
        assert "    told why\n" in answer.stderr
        assert "    50\n" not in answer.stderr
        assert (
            "reflex: 'the work' failed; the lines above say why, the whole log is .reflex/log/name.log" in answer.stderr
        )
    assert "1\n2\n" in (tmp_path / ".reflex/log/name.log").read_text()


def test_a_function_as_a_step_stops_at_its_first_error(tmp_path: Path) -> None:
    step = 'two() { false; echo went on >>ran; }; begin_setup; step name a title "" two'
    assert _call(step, tmp_path).returncode == 4
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_in_the_middle(tmp_path: Path) -> None:
    step = 'begin_setup; step name a title "packages" bash -c "echo write: No space left on device; exit 1"'
    assert "reflex: the disk is full; make room" in _call(step, tmp_path).stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_step_that_is_interrupted_ends_with_all_its_children(tmp_path: Path, number: int, code: int) -> None:
    work = 'bash -c "sleep 300 & echo \\$! >child; wait"'
    program = _program(f'begin_setup; step name a title "" {work}', tmp_path)
    # A test run that was put into the background ignores SIGINT, and bash would inherit that for good.
    process = subprocess.Popen(["env", "--default-signal=INT", *program], stderr=subprocess.PIPE)
    child = tmp_path / "child"
    deadline = time.monotonic() + 20
    while not (child.exists() and child.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    sleeper = os.pidfd_open(int(child.read_text()))
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == code
    assert select.select([sleeper], [], [], 10)[0], "the child of the step still runs"
    os.close(sleeper)
    assert not (tmp_path / ".reflex" / "done" / "name").exists()


def test_the_script_passes_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    scripts = [ROOT / "reflex", ROOT / ".ci" / "run", *sorted((ROOT / "packaging" / "bash").glob("*.sh"))]
    subprocess.run(["shellcheck", "-x", *scripts], cwd=ROOT, check=True)


def test_the_scripts_can_be_executed() -> None:
    for script in ("reflex", ".ci/run"):
        assert (ROOT / script).stat().st_mode & stat.S_IXUSR


def _call(call: str, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Calls functions of the script with `root` as the tree."""
    return subprocess.run(_program(call, root, *arguments), capture_output=True, text=True, check=False, timeout=60)


def _program(call: str, root: Path, *arguments: str) -> list[str]:
    parts = " ".join(f"source {ROOT}/packaging/bash/{name}.sh;" for name in ("say", "step", "machine", "setup"))
    return ["bash", "-c", f"set -euo pipefail; ROOT={root}; cd {root}; {parts} {call}", "bash", *arguments]
