"""OOM kills by counts: what rose where, what was counted and not told, and who it most likely was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.counters import Balance, Counted, rise
from agent.oom_check import OomCheck
from agent.oom_counting import OomCounting
from agent.oom_counts import CountReader
from agent.procfs import MemoryCgroups, OomCount, ProcFs
from agent.service import Service
from agent.slots import Slots
from agent.wire import Event, Evidence, uuid7

SECOND_US = 1_000_000
START_US = 1_700_000_000 * SECOND_US


def counted(kills: int, cgroups: Mapping[str, int], *, nested: bool = False, at_us: int = START_US) -> Counted:
    return Counted(at_us, kills, 0, cgroups, nested)


def test_a_rise_is_placed_in_its_cgroup_and_the_rest_is_elsewhere() -> None:
    risen = rise(counted(10, {"/web": 1, "/jobs": 4}), counted(16, {"/web": 3, "/jobs": 4}))
    assert (risen.cgroups, risen.elsewhere) == ({"/web": 2}, 4)


def test_counts_of_version_2_have_those_below_in_them() -> None:
    before = counted(0, {"/web": 0, "/web/a": 0, "/web/a/b": 0, "/webber": 0}, nested=True)
    after = counted(4, {"/web": 3, "/web/a": 2, "/web/a/b": 1, "/webber": 1}, nested=True)
    risen = rise(before, after)
    assert risen.cgroups == {"/web": 1, "/web/a": 1, "/web/a/b": 1, "/webber": 1}
    assert risen.elsewhere == 0


def test_a_cgroup_that_comes_goes_or_is_made_anew() -> None:
    assert rise(counted(1, {}), counted(2, {"/new": 7})).cgroups == {}
    assert rise(counted(1, {}), counted(2, {"/new": 7})).elsewhere == 1
    assert rise(counted(1, {"/old": 1}), counted(2, {})).elsewhere == 1
    assert rise(counted(5, {"/again": 5}), counted(6, {"/again": 1})).cgroups == {"/again": 1}


def test_a_difference_counts_when_it_is_found_twice() -> None:
    balance = Balance(10, 0, START_US)
    assert balance.compare(11, 0, START_US + 1) is None
    found = balance.compare(11, 0, START_US + 2)
    assert found is not None
    assert (found.counted, found.told, found.missing, found.since_us) == (1, 0, 1, START_US)
    assert balance.compare(11, 0, START_US + 3) is None
    assert balance.compare(12, 1, START_US + 4) is None


def test_kills_that_are_told_late_are_no_difference() -> None:
    balance = Balance(0, 0, START_US)
    for second in range(1, 20):
        assert balance.compare(second, second - 1, START_US + second) is None
        assert balance.is_open
    assert balance.compare(19, 19, START_US) is None
    assert not balance.is_open


def test_a_surplus_does_not_hide_a_later_lack() -> None:
    """The kernel marks processes that are ending anyway, and kills none."""
    balance = Balance(0, 0, START_US)
    assert balance.compare(0, 2, START_US) is None
    surplus = balance.compare(0, 2, START_US)
    assert surplus is not None
    assert surplus.missing == -2
    assert balance.compare(1, 2, START_US) is None
    lack = balance.compare(1, 2, START_US)
    assert lack is not None
    assert (lack.counted, lack.told, lack.missing) == (1, 0, 1)


def test_what_is_counted_later_waits_for_its_own_second_look() -> None:
    balance = Balance(0, 0, START_US)
    assert balance.compare(1, 0, START_US) is None
    first = balance.compare(3, 0, START_US)
    assert first is not None
    assert (first.counted, first.told, first.missing) == (1, 0, 1)
    assert balance.is_open
    second = balance.compare(3, 1, START_US)
    assert second is not None
    assert (second.counted, second.told, second.missing) == (2, 1, 1)
    assert not balance.is_open


# With files as the kernel has them.


class Host:
    """A tree with the counters of a host, whose clock stands until it is moved."""

    def __init__(self, root: Path, version: int = 2) -> None:
        self.version = version
        self.now_us = START_US
        self.services: list[Service] = []
        self._proc, self._cgroups = root / "proc", root / "cg roups"
        (self._proc / "self").mkdir(parents=True)
        self._cgroups.mkdir()
        kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,memory"
        where = str(self._cgroups).replace(" ", "\\040")
        lines = f"21 1 0:1 / /proc rw - proc proc rw\n31 21 0:28 / {where} rw,relatime shared:9 - {kind}\n"
        (self._proc / "self" / "mountinfo").write_text(lines)
        self.kills(100)
        self.procfs = ProcFs(self._proc)

    def kills(self, number: int) -> None:
        (self._proc / "vmstat").write_text(f"nr_free_pages 1\noom_kill_something 9\noom_kill {number}\n")

    def cgroup(self, path: str, kills: int, group_kills: int = 0) -> None:
        folder = self._cgroups / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        if self.version == 2:
            text = f"low 0\noom 1\noom_kill {kills}\noom_group_kill {group_kills}\n"
            (folder / "memory.events").write_text(text)
        else:
            (folder / "memory.oom_control").write_text(f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n")

    def service(self, name: str, cgroup: str) -> Service:
        self.services.append(Service(name, "gunicorn", 100 + len(self.services), 1, None, cgroup, Slots()))
        return self.services[-1]

    def reader(self) -> CountReader:
        return CountReader(self.procfs, lambda: self.services, lambda: self.now_us)


@pytest.fixture(params=[1, 2])
def host(request: Any, tmp_path: Path) -> Host:
    return Host(tmp_path, request.param)


@pytest.fixture
def host2(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_counts_are_read_in_both_versions(host: Host) -> None:
    host.cgroup("/web/shop", 3, group_kills=1)
    cgroups = host.procfs.memory_cgroups()
    assert isinstance(cgroups, MemoryCgroups)
    assert cgroups.version == host.version
    assert host.procfs.oom_kills() == 100
    assert cgroups.oom_count("/web/shop") == OomCount(3, 1 if host.version == 2 else 0)
    assert cgroups.oom_count("/web/gone") is None
    assert cgroups.owner("/web/shop/inner/most") == "/web/shop"
    assert cgroups.owner("/elsewhere") is None
    assert cgroups.owner("/") is None
    assert cgroups.owner("") is None
    assert cgroups.owner("/../outside") is None


def test_a_file_system_that_is_mounted_from_a_cgroup_on(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "memory.events").write_text("oom_kill 5\n")
    cgroups = MemoryCgroups(tmp_path, "/outer", 2)
    assert cgroups.oom_count("/outer/inner") == OomCount(5)
    assert cgroups.oom_count("/outerinner") is None
    assert cgroups.owner("/other/inner") is None


def test_a_host_without_counters(tmp_path: Path) -> None:
    procfs = ProcFs(tmp_path)
    assert procfs.oom_kills() is None
    assert procfs.memory_cgroups() is None
    assert CountReader(procfs, lambda: (), lambda: START_US).read() is None


def test_this_very_host_counts() -> None:
    procfs = ProcFs()
    assert procfs.oom_kills() is not None
    cgroups = procfs.memory_cgroups()
    assert cgroups is None or isinstance(cgroups.group_kills(), dict)


# What is told when counts are all there is.


def death(kind: str, service: str, certificate: str, at_us: int, cause: str | None = None) -> Event:
    text = f"Something of {service} ended."
    return Event(uuid7(at_us, 1), at_us, kind, "warning", text, service, cause=cause, attrs={"death": certificate})


def counting(host: Host) -> tuple[OomCounting, list[Event]]:
    told: list[Event] = []
    return OomCounting(host.reader(), told.extend, "web-1"), told


def test_a_counted_kill_is_told_and_names_nobody(host: Host) -> None:
    host.cgroup("/web/shop", 0)
    host.service("shop", "/web/shop")
    beat, told = counting(host)
    host.now_us += SECOND_US
    host.cgroup("/web/shop", 2)
    host.kills(102)
    beat.finish()
    beat.finish()
    (event,) = told
    assert event.text == (
        "The kernel's OOM killer killed 2 processes in memory cgroup /web/shop, where shop runs; "
        "a counter does not say which ones."
    )
    counter = "memory.events" if host.version == 2 else "memory.oom_control"
    assert event.attrs == {"counted_by": counter, "kills": 2, "cgroup": "/web/shop"}
    assert event.evidence == (Evidence(counter, "oom_kill rose by 2 within 1.00 s"),)
    assert (event.kind, event.service, event.worker) == ("process.oom_killed", "shop", None)


def test_a_kill_elsewhere_is_told_of_the_host(host: Host) -> None:
    beat, told = counting(host)
    host.kills(101)
    beat.finish()
    assert told[0].text == (
        "The kernel's OOM killer killed one process on web-1, in no memory cgroup of a service that the agent knows; "
        "a counter does not say which one."
    )
    assert told[0].service is None


def test_a_cgroup_of_two_services_is_told_of_neither_alone(host: Host) -> None:
    host.cgroup("/shared", 0)
    host.service("shop", "/shared")
    host.service("admin", "/shared/below")
    beat, told = counting(host)
    host.cgroup("/shared", 1)
    host.kills(101)
    beat.finish()
    assert "where admin and shop run;" in told[0].text
    assert told[0].service is None


@pytest.mark.parametrize("certificate", ["killed_unseen", "kernel_kill", "unknown"])
@pytest.mark.parametrize("kind", ["worker.exited", "service.stopped"])
def test_a_death_that_nobody_saw_is_likely_the_counted_kill(host: Host, kind: str, certificate: str) -> None:
    host.cgroup("/web/shop", 0)
    host.service("shop", "/web/shop")
    beat, told = counting(host)
    host.cgroup("/web/shop", 1)
    host.kills(101)
    host.now_us += SECOND_US
    gone = death(kind, "shop", certificate, host.now_us - 5000)
    killed, explained = beat.notice([gone])
    assert told == []
    assert killed.kind == "process.oom_killed"
    assert killed.ts_us == gone.ts_us - 1
    assert (explained.id, explained.cause) == (gone.id, killed.id)
    assert explained.text == (
        "Something of shop ended. Most likely the kernel's OOM killer did it: it killed one process in memory cgroup "
        "/web/shop at that time."
    )
    assert explained.attrs == {"death": certificate, "likely_death": "kernel_oom"}
    (second,) = beat.notice([death(kind, "shop", certificate, host.now_us)])
    assert second.cause is None


def test_a_scan_finds_the_death_after_the_count(host: Host) -> None:
    host.cgroup("/web/shop", 0)
    host.service("shop", "/web/shop")
    beat, told = counting(host)
    host.cgroup("/web/shop", 1)
    host.kills(101)
    beat.finish()
    gone = death("worker.exited", "shop", "unknown", host.now_us + 2 * SECOND_US)
    (explained,) = beat.notice([gone])
    assert explained.cause == told[0].id
    late = death("worker.exited", "shop", "unknown", host.now_us + 20 * SECOND_US)
    host.cgroup("/web/shop", 2)
    host.kills(102)
    beat.finish()
    assert beat.notice([late]) == [late]


@pytest.mark.parametrize(
    ("service", "certificate", "cause"),
    [("shop", "clean_exit", None), ("shop", "crash_signal", None), ("jobs", "unknown", None), ("shop", "unknown", "x")],
)
def test_other_deaths_are_left_alone(host: Host, service: str, certificate: str, cause: str | None) -> None:
    host.cgroup("/web/shop", 0)
    host.cgroup("/jobs", 0)
    host.service("shop", "/web/shop")
    host.service("jobs", "/jobs")
    beat, _ = counting(host)
    host.cgroup("/web/shop", 1)
    host.kills(101)
    gone = death("worker.exited", service, certificate, host.now_us, cause)
    assert beat.notice([gone])[-1] == gone


def test_a_service_that_comes_is_counted_from_then_on(host: Host) -> None:
    beat, told = counting(host)
    host.cgroup("/new", 41)
    host.service("new", "/new")
    beat.notice([Event(uuid7(1, 1), 1, "service.started", "info", "new started.", "new")])
    host.cgroup("/new", 42)
    host.kills(101)
    beat.finish()
    assert [event.attrs["kills"] for event in told] == [1]
    assert told[0].service == "new"


# What is told when records are checked against counts.


class Checked:
    """A check of a host, and what it told."""

    def __init__(self, host: Host) -> None:
        self.told: list[Event] = []
        self.heard = 0
        self.host = host
        self.check = OomCheck(host.reader(), self.told.extend, "web-1", lambda: self.heard)

    def hear(self, service: str | None, kind: str = "worker.oom_killed") -> None:
        self.heard += 1
        self.check.notice([Event(uuid7(1, 1), 1, kind, "critical", "An OOM kill.", service)])

    def compare(self) -> None:
        self.host.now_us += 10 * SECOND_US
        self.check._compare()


@pytest.fixture
def checked(host2: Host) -> Callable[[], Checked]:
    host2.cgroup("/web", 7)
    host2.service("shop", "/web")
    return lambda: Checked(host2)


def test_what_is_heard_is_no_mismatch(checked: Any, host2: Host) -> None:
    check = checked()
    host2.kills(102)
    host2.cgroup("/web", 8)
    check.compare()
    check.hear("shop")
    check.hear(None, "process.oom_killed")
    for _ in range(3):
        check.compare()
    check.check.finish()
    assert check.told == []


def test_a_kill_that_is_not_heard_is_told_with_both_numbers(checked: Any, host2: Host) -> None:
    check = checked()
    host2.kills(102)
    check.hear(None, "process.oom_killed")
    check.compare()
    assert check.told == []
    check.compare()
    check.compare()
    (event,) = check.told
    assert event.text == (
        "The kernel counted 2 OOM kills on web-1 within 20.0 s, and the agent told of 1: 1 was not heard."
    )
    assert event.attrs == {"counted": 2, "told": 1, "missing": 1, "since_us": START_US}
    assert (event.kind, event.severity, event.service) == ("probe.mismatch", "warning", None)


def test_a_kill_that_is_not_heard_is_placed_with_its_service(checked: Any, host2: Host) -> None:
    check = checked()
    host2.kills(101)
    host2.cgroup("/web", 8)
    check.compare()
    check.compare()
    (event,) = check.told
    assert event.text == (
        "The kernel counted 1 OOM kill on web-1 in memory cgroup /web, where shop runs, within 20.0 s, and the agent "
        "told of 0 there: 1 was not heard."
    )
    assert (event.severity, event.service) == ("warning", "shop")


def test_a_kill_that_was_told_without_its_service_is_placed(checked: Any, host2: Host) -> None:
    check = checked()
    host2.kills(101)
    host2.cgroup("/web", 8)
    check.hear(None, "process.oom_killed")
    check.compare()
    check.compare()
    (event,) = check.told
    assert event.text.endswith("told of 0 there: 1 was told without a service.")
    assert (event.severity, event.service) == ("info", "shop")


def test_marks_of_processes_that_end_already_are_no_alarm(checked: Any, host2: Host) -> None:
    check = checked()
    check.hear("shop")
    for _ in range(3):
        check.compare()
    assert check.told == []
    host2.kills(101)
    check.compare()
    check.compare()
    assert len(check.told) == 1


def test_the_first_of_a_group_is_counted_twice_by_the_kernel_and_once_here(checked: Any, host2: Host) -> None:
    check = checked()
    for _ in range(3):
        check.hear("shop")
    host2.kills(104)
    host2.cgroup("/web", 11, group_kills=1)
    check.compare()
    check.compare()
    check.check.finish()
    assert check.told == []


def test_a_group_kill_is_remembered_when_its_cgroup_is_gone(checked: Any, host2: Host, tmp_path: Path) -> None:
    host2.cgroup("/short", 0)
    check = checked()
    host2.cgroup("/short", 2, group_kills=1)
    check.hear(None, "process.oom_killed")
    (tmp_path / "cg roups" / "short" / "memory.events").unlink()
    host2.kills(102)
    for _ in range(3):
        check.compare()
    assert check.told == []


def test_the_last_comparison_needs_no_second_look(checked: Any, host2: Host) -> None:
    check = checked()
    host2.kills(103)
    check.heard = 2
    check.check.finish()
    (event,) = check.told
    assert (event.attrs["counted"], event.attrs["told"], event.attrs["missing"]) == (3, 2, 1)
