"""Which image a name means."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from images import find_image, newest_of_each_series, version_key

RELEASES = (
    "6.1.0-47-amd64",
    "6.1.0-56-amd64",
    "6.1.0-60-cloud-amd64",
    "6.1.0-60-rt-amd64",
    "6.12.117+deb12-amd64",
    "6.12.9+deb12-amd64",
    "6.8.0-31-generic",
)


@pytest.fixture
def boot(tmp_path: Path) -> Path:
    for release in RELEASES:
        (tmp_path / f"vmlinuz-{release}").touch()
        (tmp_path / f"config-{release}").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("6.1", "6.1.0-56-amd64"),
        ("6.12", "6.12.117+deb12-amd64"),
        ("6.1.0-47", "6.1.0-47-amd64"),
        ("6.1.0-60-cloud-amd64", "6.1.0-60-cloud-amd64"),
        ("6.8", "6.8.0-31-generic"),
        ("6", "6.12.117+deb12-amd64"),
    ],
)
def test_a_name_means_the_newest_that_fits(boot: Path, name: str, release: str) -> None:
    image = find_image(name, boot)
    assert image is not None
    assert (image.release, image.path.name) == (release, f"vmlinuz-{release}")


@pytest.mark.parametrize("name", ["6.2", "6.1.0-4", "6.1.0-6", "5", "amd64", "6.1.0-60"])
def test_a_name_that_fits_none(boot: Path, name: str) -> None:
    assert find_image(name, boot) is None


def test_every_series_oldest_first(boot: Path) -> None:
    assert newest_of_each_series(boot) == ["6.1", "6.8", "6.12"]


def test_numbers_are_compared_as_numbers() -> None:
    assert version_key("6.9.0-1") < version_key("6.12.0-1") < version_key("6.12.0-11")


def test_as_a_program(tmp_path: Path) -> None:
    program = Path(__file__).parents[2] / "packaging" / "kernels" / "images.py"
    asked = subprocess.run([sys.executable, program, "0.0"], capture_output=True, text=True, check=False)
    assert (asked.returncode, asked.stdout) == (1, "")
