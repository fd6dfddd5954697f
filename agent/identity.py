"""Where a process belongs by its cgroup: a systemd unit, a container. Pure.

Paths look like `/system.slice/shop.service`, `/system.slice/docker-<id>.scope`, `/docker/<id>` (without systemd),
`/kubepods.slice/kubepods-pod<uid>.slice/cri-containerd-<id>.scope`, `/lxc.payload.web1/system.slice/shop.service`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SHORT_ID_CHARS = 12
_CONTAINER_SCOPE = re.compile(r"(?:docker|libpod|cri-containerd|crio|containerd|podman)-(?P<id>[0-9a-f]{64})\.scope")
_CONTAINER_FOLDER = re.compile(r"(?P<id>[0-9a-f]{64})")
_LXC = re.compile(r"(?:lxc\.payload\.|lxc/)(?P<name>[^/]+)")
_UNIT = re.compile(r"[^/]+\.service")


@dataclass(frozen=True, slots=True)
class Home:
    """A systemd unit such as `shop.service`, and a container's short id or name; empty where there is none."""

    unit: str = ""
    container: str = ""

    @property
    def words(self) -> str:
        """How a sentence says it; empty when there is nothing to say."""
        parts = [f"unit {self.unit}"] if self.unit else []
        return ", ".join([*parts, f"container {self.container}"] if self.container else parts)


def home_of(cgroup: str) -> Home:
    """The innermost unit and container that the path names. A unit that only runs the containers is not theirs."""
    unit = container = ""
    for part in cgroup.strip("/").split("/"):
        found = _CONTAINER_SCOPE.fullmatch(part) or _CONTAINER_FOLDER.fullmatch(part)
        if found is not None:
            unit, container = "", found["id"][:SHORT_ID_CHARS]
        elif _UNIT.fullmatch(part):
            unit = part
    lxc = _LXC.search(cgroup)
    if lxc is not None and not container:
        container = lxc["name"]
    return Home(unit, container)
