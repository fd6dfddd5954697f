"""Units and containers from cgroup paths, as systemd, Docker, Podman, Kubernetes and LXC lay them out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.identity import Home, home_of

ID = "4f0c" * 16
SHORT = ID[:12]


@pytest.mark.parametrize(
    ("cgroup", "home"),
    [
        ("/", Home()),
        ("", Home()),
        ("/system.slice/shop.service", Home(unit="shop.service")),
        ("/system.slice/system-shop.slice/shop@2.service", Home(unit="shop@2.service")),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service", Home(unit="shop.service")),
        ("/user.slice/user-1000.slice/session-3.scope", Home()),
        (f"/system.slice/docker-{ID}.scope", Home(container=SHORT)),
        (f"/docker/{ID}", Home(container=SHORT)),
        (f"/system.slice/docker.service/docker/{ID}", Home(container=SHORT)),
        (f"/machine.slice/libpod-{ID}.scope/container", Home(container=SHORT)),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope", Home(container=SHORT)),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1234.slice/cri-containerd-{ID}.scope",
            Home(container=SHORT),
        ),
        (f"/kubepods/besteffort/pod1234-5678/{ID}", Home(container=SHORT)),
        ("/lxc.payload.web1/system.slice/shop.service", Home(unit="shop.service", container="web1")),
        ("/lxc/web1", Home(container="web1")),
        (f"/system.slice/docker-{ID}.scope/system.slice/shop.service", Home(unit="shop.service", container=SHORT)),
    ],
)
def test_homes(cgroup: str, home: Home) -> None:
    assert home_of(cgroup) == home


def test_words_stand_alone_or_are_empty() -> None:
    assert Home().words == ""
    assert Home("shop.service", SHORT).words == f"unit shop.service, container {SHORT}"


@given(st.text())
def test_any_path_has_a_home(cgroup: str) -> None:
    home = home_of(cgroup)
    assert home.unit == "" or home.unit.endswith(".service")
