"""Which capabilities last, by the means of the ladder: pure decisions. tests/kernel/test_privilege.py has the real ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.kernel.capabilities import Capability
from agent.kernel.ladder import Means
from agent.privilege import NEEDS, lasting

ALWAYS = {Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH, Capability.KILL}
EVERYTHING = frozenset(Capability)


def kept(*means: Means, had: frozenset[Capability] = EVERYTHING, maps: bool = False) -> set[Capability]:
    return {need.capability for need in lasting(frozenset(means), had, maps_need_capability=maps)}


@pytest.mark.parametrize(
    ("means", "more"),
    [
        (("tp_btf", "fentry", "iterator"), set()),
        (("kprobe", "psutil"), set()),
        (("tp_btf", "diag"), {Capability.SYS_ADMIN}),
        (("netlink", "counters"), {Capability.NET_ADMIN}),
        (("scan", "off"), set()),
    ],
)
def test_what_lasts_follows_from_the_means(means: tuple[Means, ...], more: set[Capability]) -> None:
    assert kept(*means) == ALWAYS | more


def test_cap_bpf_lasts_where_maps_are_closed_without_it() -> None:
    assert kept("tp_btf", maps=True) == ALWAYS | {Capability.BPF}
    assert kept("scan", maps=True) == ALWAYS


def test_cap_sys_admin_stands_in_for_cap_bpf_where_it_alone_was_given() -> None:
    old = frozenset({Capability.SYS_ADMIN, *ALWAYS})
    assert kept("bcc", had=old, maps=True) == old
    assert kept("bcc", had=old, maps=False) == ALWAYS


def test_every_need_says_what_does_not_work_without_it() -> None:
    for need in NEEDS:
        assert need.part
        assert not need.without.endswith(".")


def test_the_page_has_every_need() -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    for need in NEEDS:
        row = rf"\| `{need.capability}` \| {re.escape(need.part)} \| (?P<kept>[^|]+) \| {re.escape(need.without)} \|"
        found = re.search(row, page)
        assert found is not None, need
        assert (found["kept"] == "until it hears the kernel") == (need.until == "attached")
    assert page.count("| `CAP_") == len(NEEDS)


def test_the_unit_is_bound_to_the_table() -> None:
    """systemd sets score and limit itself; CAP_SYS_ADMIN is for those who ask for it, with the drop-in of the page."""
    unit = (Path(__file__).parents[2] / "packaging" / "systemd" / "reflexd.service").read_text()
    (given,) = re.findall(r"^CapabilityBoundingSet=(.+)$", unit, re.M)
    by_others = {Capability.SYS_RESOURCE, Capability.SYS_ADMIN}
    assert set(given.split()) == {str(need.capability) for need in NEEDS if need.capability not in by_others}
