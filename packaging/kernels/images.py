"""Which kernels in /boot fit a name: `6.12` is its newest ordinary one, a whole release names exactly one.

As a program, for the scripts: `images.py NAME` prints the release, or ends with 1 where there is none.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

BOOT = Path("/boot")
_PREFIX = "vmlinuz-"
# Builds for special machines; they are booted only when named exactly.
_SPECIAL = re.compile(r"cloud|rt|realtime|lowlatency|dbg|kdump|rescue|recovery")


@dataclass(frozen=True, slots=True)
class Image:
    """A bootable kernel; `release` is what `uname -r` says in it."""

    release: str
    path: Path


def find_image(name: str, boot: Path = BOOT) -> Image | None:
    """The image of exactly this release, else the newest ordinary one whose version begins with `name`."""
    images = [Image(path.name.removeprefix(_PREFIX), path) for path in boot.glob(f"{_PREFIX}*")]
    fitting = [image for image in images if _fits(name, image.release)]
    return max(fitting, key=lambda image: (image.release == name, version_key(image.release)), default=None)


def newest_of_each_series(boot: Path = BOOT) -> list[str]:
    """`6.1`, `6.12`, …: every series of which there is an ordinary image, oldest first."""
    releases = [path.name.removeprefix(_PREFIX) for path in boot.glob(f"{_PREFIX}*")]
    found = {match[0] for release in releases if (match := re.match(r"\d+\.\d+", release)) and not _is_special(release)}
    return sorted(found, key=version_key)


def version_key(release: str) -> tuple[int, ...]:
    """The numbers of a release, for comparing: 6.9 is older than 6.12, 6.1.0-47 than 6.1.0-56."""
    return tuple(int(number) for number in re.findall(r"\d+", release))


def _fits(name: str, release: str) -> bool:
    if release == name:
        return True
    return re.match(rf"{re.escape(name)}(?!\d)", release) is not None and not _is_special(release)


def _is_special(release: str) -> bool:
    return any(_SPECIAL.fullmatch(word) for word in re.split(r"[-+.]", release))


def _main(arguments: list[str]) -> int:
    image = find_image(arguments[0])
    if image is None:
        return 1
    print(image.release)
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
