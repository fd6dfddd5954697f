"""Each way for a worker to end gets its own certificate, and only that one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.deaths import DEATHS, certify
from agent.workers import KINDS

Build = Callable[..., Any]
MASTER, WORKER, SOMEBODY = 100, 200, 900
GUNICORN, UWSGI, UVICORN, CELERY = (KINDS[kind].RULES for kind in ("gunicorn", "uwsgi", "uvicorn", "celery"))
KERNEL = 128


def test_an_oom_kill_needs_the_mark_and_the_signal(exit_record: Build, oom_record: Build, signal_record: Build) -> None:
    kill = signal_record(WORKER, 9, WORKER, code=KERNEL)
    marked = certify(exit_record(WORKER, 9), (kill,), oom_record(WORKER, WORKER), MASTER, GUNICORN)
    assert (marked.death, marked.severity, marked.expected) == ("kernel_oom", "critical", False)
    assert certify(exit_record(WORKER, 0), (), oom_record(WORKER, WORKER), MASTER, GUNICORN).death == "clean_exit"
    assert certify(exit_record(WORKER, 9), (kill,), None, MASTER, GUNICORN).death == "kernel_kill"


def test_the_masters_timeout_is_an_abort_by_the_master(exit_record: Build, signal_record: Build) -> None:
    abort = signal_record(WORKER, 6, MASTER)
    for status in (1 << 8, 6, 0):
        assert certify(exit_record(WORKER, status), (abort,), None, MASTER, GUNICORN).death == "master_timeout"
    kill = signal_record(WORKER, 9, MASTER)
    both = certify(exit_record(WORKER, 9), (abort, kill), None, MASTER, GUNICORN)
    assert both.death == "master_timeout"
    assert "SIGABRT and then SIGKILL" in both.phrase


def test_an_abort_by_the_master_does_not_hide_a_kill_by_somebody_else(exit_record: Build, signal_record: Build) -> None:
    signals = (signal_record(WORKER, 6, MASTER), signal_record(WORKER, 9, SOMEBODY))
    assert certify(exit_record(WORKER, 9), signals, None, MASTER, GUNICORN).death == "killed_by_process"


def test_a_person_is_somebody_with_a_terminal(exit_record: Build, signal_record: Build) -> None:
    person = signal_record(WORKER, 9, SOMEBODY, sender_tty="pts3")
    certificate = certify(exit_record(WORKER, 9), (person,), None, MASTER, GUNICORN)
    assert certificate.death == "killed_by_person"
    assert certificate.phrase == (
        "SIGKILL from a person at a terminal, through bash (pid 900, uid 1000, started by sshd (pid 7), "
        "terminal pts/3); neither the kernel nor its master did it"
    )
    program = certify(exit_record(WORKER, 9), (signal_record(WORKER, 9, SOMEBODY),), None, MASTER, GUNICORN)
    assert program.death == "killed_by_process"


def test_a_kill_that_nobody_saw_is_said_to_be_unseen(exit_record: Build) -> None:
    assert certify(exit_record(WORKER, 9), (), None, MASTER, GUNICORN).death == "killed_unseen"
    assert certify(exit_record(WORKER, 15), (), None, MASTER, GUNICORN).death == "signal_unseen"


def test_an_ignored_signal_explains_nothing(exit_record: Build, signal_record: Build) -> None:
    ignored = signal_record(WORKER, 15, MASTER, result=1)
    assert certify(exit_record(WORKER, 0), (ignored,), None, MASTER, GUNICORN).death == "clean_exit"


def test_what_the_master_does_on_purpose_is_expected(exit_record: Build, signal_record: Build) -> None:
    stopped = certify(exit_record(WORKER, 0), (signal_record(WORKER, 15, MASTER),), None, MASTER, GUNICORN)
    assert (stopped.death, stopped.expected, stopped.severity) == ("stopped_by_master", True, "info")
    killed = certify(exit_record(WORKER, 9), (signal_record(WORKER, 9, MASTER),), None, MASTER, GUNICORN)
    assert (killed.death, killed.expected) == ("killed_by_master", True)


def test_crashes_exits_and_recycling(exit_record: Build, signal_record: Build) -> None:
    fault = signal_record(WORKER, 11, WORKER, code=1)
    assert certify(exit_record(WORKER, 11 | 0x80), (fault,), None, MASTER, GUNICORN).death == "crash_signal"
    sent = signal_record(WORKER, 11, SOMEBODY, code=0)
    assert certify(exit_record(WORKER, 11), (sent,), None, MASTER, GUNICORN).death == "killed_by_process"
    assert certify(exit_record(WORKER, 0), (), None, MASTER, GUNICORN).death == "clean_exit"
    assert certify(exit_record(WORKER, 3 << 8), (), None, MASTER, GUNICORN).death == "boot_error"
    assert certify(exit_record(WORKER, 4 << 8), (), None, MASTER, GUNICORN).death == "app_load_error"
    assert (
        certify(exit_record(WORKER, 17 << 8), (), None, MASTER, GUNICORN).phrase == "exit code 17: it gave up by itself"
    )


def test_every_certificate_has_evidence(exit_record: Build) -> None:
    for status in (0, 1 << 8, 9, 11, 15):
        assert certify(exit_record(WORKER, status), (), None, MASTER, GUNICORN).evidence


@pytest.mark.parametrize("wait_status", [0, 6, 9, 11, 15, 1 << 8, 3 << 8, 4 << 8, 255 << 8])
def test_any_history_gives_a_documented_certificate(
    wait_status: int, exit_record: Build, signal_record: Build, oom_record: Build
) -> None:
    senders = [signal_record(WORKER, number, sender) for number in (6, 9, 11, 15) for sender in (MASTER, SOMEBODY)]
    for length in range(3):
        for signals in itertools.permutations(senders, length):
            for oom in (None, oom_record(WORKER, WORKER)):
                certificate = certify(exit_record(WORKER, wait_status), signals, oom, MASTER, GUNICORN)
                assert certificate.death in DEATHS
                assert certificate.evidence


def test_every_certificate_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    assert [line for death, meaning in DEATHS.items() if (line := f"| `{death}` | {meaning} |") not in page] == []


def test_uwsgi_ends_a_request_that_takes_too_long(exit_record: Build, signal_record: Build) -> None:
    asked, killed = signal_record(WORKER, 12, MASTER), signal_record(WORKER, 9, MASTER)
    harakiri = certify(exit_record(WORKER, 9), (asked, killed), None, MASTER, UWSGI)
    assert (harakiri.death, harakiri.expected) == ("master_timeout", False)
    assert "SIGUSR2 and then SIGKILL" in harakiri.phrase
    reload = certify(exit_record(WORKER, 17 << 8), (signal_record(WORKER, 1, MASTER),), None, MASTER, UWSGI)
    assert (reload.death, reload.expected) == ("recycled", False)
    assert certify(exit_record(WORKER, 22 << 8), (), None, MASTER, UWSGI).death == "app_load_error"


def test_a_supervisor_that_kills_at_once_takes_the_worker_for_stuck(exit_record: Build, signal_record: Build) -> None:
    kill, stop = signal_record(WORKER, 9, MASTER), signal_record(WORKER, 15, MASTER)
    for rules in (UVICORN, CELERY):
        assert certify(exit_record(WORKER, 9), (kill,), None, MASTER, rules).death == "master_timeout"
        assert certify(exit_record(WORKER, 9), (stop, kill), None, MASTER, rules).death == "killed_by_master"
    assert certify(exit_record(WORKER, 9), (kill,), None, MASTER, GUNICORN).death == "killed_by_master"


def test_a_program_that_catches_its_own_faults_has_crashed_all_the_same(
    exit_record: Build, signal_record: Build
) -> None:
    fault = signal_record(WORKER, 11, WORKER, code=1)
    crashed = certify(exit_record(WORKER, 1 << 8), (fault,), None, MASTER, UWSGI)
    assert crashed.death == "crash_signal"
    assert "SIGSEGV" in crashed.phrase
    assert certify(exit_record(WORKER, 1 << 8), (), None, MASTER, UWSGI).death == "error_exit"


def test_a_recycled_process_is_that_also_where_it_was_asked_to_stop(exit_record: Build, signal_record: Build) -> None:
    asked = signal_record(WORKER, 15, MASTER)
    assert certify(exit_record(WORKER, 155 << 8), (asked,), None, MASTER, CELERY).death == "recycled"


def test_a_process_that_dies_with_its_master(exit_record: Build, signal_record: Build) -> None:
    kill = signal_record(WORKER, 9, MASTER)
    ended = certify(exit_record(WORKER, 9), (kill,), None, MASTER, CELERY, master_is_gone=True)
    assert (ended.death, ended.expected) == ("ended_with_master", True)
    by_another = signal_record(WORKER, 9, SOMEBODY)
    killed = certify(exit_record(WORKER, 9), (by_another,), None, MASTER, CELERY, master_is_gone=True)
    assert killed.death == "killed_by_process"


def test_a_celery_process_that_had_its_tasks_is_recycled(exit_record: Build) -> None:
    certificate = certify(exit_record(WORKER, 155 << 8), (), None, MASTER, CELERY)
    assert (certificate.death, certificate.severity) == ("recycled", "info")


@pytest.mark.parametrize("comm", ["systemd", "containerd-shim", "supervisord"])
def test_a_service_manager_is_told_from_a_person(exit_record: Build, signal_record: Build, comm: str) -> None:
    for number in (9, 15):
        sent = signal_record(WORKER, number, SOMEBODY, sender_comm=comm)
        assert certify(exit_record(WORKER, number), (sent,), None, MASTER, GUNICORN).death == "stopped_by_manager"
