"""What a Gunicorn looks like from outside."""

from __future__ import annotations

import pytest

from agent.procfs import OpenFile, Process
from agent.workers.gunicorn import heartbeat, is_command, last_beat_ns, parse_command, service_name, title_name

NO_ENVIRONMENT: dict[str, str] = {}


@pytest.mark.parametrize(
    ("argv", "verdict"),
    [
        (("gunicorn: master [shop:app]",), True),
        (("/srv/venv/bin/python", "/srv/venv/bin/gunicorn", "shop:app"), True),
        (("python3", "-m", "gunicorn", "shop:app"), True),
        (("python3", "-I", "-m", "gunicorn.app.wsgiapp", "shop:app"), True),
        (("/usr/bin/gunicorn",), True),
        (("grep", "-r", "gunicorn"), False),
        (("vim", "gunicorn.conf.py"), False),
        (("python3", "manage.py", "runserver"), False),
        ((), False),
    ],
)
def test_command_lines(argv: tuple[str, ...], verdict: bool) -> None:
    assert is_command(argv) is verdict


def test_the_command_line_wins_over_the_environment() -> None:
    argv = ("python", "/v/bin/gunicorn", "-w4", "--preload", "-b", "127.0.0.1:0", "--timeout=90", "shop.wsgi:app")
    command = parse_command(argv, {"GUNICORN_CMD_ARGS": "--name 'the shop' -t 9 --timeout 5"})
    assert (command.proc_name, command.timeout_s) == ("the shop", 90.0)
    assert parse_command(argv, NO_ENVIRONMENT).proc_name == "shop.wsgi:app"


def test_a_timeout_is_unknown_where_a_file_may_set_it() -> None:
    assert parse_command(("gunicorn", "a:app"), NO_ENVIRONMENT).timeout_s == 30.0
    assert parse_command(("gunicorn", "a:app"), NO_ENVIRONMENT, config_file_in_folder=True).timeout_s is None
    assert parse_command(("gunicorn", "-c", "conf.py", "a:app"), NO_ENVIRONMENT).timeout_s is None
    assert parse_command(("gunicorn", "-c", "conf.py", "-t", "9", "a:app"), NO_ENVIRONMENT).timeout_s == 9.0
    assert parse_command(("gunicorn: master [a:app]",), NO_ENVIRONMENT).timeout_s is None


def test_options_that_only_check_are_no_service() -> None:
    assert parse_command(("gunicorn", "--check-config", "shop:app"), NO_ENVIRONMENT).one_shot
    assert not parse_command(("gunicorn", "--reload", "shop:app"), NO_ENVIRONMENT).one_shot


def test_broken_values_are_unknown_not_an_error() -> None:
    command = parse_command(("gunicorn", "--timeout", "soon", "shop:app"), {"GUNICORN_CMD_ARGS": "--name 'unclosed"})
    assert (command.timeout_s, command.proc_name) == (None, "shop:app")


@pytest.mark.parametrize(
    ("folder", "cgroup", "argv", "name"),
    [
        ("/srv/shop", "/system.slice/shop-web.service", ("gunicorn", "-n", "x", "a:app"), "shop-web"),
        ("/srv/shop", "/system.slice/supervisor.service", ("gunicorn", "-n", "x", "a:app"), "x"),
        ("/srv/shop", "/user.slice/user-0.slice/session-3.scope", ("gunicorn", "a:app"), "shop/a:app"),
        ("/srv/shop/current", "/", ("gunicorn", "a:app"), "shop/a:app"),
        ("/srv/shop/releases/20261123T0101", "/", ("gunicorn", "a:app"), "shop/a:app"),
        ("/app", f"/docker/{'ab' * 32}", ("gunicorn", "a:app"), "abababababab/a:app"),
        ("/", "/", ("gunicorn",), "gunicorn"),
    ],
)
def test_names(folder: str, cgroup: str, argv: tuple[str, ...], name: str) -> None:
    process = Process(1, 1, 0, "gunicorn", argv, 0, folder, cgroup)
    proc_name = parse_command(argv, NO_ENVIRONMENT).proc_name
    assert service_name(process, proc_name) == name
    assert service_name(process, title_name((f"gunicorn: master [{proc_name}]",)) if proc_name else None) == name


def _file(inode: int, *, modified_ns: int = 0, changed_ns: int = 0, mode: int = 0o100600) -> OpenFile:
    return OpenFile(7, "/tmp/wgunicorn-x (deleted)", inode, modified_ns, changed_ns, mode)


def test_a_worker_is_ready_when_its_file_has_a_monotonic_time() -> None:
    wall_ns, uptime_ns = 1_790_000_000 * 10**9, 5_000 * 10**9
    offset_ns = wall_ns - uptime_ns
    booting = _file(1, modified_ns=wall_ns)
    beating = _file(1, modified_ns=4_999 * 10**9)
    assert last_beat_ns(booting, uptime_ns=uptime_ns, wall_offset_ns=offset_ns) is None
    assert last_beat_ns(beating, uptime_ns=uptime_ns, wall_offset_ns=offset_ns) == 4_999 * 10**9


def test_older_versions_beat_by_changing_the_mode() -> None:
    wall_ns, uptime_ns = 1_790_000_000 * 10**9, 5_000 * 10**9
    beating = _file(1, modified_ns=wall_ns - 10**9, changed_ns=wall_ns, mode=0o100001)
    assert last_beat_ns(beating, uptime_ns=uptime_ns, wall_offset_ns=wall_ns - uptime_ns) == uptime_ns


def test_a_fork_with_only_known_files_is_no_worker() -> None:
    files = (_file(1), _file(2))
    assert heartbeat(files, frozenset({1, 2})) is None
    found = heartbeat(files, frozenset({1}))
    assert found is not None
    assert found.inode == 2
