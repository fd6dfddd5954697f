"""What no table of single programs shows: masters that hand over, several instances, emperors, chains, nodes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent.clock import Clock
from agent.doubts import SECOND_FOR_NS
from agent.ids import new_event_id
from agent.memory import Memory
from agent.overrides import NONE, Override
from agent.procfs import ProcFs
from agent.rollup import Rollup
from agent.service import Service
from agent.watcher import Watcher
from tests.workers.celery_stage import redis_server
from tests.workers.variants import PROGRAMS, TASKS
from tests.workers.ward import APP, Ward

GUNICORN = ("gunicorn", "--graceful-timeout", "2", "-b", "127.0.0.1:{port}", "-w", "2")
UWSGI = ("uwsgi", "--plugin", "python3", "--http-socket", "127.0.0.1:{port}", "--wsgi-file", "app.py")
CELERY = ("celery", "-A", "tasks", "worker", "-c", "2", "--without-mingle")
LATE_FORKS = """
import os, time
proc_name = "-".join(("shop", "web"))
def pre_fork(server, worker):
    while os.path.exists("late"):
        time.sleep(0.05)
"""
ALARMS = ("worker.stuck", "worker.threads_stuck", "worker.leaking", "worker.boot_hung", "worker.oom_killed")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the ward loads BPF programs"),
    pytest.mark.skipif(not (PROGRAMS / "gunicorn-newest" / "installed").exists(), reason="run ./reflex setup --dev"),
    pytest.mark.timeout(120),
]


@pytest.fixture
async def ward(tmp_path: Path) -> AsyncIterator[Ward]:
    async with Ward(tmp_path) as entered:
        yield entered
        assert [event.text for kind in ALARMS for event in entered.told(kind)] == []


def _running(service: Service) -> Callable[[], bool]:
    wanted = service.settings.workers or 1
    return lambda: sum(worker.ready_us is not None for worker in service.workers.values()) == wanted


def _below(ward: Ward, parent: int) -> list[Service]:
    """Services whose master has this parent."""
    return [one for pid, one in ward.rollup.services.items() if ProcFs().parent_pid(pid) == parent]


def _deaths(ward: Ward) -> set[object]:
    return {event.attrs["death"] for event in ward.told("worker.exited")}


async def test_usr2_has_two_masters_of_one_service(ward: Ward) -> None:
    old = await ward.start("gunicorn-newest", *GUNICORN, "app:application")
    os.kill(old.master_pid, signal.SIGUSR2)
    await ward.until(lambda: _below(ward, old.master_pid), 10)
    (new,) = _below(ward, old.master_pid)
    ward.adopt(new.master_pid)
    await ward.until(_running(new), 10)
    assert new.name == old.name
    assert {worker.ref.slot for worker in (*old.workers.values(), *new.workers.values())} == {0, 1, 2, 3}
    (signalled,) = ward.told("service.signalled")
    assert ward.told("service.started")[-1].cause == signalled.id
    os.kill(old.master_pid, signal.SIGTERM)
    await ward.until(lambda: old.stopped_event, 10)
    await ward.until(lambda: not old.workers, 10)
    assert ward.told("service.stopped")[-1].severity == "info"
    assert _deaths(ward) == {"stopped_by_master"}
    assert _running(new)()


async def _two_masters(ward: Ward) -> tuple[Service, Service]:
    """Of a Gunicorn that is a daemon, has a name, and names its processes."""
    ward.begin("gunicorn-newest", *GUNICORN, "--daemon", "--pid", "pid", "--name", "shop-web", "app:application")
    pid_file = ward.folder / "pid"
    await ward.until(lambda: pid_file.exists() and pid_file.read_text().strip(), 10)
    master = ward.adopt(int(pid_file.read_text()))
    await ward.until(lambda: master in ward.rollup.services, 10)
    old = ward.rollup.services[master]
    await ward.until(_running(old), 10)
    os.kill(old.master_pid, signal.SIGUSR2)
    await ward.until(lambda: _below(ward, old.master_pid), 10)
    (new,) = _below(ward, old.master_pid)
    ward.adopt(new.master_pid)
    await ward.until(_running(new), 10)
    return old, new


async def test_a_second_master_whose_name_only_its_configuration_knows_is_named_without_the_mark(ward: Ward) -> None:
    """It forks its first worker when the old one is gone, so that nothing but its environment says what it is."""
    (ward.folder / "gunicorn.conf.py").write_text(LATE_FORKS)
    old = await ward.start("gunicorn-newest", *GUNICORN, "--pid", "pid", "app:application")
    (ward.folder / "late").touch()
    os.kill(old.master_pid, signal.SIGUSR2)
    second = ward.folder / "pid.2"
    await ward.until(second.exists, 10)
    pid = ward.adopt(int(second.read_text()))
    assert ProcFs().command(pid)[0] == "gunicorn: master [shop-web.2]"
    os.kill(old.master_pid, signal.SIGTERM)
    await ward.until(lambda: old.stopped_event and not old.workers, 10)
    assert pid not in ward.rollup.services
    (ward.folder / "late").unlink()
    await ward.until(lambda: pid in ward.rollup.services, 10)
    assert (old.name, ward.rollup.services[pid].name) == ("shop-web", "shop-web")


def _is_titled(service: Service, name: str) -> bool:
    return ProcFs().command(service.master_pid)[0] == f"gunicorn: master [{name}]"


async def test_an_agent_that_starts_finds_a_master_that_has_let_its_workers_end(ward: Ward) -> None:
    """The first half of a handover by hand, USR2 and WINCH: the old one may be needed again, and both are one service."""
    old, new = await _two_masters(ward)
    assert _is_titled(new, "shop-web.2")
    os.kill(old.master_pid, signal.SIGWINCH)
    await ward.until(lambda: not old.workers, 10)
    later = Watcher(ProcFs(), rollup := Rollup(new_event_id), Clock(), None)
    later.scan()
    found = {pid: (one.name, len(one.workers)) for pid, one in rollup.services.items()}
    assert (found[old.master_pid], found[new.master_pid]) == (("shop-web", 0), ("shop-web", 2))


async def test_an_agent_that_starts_when_the_old_master_has_just_gone_waits_for_the_new_ones_name(ward: Ward) -> None:
    """For up to a second the new one does not know. It is held here, so that the look comes before it does for certain."""
    old, new = await _two_masters(ward)
    os.kill(new.master_pid, signal.SIGSTOP)
    try:
        os.kill(old.master_pid, signal.SIGTERM)
        await ward.until(lambda: old.stopped_event and not old.workers, 10)
        later = Watcher(ProcFs(), rollup := Rollup(new_event_id), Clock(), None)
        later.scan()
        assert later.is_in_doubt
        assert new.master_pid not in rollup.services
    finally:
        os.kill(new.master_pid, signal.SIGCONT)
    await ward.until(lambda: _is_titled(new, "shop-web"), 10)
    later.scan()
    assert not later.is_in_doubt
    assert rollup.services[new.master_pid].name == "shop-web"


async def test_a_name_that_looks_like_a_second_masters_is_believed_after_a_while(
    ward: Ward,
) -> None:
    service = await ward.start("gunicorn-newest", *GUNICORN, "--name", "api-v1.2", "app:application")
    passed_ns = [0]
    clock = Clock(monotonic_ns=lambda: time.monotonic_ns() + passed_ns[0])
    later = Watcher(ProcFs(), rollup := Rollup(new_event_id), clock, None)
    later.scan()
    assert (later.is_in_doubt, service.master_pid in rollup.services) == (True, False)
    passed_ns[0] = SECOND_FOR_NS
    later.scan()
    assert (later.is_in_doubt, rollup.services[service.master_pid].name) == (False, service.name)


async def test_a_name_that_the_settings_give_goes_before_one_that_is_remembered(ward: Ward) -> None:
    service = await ward.start("gunicorn-newest", *GUNICORN, "app:application")
    known = ward.folder / "services.json"
    Memory(known, "boot").keep([service])
    by_folder, by_command = (
        Override(name="till", folder=str(ward.folder)),
        Override(name="desk", command="*-w 2 app:app*"),
    )
    for overrides, name in ((NONE, service.name), ((by_folder,), "till"), ((by_command,), "desk")):
        later = Watcher(ProcFs(), rollup := Rollup(new_event_id), Clock(), None, Memory(known, "boot"), overrides)
        later.scan()
        assert rollup.services[service.master_pid].name == name


async def test_usr2_with_a_broken_release_leaves_the_old_one_as_it_was(ward: Ward) -> None:
    old = await ward.start("gunicorn-newest", *GUNICORN, "app:application")
    (ward.folder / "app.py").write_text("import no_such_module\n")
    os.kill(old.master_pid, signal.SIGUSR2)
    await ward.until(lambda: ward.told("service.stopped"), 15)
    (stopped,) = ward.told("service.stopped")
    assert f"(pid {old.master_pid})" not in stopped.text
    assert _running(old)()


async def test_ttin_and_ttou_add_and_take_a_lane(ward: Ward) -> None:
    service = await ward.start("gunicorn-newest", *GUNICORN, "app:application")
    os.kill(service.master_pid, signal.SIGTTIN)
    await ward.until(lambda: len(service.workers) == 3, 10)
    await ward.until(lambda: all(worker.ready_us for worker in service.workers.values()), 10)
    assert {worker.ref.slot for worker in service.workers.values()} == {0, 1, 2}
    os.kill(service.master_pid, signal.SIGTTOU)
    await ward.until(lambda: len(service.workers) == 2, 10)
    (ended,) = ward.told("worker.exited")
    assert ended.attrs["death"] == "stopped_by_master"
    assert ended.cause == ward.told("service.signalled")[-1].id


async def test_instances_of_one_application_are_told_apart_by_their_address(ward: Ward) -> None:
    first = await ward.start("gunicorn-newest", *GUNICORN, "app:application")
    second = await ward.start("gunicorn-newest", *GUNICORN, "app:application")
    assert second.name == f"{first.name} (127.0.0.1:{ward.port})"
    third = await ward.start("gunicorn-newest", *GUNICORN, "--name", "shop-admin", "app:application")
    assert third.name == "shop-admin"


async def test_a_daemon_is_found_where_its_launcher_has_ended(ward: Ward) -> None:
    launcher = ward.begin("gunicorn-newest", *GUNICORN, "--daemon", "--pid", "pid", "app:application")
    pid_file = ward.folder / "pid"
    await ward.until(lambda: pid_file.exists() and pid_file.read_text().strip(), 10)
    master = ward.adopt(int(pid_file.read_text()))
    await ward.until(lambda: master in ward.rollup.services, 10)
    await ward.until(_running(ward.rollup.services[master]), 10)
    assert launcher not in ward.rollup.services
    assert [event for event in ward.told("service.stopped") if event.severity != "info"] == []


async def test_each_vassal_of_an_emperor_is_a_service(ward: Ward) -> None:
    vassals = ward.folder / "vassals"
    vassals.mkdir()
    options = "plugin=python3\nmaster=true\nprocesses=2\nworker-reload-mercy=2\nhttp-socket=127.0.0.1:0\n"
    for name in ("shop", "mail"):
        (ward.folder / f"{name}.py").write_text(APP)
        (vassals / f"{name}.ini").write_text(f"[uwsgi]\n{options}wsgi-file=../{name}.py\n")
    emperor = ward.begin("", "uwsgi", "--emperor", str(vassals))
    await ward.until(lambda: len(_below(ward, emperor)) == 2, 20)
    mail, shop = sorted(_below(ward, emperor), key=lambda one: one.name)
    for vassal in (shop, mail):
        ward.adopt(vassal.master_pid)
    assert (mail.settings.workers, shop.settings.workers) == (2, 2)
    assert (mail.settings.app, shop.settings.app) == ("../mail.py", "../shop.py")
    await ward.until(lambda: _running(shop)() and _running(mail)(), 20)
    (vassals / "mail.ini").unlink()
    await ward.until(lambda: mail.stopped_event, 20)
    assert _running(shop)()


async def test_a_chain_reload_replaces_one_worker_after_the_other(ward: Ward) -> None:
    touched = ward.folder / "touch"
    touched.touch()
    chain = ("--master", "--processes", "3", "--lazy-apps", "--touch-chain-reload", str(touched))
    service = await ward.start("", *UWSGI, *chain, "--worker-reload-mercy", "2")
    before = set(service.workers)
    os.utime(touched, (time.time() + 5,) * 2)
    await ward.until(lambda: len(service.workers) == 3 and not before & set(service.workers), 30)
    await ward.until(_running(service), 10)
    ends = ward.told("worker.exited")
    assert {event.worker.slot for event in ends if event.worker is not None} == {0, 1, 2}
    assert {event.severity for event in ends} == {"info"}
    assert {worker.ref.slot for worker in service.workers.values()} == {0, 1, 2}


async def test_each_node_of_celery_multi_is_a_service(ward: Ward, tmp_path: Path) -> None:
    with redis_server(tmp_path, password=None) as redis:
        _write_tasks(ward)
        nodes = ("mail@%h", "resize@%h")
        ward.begin(
            "celery-newest",
            *("celery", "-A", "tasks", "multi", "start", *nodes, "-c", "2"),
            *("--pidfile=%n.pid", "--logfile=%n.log"),
            environment={"TASKS_BROKER": redis.url()},
        )
        files = [ward.folder / f"{name}.pid" for name in ("mail", "resize")]
        await ward.until(lambda: all(file.exists() and file.read_text().strip() for file in files), 40)
        masters = [ward.adopt(int(file.read_text())) for file in files]
        await ward.until(lambda: all(master in ward.rollup.services for master in masters), 20)
        services = [ward.rollup.services[master] for master in masters]
        assert {one.name for one in services} == {"mail", "resize"}
        await ward.until(lambda: all(len(one.workers) == 2 for one in services), 20)


async def test_two_nodes_and_a_beat_of_one_application(ward: Ward, tmp_path: Path) -> None:
    with redis_server(tmp_path, password=None) as redis:
        _write_tasks(ward)
        broker = {"TASKS_BROKER": redis.url()}
        first = await ward.start("celery-newest", *CELERY, "-n", "mail@%h", environment=broker)
        second = await ward.start("celery-newest", *CELERY, "-n", "resize@%h", environment=broker)
        beat = ward.begin("celery-newest", "celery", "-A", "tasks", "beat", "-s", "schedule", environment=broker)
        await ward.until(lambda: beat in ward.rollup.services, 20)
        assert {first.name, second.name} == {"mail", "resize"}
        assert ward.rollup.services[beat].name.endswith(" beat")
        os.kill(first.master_pid, signal.SIGTERM)
        await ward.until(lambda: first.stopped_event, 20)
        assert _running(second)()


@pytest.mark.parametrize("program", ["celery-newest", "celery-54"])
async def test_a_beat_inside_of_a_node_is_no_process_of_its_pool(ward: Ward, tmp_path: Path, program: str) -> None:
    """The second has no setproctitle."""
    with redis_server(tmp_path, password=None) as redis:
        _write_tasks(ward)
        broker = {"TASKS_BROKER": redis.url()}
        node = await ward.start(program, *CELERY, "-B", "-s", "schedule", "-n", "mail@%h", environment=broker)
        await ward.until(lambda: list(ward.folder.glob("schedule*")), 20)
        assert len(node.workers) == 2


def _write_tasks(ward: Ward) -> None:
    (ward.folder / "tasks.py").write_text(TASKS)
