"""The sentences and the causal chain that come of records, without a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.rollup import OOM_CONFIRM_US, TOMBSTONE_US, Rollup
from agent.service import Birth, Service
from agent.wire import event_from_json, event_to_json

Build = Callable[..., Any]
START_NS = 30_000_000_000
START_TICKS = 3000
SECOND_US = 1_000_000


def _born(rollup: Rollup, shop: Service, pid: int, at_us: int) -> Any:
    (started,) = rollup.worker_appeared(shop, pid, START_TICKS, at_us, heartbeat_inode=pid, seen=Birth.FORK)
    return started


def _ready(rollup: Rollup, pid: int, at_us: int) -> Any:
    worker = rollup.worker(pid)
    assert worker is not None
    (ready,) = rollup.worker_ready(worker, at_us)
    return ready


def test_an_oom_kill_reads_as_one_chain(rollup: Rollup, shop: Service, exit_record: Build, oom_record: Build) -> None:
    (up,) = rollup.service_appeared(shop, 0, started=True, parent_pid=1)
    first = _born(rollup, shop, 200, SECOND_US)
    _ready(rollup, 200, 2 * SECOND_US)
    assert first.cause == up.id
    assert rollup.oom_marked(oom_record(200, 200), 60 * SECOND_US, service=None) == []

    killed, exited = rollup.exited(exit_record(200, 9), 60 * SECOND_US + 2000)
    started = _born(rollup, shop, 201, 60 * SECOND_US + 6000)
    ready = _ready(rollup, 201, 62 * SECOND_US)

    assert [e.kind for e in (killed, exited, started, ready)] == [
        "worker.oom_killed",
        "worker.exited",
        "worker.started",
        "worker.ready",
    ]
    assert [e.cause for e in (killed, exited, started, ready)] == [None, killed.id, exited.id, started.id]
    assert killed.text == (
        "The kernel's OOM killer killed worker 0 of shop (pid 200, 60.0 s old) because it asked for memory and its "
        "memory cgroup shop was full (limit 192.0 MiB). It held 183.0 MiB anonymous, 4.0 MiB file and 0 shared memory. "
        "Neither its master nor a person did it."
    )
    assert exited.text == "Worker 0 of shop (pid 200) ended after 1 min 0 s: SIGKILL from the kernel's OOM killer."
    assert started.text == "The master of shop forked pid 201 as worker 0, 4 ms after pid 200 had ended there."
    assert ready.text == "Worker 0 of shop (pid 201) is ready to serve, 1.99 s after its fork."
    assert (started.worker.slot, started.worker.generation) == (0, 2)
    for event in (killed, exited, started, ready):
        assert event.evidence
        assert event_from_json(event_to_json(event)) == event


def test_a_victim_that_does_not_die_is_said_to_be_chosen_only(rollup: Rollup, shop: Service, oom_record: Build) -> None:
    rollup.service_appeared(shop, 0, started=False, parent_pid=1)
    _born(rollup, shop, 200, 0)
    rollup.oom_marked(oom_record(200, 200), SECOND_US, service=None)
    assert rollup.tick(SECOND_US + OOM_CONFIRM_US) == []
    (event,) = rollup.tick(SECOND_US + OOM_CONFIRM_US + 1)
    assert (event.kind, event.service) == ("process.oom_killed", "shop")
    assert event.text.startswith("The kernel's OOM killer chose ")


def test_a_stranger_that_is_killed_still_lands(rollup: Rollup, oom_record: Build) -> None:
    (event,) = rollup.oom_marked(oom_record(555, 556, victim_comm="postgres"), SECOND_US, service=None)
    assert (event.kind, event.service) == ("process.oom_killed", None)
    assert "postgres (pid 555)" in event.text


def test_a_siblings_allocation_is_named(rollup: Rollup, shop: Service, exit_record: Build, oom_record: Build) -> None:
    rollup.service_appeared(shop, 0, started=False, parent_pid=1)
    _born(rollup, shop, 200, 0)
    _born(rollup, shop, 201, 0)
    rollup.oom_marked(oom_record(200, 201), SECOND_US, service=None)
    killed, _ = rollup.exited(exit_record(200, 9), SECOND_US)
    assert "because its sibling worker 1 (pid 201) asked for memory" in killed.text


def test_a_process_that_just_ended_is_still_known(
    rollup: Rollup, shop: Service, exit_record: Build, oom_record: Build
) -> None:
    """The sibling whose allocation killed the other ended before the other's end was heard."""
    rollup.service_appeared(shop, 0, started=False, parent_pid=1)
    _born(rollup, shop, 200, 0)
    _born(rollup, shop, 201, 0)
    rollup.oom_marked(oom_record(200, 201), SECOND_US, service=None)
    rollup.exited(exit_record(201, 9), SECOND_US)
    killed, _ = rollup.exited(exit_record(200, 9), SECOND_US)
    assert "because its sibling worker 1 (pid 201) asked for memory" in killed.text
    assert rollup.recent_service(201) is shop
    rollup.tick(SECOND_US + TOMBSTONE_US + 1)
    assert rollup.recent_service(201) is None
    assert rollup.recent_worker(200) is None


def test_where_a_service_lives_is_said(rollup: Rollup, shop: Service) -> None:
    shop.cgroup = f"/system.slice/docker-{'ab' * 32}.scope"
    (found,) = rollup.service_appeared(shop, 0, started=False, parent_pid=1)
    assert "container abababababab)" in found.text
    assert found.attrs["container"] == "abababababab"
    assert "unit" not in found.attrs


def test_the_oom_killers_decision_is_told(rollup: Rollup, shop: Service, exit_record: Build, oom_record: Build) -> None:
    rollup.service_appeared(shop, 0, started=False, parent_pid=1)
    _born(rollup, shop, 200, 0)
    decision = {"constraint": 2, "points": 5000, "total_bytes": 2**30, "chosen_pid": 300, "group": 1}
    rollup.oom_marked(oom_record(200, 201, limit_bytes=0, **decision), SECOND_US, service=None)
    killed, _ = rollup.exited(exit_record(200, 9), SECOND_US)
    assert "the memory nodes of the allocating cpuset had none left" in killed.text
    assert "(memory.oom.group): the choice had been pid 300" in killed.text
    assert (killed.attrs["constraint"], killed.attrs["score_pages"], killed.attrs["group_kill"]) == (
        "cpuset",
        5000,
        True,
    )


def test_without_a_full_cgroup_the_host_was_short(
    rollup: Rollup, shop: Service, exit_record: Build, oom_record: Build
) -> None:
    rollup.service_appeared(shop, 0, started=False, parent_pid=1)
    _born(rollup, shop, 200, 0)
    rollup.oom_marked(oom_record(200, 200, limit_bytes=0), SECOND_US, service=None)
    killed, _ = rollup.exited(exit_record(200, 9), SECOND_US)
    assert "the host had none left" in killed.text
    assert killed.attrs["constraint"] == "host"
    assert "limit_bytes" not in killed.attrs


def test_a_stuck_worker_is_the_cause_of_its_end(
    rollup: Rollup, shop: Service, exit_record: Build, signal_record: Build
) -> None:
    rollup.service_appeared(shop, 0, started=False, parent_pid=1)
    _born(rollup, shop, 200, 0)
    (stuck,) = rollup.signalled(signal_record(200, 6, 100), SECOND_US, heartbeat_age_s=30.4)
    assert rollup.signalled(signal_record(200, 9, 100), SECOND_US, heartbeat_age_s=31.4) == []
    (exited,) = rollup.exited(exit_record(200, 9), 2 * SECOND_US)
    assert (stuck.kind, exited.cause) == ("worker.stuck", stuck.id)
    assert "its last heartbeat was 30.4 s ago, the timeout is 30 s" in stuck.text


def test_a_reload_explains_new_workers_and_old_ones(
    rollup: Rollup, shop: Service, exit_record: Build, signal_record: Build
) -> None:
    rollup.service_appeared(shop, 0, started=False, parent_pid=1)
    _born(rollup, shop, 200, 0)
    (hup,) = rollup.signalled(signal_record(100, 1, 900), SECOND_US, heartbeat_age_s=None)
    new = _born(rollup, shop, 201, 2 * SECOND_US)
    rollup.signalled(signal_record(200, 15, 100), 3 * SECOND_US, heartbeat_age_s=None)
    (old,) = rollup.exited(exit_record(200, 0), 3 * SECOND_US)
    assert hup.kind == "service.signalled"
    assert (new.cause, new.worker.slot) == (hup.id, 1)
    assert (old.cause, old.attrs["death"], old.severity) == (hup.id, "stopped_by_master", "info")
    later = _born(rollup, shop, 202, 200 * SECOND_US)
    assert later.worker.slot == 0
    assert "after pid" not in later.text


def test_the_masters_end_explains_its_workers(
    rollup: Rollup, shop: Service, exit_record: Build, signal_record: Build
) -> None:
    rollup.service_appeared(shop, 0, started=False, parent_pid=1)
    _born(rollup, shop, 200, 0)
    (told,) = rollup.signalled(signal_record(100, 9, 900), SECOND_US, heartbeat_age_s=None)
    (stopped,) = rollup.exited(exit_record(100, 9), SECOND_US)
    assert (stopped.kind, stopped.severity, stopped.cause) == ("service.stopped", "critical", told.id)
    assert "1 of its workers is still there" in stopped.text
    (orphan,) = rollup.exited(exit_record(200, 0), 2 * SECOND_US)
    assert orphan.cause == stopped.id
    assert rollup.services == {}


def test_a_pid_that_was_reused_is_another_process(rollup: Rollup, shop: Service, exit_record: Build) -> None:
    rollup.service_appeared(shop, 0, started=False, parent_pid=1)
    _born(rollup, shop, 200, 0)
    assert rollup.exited(exit_record(200, 9, start_ns=START_NS + 10**10), SECOND_US) == []
    assert rollup.exited(exit_record(100, 0, start_ns=START_NS + 10**10), SECOND_US) == []
    assert rollup.worker(200, START_TICKS) is not None


def test_a_scan_that_misses_a_worker_does_not_guess(rollup: Rollup, shop: Service) -> None:
    rollup.service_appeared(shop, 0, started=False, parent_pid=1)
    _born(rollup, shop, 200, 0)
    worker = rollup.worker(200)
    assert worker is not None
    (event,) = rollup.vanished(worker, SECOND_US)
    assert event.attrs["death"] == "unknown"
    assert "how it ended is not known" in event.text
