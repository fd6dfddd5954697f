"""What may not be in the tree: secrets, names of registries, paths of one person's machine, and files that tools make."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Written in pieces, so that this file does not hold what it looks for.
REGISTRIES = ("py" + "pi.org", "python" + "hosted.org", "registry.npm" + "js.org", "deb.deb" + "ian.org")
FORBIDDEN = {
    "the host name of a package registry": "|".join(re.escape(name) for name in REGISTRIES),
    "a token or key of Reflex": r"rfx_(op|host|session)_[A-Za-z0-9_-]{40,}",
    "a private key": "-----BEGIN [A-Z ]*" + "PRIVATE KEY-----",
    "a cloud or forge token": r"\b(AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|xox[abp]-[0-9A-Za-z-]{20,})\b",
    "somebody's home or working folder": r"(?<![\w.~/-])/(home/[a-z][\w.-]*/|Users/\w|root/|work/)",
}
MADE_BY_TOOLS = re.compile(
    r"(^|/)(__pycache__|node_modules|dist|build|\.venv|\.reflex|[^/]*\.egg-info)/|\.(pyc|o|so|whl)$"
)
LARGEST_BYTES = 2 * 1024 * 1024


def tracked() -> list[str]:
    """Paths in git; the script works in a tree of another owner too."""
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(command, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("this tree is no git clone")
    return [path for path in listed.stdout.decode().split("\0") if path and (ROOT / path).is_file()]


def findings(path: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        for what, pattern in FORBIDDEN.items():
            if re.search(pattern, line):
                yield f"{path}:{number} holds {what}"


def test_no_file_holds_a_secret_or_a_place_of_its_author() -> None:
    found = []
    for path in tracked():
        try:
            text = (ROOT / path).read_text()
        except UnicodeDecodeError:
            continue
        found += findings(path, text)
    assert found == []


def test_no_file_was_made_by_a_tool() -> None:
    assert [path for path in tracked() if MADE_BY_TOOLS.search(path)] == []


def test_no_file_is_large() -> None:
    assert [path for path in tracked() if (ROOT / path).stat().st_size > LARGEST_BYTES] == []


@pytest.mark.parametrize(
    "line",
    [
        f'"resolved": "https://{REGISTRIES[2]}/preact"',
        "token = 'rfx_op_" + "x" * 43 + "'",
        "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
        "key: AKIA" + "A" * 16,
        "cd /ho" + "me/ann/reflex",
        "see /wo" + "rk/main/x.py",
    ],
)
def test_what_may_not_be_there_is_found(line: str) -> None:
    assert len(list(findings("file", line))) == 1


@pytest.mark.parametrize("line", ["REFLEX_STATE=~/reflex", "https://docs.example/home/page", "rfx_op_…", "a/root/b"])
def test_what_may_be_there_is_not(line: str) -> None:
    assert list(findings("file", line)) == []
