"""What a Gunicorn looks like from outside."""

from __future__ import annotations

import pytest

from agent.naming import service_name
from agent.procfs import OpenFile
from agent.workers.gunicorn import heartbeat, is_command, last_beat_ns, read_command

NO_ENVIRONMENT: dict[str, str] = {}


@pytest.mark.parametrize(
    ("argv", "verdict"),
    [
        (("gunicorn: master [shop:app]",), True),
        (("/srv/venv/bin/python", "/srv/venv/bin/gunicorn", "shop:app"), True),
        (("python3", "-m", "gunicorn", "shop:app"), True),
        (("python3", "-I", "-m", "gunicorn.app.wsgiapp", "shop:app"), True),
        (("/usr/bin/gunicorn",), True),
        (("python3", "/v/lib/python3.11/site-packages/gunicorn/__main__.py", "shop:app"), True),
        (("python3", "/srv/shop/__main__.py", "shop:app"), False),
        (("grep", "-r", "gunicorn"), False),
        (("vim", "gunicorn.conf.py"), False),
        (("python3", "manage.py", "runserver"), False),
        ((), False),
    ],
)
def test_command_lines(argv: tuple[str, ...], verdict: bool) -> None:
    assert is_command(argv) is verdict


class Folder:
    """A working folder with these files."""

    def __init__(self, **files: str) -> None:
        self._files = {name.replace("_", "."): text for name, text in files.items()}

    def has(self, path: str) -> bool:
        return path in self._files

    def text(self, path: str) -> str:
        return self._files.get(path, "")


EMPTY = Folder()


def test_the_command_line_wins_over_the_environment() -> None:
    argv = ("python", "/v/bin/gunicorn", "-w4", "--preload", "-b", "127.0.0.1:0", "--timeout=90", "shop.wsgi:app")
    command = read_command(argv, {"GUNICORN_CMD_ARGS": "--name 'the shop' -t 9 --timeout 5 --threads 3"}, EMPTY)
    settings = command.settings
    assert (command.name, command.app) == ("the shop", "shop.wsgi:app")
    assert (settings.workers, settings.timeout_s, settings.preload, settings.binds) == (4, 90.0, True, ("127.0.0.1:0",))
    assert (settings.threads, settings.worker_class, settings.max_requests) == (3, "gthread", 0)
    assert read_command(argv, NO_ENVIRONMENT, EMPTY).name is None
    again = ("python", "/v/site-packages/gunicorn/__main__.py", "-w4", "shop.wsgi:app")
    assert read_command(again, NO_ENVIRONMENT, EMPTY).settings.workers == 4


def test_a_configuration_file_is_read_but_never_run() -> None:
    text = "import os\nworkers = 3\ntimeout = int(os.environ['T'])\nbind = ['unix:/run/a.sock', ':80']\npreload_app = True\n"
    settings = read_command(("gunicorn", "a:app"), NO_ENVIRONMENT, Folder(gunicorn_conf_py=text)).settings
    assert (settings.workers, settings.timeout_s, settings.preload) == (3, None, True)
    assert settings.binds == ("unix:/run/a.sock", ":80")
    assert (settings.threads, settings.config_file) == (1, "gunicorn.conf.py")
    named = read_command(("gunicorn", "-c", "my_py", "-t", "9", "a:app"), NO_ENVIRONMENT, Folder(my_py=text)).settings
    assert named.timeout_s == 9.0


@pytest.mark.parametrize("text", ["", "from base import *\n", "def (", "if x:\n    timeout = 3\n"])
def test_what_only_running_the_file_would_tell_is_unknown(text: str) -> None:
    assert read_command(("gunicorn", "-c", "x", "a:app"), NO_ENVIRONMENT, Folder(x=text)).settings.timeout_s is None


def test_a_timeout_is_unknown_where_only_a_title_is_left() -> None:
    assert read_command(("gunicorn", "a:app"), NO_ENVIRONMENT, EMPTY).settings.timeout_s == 30.0
    titled = read_command(("gunicorn: master [a:app]",), NO_ENVIRONMENT, EMPTY)
    assert (titled.settings.timeout_s, titled.settings.workers, titled.settings.preload) == (None, None, None)
    assert (titled.name, titled.app) == (None, "a:app")


def test_options_that_only_check_are_no_service() -> None:
    assert read_command(("gunicorn", "--check-config", "shop:app"), NO_ENVIRONMENT, EMPTY).one_shot
    assert not read_command(("gunicorn", "--reload", "shop:app"), NO_ENVIRONMENT, EMPTY).one_shot


def test_broken_values_are_unknown_not_an_error() -> None:
    broken = {"GUNICORN_CMD_ARGS": "--name 'unclosed"}
    command = read_command(("gunicorn", "--timeout", "soon", "shop:app"), broken, EMPTY)
    assert (command.settings.timeout_s, command.name, command.app) == (None, None, "shop:app")


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
    command = read_command(argv, NO_ENVIRONMENT, EMPTY)
    assert service_name("gunicorn", folder, cgroup, own_name=command.name, app=command.app) == name
    titled = read_command((f"gunicorn: master [{command.name or command.app}]",), NO_ENVIRONMENT, EMPTY)
    if command.app is not None:
        assert service_name("gunicorn", folder, cgroup, own_name=titled.name, app=titled.app) == name


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
