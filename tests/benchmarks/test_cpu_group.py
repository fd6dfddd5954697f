from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cpu_group import CpuGroup, group_parent, parse_cpu_ns, parse_smaps_rollup

UNIFIED = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime,nsdelegate 0 0\n"
HYBRID = """\
tmpfs /sys/fs/cgroup tmpfs rw,relatime,mode=755 0 0
cgroup /sys/fs/cgroup/cpuacct cgroup rw,relatime,cpuacct 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
"""
VERSION_1 = """\
cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
"""


@pytest.mark.parametrize(
    ("mounts", "parent"),
    [
        (UNIFIED, "/sys/fs/cgroup"),
        (HYBRID, "/sys/fs/cgroup/unified"),
        (VERSION_1, "/sys/fs/cgroup/cpu,cpuacct"),
    ],
)
def test_groups_are_made_where_cpu_time_is_counted(mounts: str, parent: str) -> None:
    assert group_parent(mounts) == Path(parent)


def test_a_host_that_counts_none_has_no_place_for_groups() -> None:
    assert group_parent("proc /proc proc rw 0 0\n") is None


def test_cpu_time_of_version_2() -> None:
    assert parse_cpu_ns("usage_usec 2500\nuser_usec 2000\nsystem_usec 500\n") == 2_500_000
    with pytest.raises(ValueError, match="no usage_usec"):
        parse_cpu_ns("")


def test_cpu_time_of_either_version(tmp_path: Path) -> None:
    group = CpuGroup(tmp_path)
    (tmp_path / "cpu.stat").write_text("usage_usec 7\n")
    assert group.cpu_ns() == 7000
    (tmp_path / "cpuacct.usage").write_text("1234\n")
    assert group.cpu_ns() == 1234


def test_resident_memory_and_its_share() -> None:
    text = "55d0-7ffe ---p 00000000 00:00 0    [rollup]\nRss:      2048 kB\nPss:      1024 kB\nPss_Dirty: 12 kB\n"
    assert parse_smaps_rollup(text) == (2048 * 1024, 1024 * 1024)
