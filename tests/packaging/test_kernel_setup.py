"""What `test --kernels` sets up, and what CI makes of it: the functions of the scripts, with small programs in the place of apt."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEBIAN = """
apt-cache() {
    case $2 in
        linux-image-amd64) printf '%s\\n' linux-image-amd64 '  Depends: linux-image-6.1.0-56-amd64' ;;
        linux-image-6.12-amd64) printf '%s\\n' linux-image-6.12-amd64 '  Depends: linux-image-6.12.117+deb12-amd64' ;;
        *) return 100 ;;
    esac
}
"""
UBUNTU = """
apt-cache() {
    [[ $2 == linux-image-generic ]] || return 100
    printf '%s\\n' linux-image-generic '  Depends: linux-image-6.8.0-31-generic' '  Depends: linux-modules-extra-6.8.0-31-generic'
}
"""
# No image is in /boot, apt-get works, and nothing but 6.1 can be had.
NO_IMAGE = "image_release() { false; }; need_room() { :; }; fetch_package_lists() { :; }; is_root() { true; }; "


def call(script: str, root: Path) -> subprocess.CompletedProcess[str]:
    """Runs functions of the scripts with `root` as the tree."""
    parts = "".join(
        f"source {ROOT}/packaging/bash/{name}.sh;" for name in ("say", "step", "machine", "setup", "kernels")
    )
    program = f"set -euo pipefail; ROOT={root}; cd {root}; {parts}\n{script}"
    return subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("apt", "name", "package"),
    [
        (DEBIAN, "6.1", "linux-image-6.1.0-56-amd64"),
        (DEBIAN, "6.12", "linux-image-6.12.117+deb12-amd64"),
        (DEBIAN, "6.11", ""),
        (DEBIAN, "6", "linux-image-6.1.0-56-amd64"),
        (UBUNTU, "6.8", "linux-image-6.8.0-31-generic"),
        (UBUNTU, "6.1", ""),
    ],
)
def test_the_package_of_a_kernel_has_its_full_name(tmp_path: Path, apt: str, name: str, package: str) -> None:
    assert call(f"{apt} kernel_package {name}", tmp_path).stdout.strip() == package


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kernel_package() { :; }; ", "6.99=/boot has no image of it and apt knows no package of it"),
        ("has_command() { false; }; ", "6.99=/boot has no image of it and this distribution has no apt-get"),
        (
            "kernel_package() { echo linux-image-6.99; }; install_known_packages() { false; }; ",
            "6.99=the package linux-image-6.99 could not be installed; the log is .reflex/log/kernel-6.99.log",
        ),
    ],
)
def test_a_kernel_that_cannot_be_had_is_remembered_with_the_reason(tmp_path: Path, script: str, reason: str) -> None:
    told = call(
        f'{NO_IMAGE} {script} begin_setup; set_up_kernels 6.99; printf "%s\\n" "${{MISSING_KERNELS[@]}}"', tmp_path
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout == f"{reason}\n"


def test_a_kernel_that_is_there_asks_nobody(tmp_path: Path) -> None:
    told = call(
        "image_release() { echo 6.12.1; }; apt-get() { echo asked; }; begin_setup; set_up_kernels 6.12", tmp_path
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def test_headers_that_cannot_be_had_are_no_failure(tmp_path: Path) -> None:
    told = call(
        "image_release() { echo 0.0-none; }; fetch_package_lists() { :; }; install_known_packages() { false; };"
        " begin_setup; set_up_kernels 6.1",
        tmp_path,
    )
    assert told.returncode == 0
    assert "linux-headers-0.0-none here: the tests of BCC are skipped in the VM; all others run" in told.stderr


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (
            "uname() { echo aarch64; }; ",
            "boots x86_64 kernels and this is aarch64. What works without it: ./reflex test",
        ),
        ("has_command() { false; }; ", "has no apt-get; install what the list above names"),
    ],
)
def test_a_machine_that_cannot_emulate(tmp_path: Path, script: str, sentence: str) -> None:
    told = call(f"{script} set_up_emulator", tmp_path)
    assert told.returncode == 3
    assert sentence in told.stderr


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ("kernels_to_boot 6.1,6.8", ["6.1", "6.8"]),
        ("kernels_to_boot ,6.1,", ["6.1"]),
        ("is_debian() { true; }; kernels_to_boot ''", ["6.1", "6.12"]),
        ("is_debian() { false; }; kernels_to_boot ''", []),
    ],
)
def test_which_kernels_are_asked_for(tmp_path: Path, script: str, names: list[str]) -> None:
    assert call(script, tmp_path).stdout.split() == names


@pytest.mark.parametrize(
    ("tests", "kernels", "code", "said"),
    [
        (0, 0, 0, "every kernel ran and passed"),
        (0, 1, 1, r"failed in a VM \(exit code 1\)"),
        (0, 3, 0, "ATTENTION: NOT EVERY KERNEL WAS TESTED"),
        (0, 4, 0, "ATTENTION: NOT EVERY KERNEL WAS TESTED"),
        (0, 130, 130, r"failed in a VM \(exit code 130\)"),
        (1, 0, 1, r"test failed \(exit code 1\)"),
        (4, 3, 4, r"test failed \(exit code 4\)"),
    ],
)
def test_ci_runs_both_and_fails_with_either(tmp_path: Path, tests: int, kernels: int, code: int, said: str) -> None:
    told = run_ci(tmp_path, f'echo "$@"; [[ $* == test ]] && exit {tests}; exit {kernels}')
    assert told.returncode == code
    assert re.search(said, told.stdout)
    assert re.search(r"^test$.*^test --kernels --until \d+$", told.stdout, re.M | re.S)


def test_ci_leaves_the_kernels_out_where_no_time_is_left(tmp_path: Path) -> None:
    told = run_ci(tmp_path, "[[ $* == test ]] || exit 1", spent_s=80 * 60)
    assert told.returncode == 0
    assert "ATTENTION: NOT EVERY KERNEL WAS TESTED" in told.stdout
    assert re.search(r"of 90 minutes [67] are left, and other kernels need 10", told.stderr)


@pytest.mark.parametrize(
    ("steps", "extras", "there"),
    [
        (["server,dev"], "server", True),
        (["server,dev"], "dev", True),
        (["server,dev"], "dev,kernels", False),
        (["server,dev", "dev,kernels"], "server,kernels", True),
        (["server"], "server,dev", False),
        ([], "server", False),
    ],
)
def test_extras_of_earlier_steps_are_not_installed_again(
    tmp_path: Path, steps: list[str], extras: str, there: bool
) -> None:
    done = tmp_path / ".reflex" / "done"
    done.mkdir(parents=True)
    for name in steps:
        (done / f"python-{name}").write_text("as now\n")
    (done / "python-kernels,dev").write_text("as before\n")
    (done / "bpf").write_text("as now\n")
    told = call(f"has_extras {extras} 'as now' && echo there || echo missing", tmp_path)
    assert told.stdout == ("there\n" if there else "missing\n")


def run_ci(folder: Path, reflex: str, *, spent_s: int = 0) -> subprocess.CompletedProcess[str]:
    """`.ci/run` with `reflex` as the body of ./reflex, after `spent_s` seconds."""
    (folder / ".ci").mkdir()
    shutil.copy2(ROOT / ".ci" / "run", folder / ".ci" / "run")
    body = f"#!/usr/bin/env bash\n{reflex}\n"
    (folder / "reflex").write_text(body)
    (folder / "reflex").chmod(0o755)
    return subprocess.run(
        [folder / ".ci" / "run"],
        env={**os.environ, "SECONDS": str(spent_s)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
