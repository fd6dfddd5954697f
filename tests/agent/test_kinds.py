"""What uWSGI, uvicorn and Celery look like from outside: command lines, files, environments, titles."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agent.discovery import kind_of_command
from agent.naming import release_folder, service_name
from agent.procfs import Listener, OpenFile
from agent.workers import KINDS, celery, uvicorn, uwsgi
from agent.workers.arguments import after_program, take_apart
from agent.workers.kind import Child
from agent.workers.settings import ServiceSettings

NO_ENVIRONMENT: dict[str, str] = {}


class Folder:
    """Files by their paths."""

    def __init__(self, files: dict[str, str] | None = None) -> None:
        self._files = files or {}

    def has(self, path: str) -> bool:
        return path in self._files

    def text(self, path: str) -> str:
        return self._files.get(path, "")


class Seen:
    """A process that shows this."""

    def __init__(self, argv: Sequence[str], *, awaited: Sequence[int] = (), sleeps_in: str | None = None) -> None:
        self._argv, self._awaited, self._sleeps_in = tuple(argv), frozenset(awaited), sleeps_in

    def command(self, pid: int) -> tuple[str, ...]:
        return self._argv

    def open_files(self, pid: int, name_part: str) -> tuple[OpenFile, ...]:
        return ()

    def awaited(self, pid: int) -> frozenset[int]:
        return self._awaited

    def listeners(self, pid: int) -> tuple[Listener, ...]:
        return (Listener(7, "tcp 127.0.0.1:8000"),)

    def listening_inodes(self, pid: int) -> frozenset[int]:
        return frozenset({7})

    def sleeps_in(self, pid: int) -> str | None:
        return self._sleeps_in


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("uwsgi --ini shop.ini", "uwsgi"),
        ("/usr/bin/uwsgi_python3 --ini shop.ini", "uwsgi"),
        ("/venv/bin/python /venv/bin/uvicorn shop:app", "uvicorn"),
        ("python -m uvicorn shop:app", "uvicorn"),
        ("python /venv/bin/fastapi run main.py", "uvicorn"),
        ("python /venv/bin/celery -A shop worker -l info", "celery"),
        ("python -m celery -A shop beat", "celery"),
        ("/venv/bin/celery -A shop --workdir=/srv worker", "celery"),
        ("python /venv/bin/celery -A shop inspect active", None),
        ("python /venv/bin/celery multi start w1 -A shop", None),
        ("python /venv/bin/fastapi --help", None),
        ("python -m gunicorn -k uvicorn.workers.UvicornWorker shop:app", "gunicorn"),
        ("python manage.py celery worker", None),
        ("python -m pytest tests/uvicorn", None),
        ("vim uwsgi", None),
    ],
)
def test_whose_command_line_it_is(line: str, kind: str | None) -> None:
    found = kind_of_command(tuple(line.split()))
    assert (None if found is None else found.KIND) == kind


@pytest.mark.parametrize(
    ("title", "kind", "is_worker"),
    [
        ("[celeryd: orders@web-1:MainProcess] -active- (-A shop worker -c 4)", "celery", False),
        ("[celeryd: orders@web-1:ForkPoolWorker-3]", "celery", True),
        ("[celery beat] (-A shop beat)", "celery", True),
        ("uWSGI master", "uwsgi", False),
        ("shop uWSGI worker 2", "uwsgi", True),
        ("uWSGI http 1", "uwsgi", True),
        ("gunicorn: worker [shop]", "gunicorn", True),
    ],
)
def test_titles(title: str, kind: str, is_worker: bool) -> None:
    found = kind_of_command((title,))
    assert found is KINDS[kind]
    assert found.is_worker_title((title,)) is is_worker


def test_a_uwsgi_file_is_read() -> None:
    ini = "[uwsgi]\nmaster = true\nprocesses = 4\n; threads = 9\nthreads = 2\nmodule = shop.wsgi\nharakiri = 20\n"
    ini += "max-requests = 500\nsocket = /run/a.sock\nsocket = :3031\nlazy-apps = true\n[other]\nprocesses = 9\n"
    command = uwsgi.read_command(("uwsgi", "--ini", "a.ini", "--threads", "3"), NO_ENVIRONMENT, Folder({"a.ini": ini}))
    assert command.settings == ServiceSettings(
        app="shop.wsgi",
        workers=4,
        threads=3,
        worker_class="threads",
        timeout_s=20.0,
        max_requests=500,
        preload=False,
        binds=("/run/a.sock", ":3031"),
        config_file="a.ini",
    )
    assert not command.serves_itself


def test_uwsgi_without_what_its_file_says_is_unknown() -> None:
    settings = uwsgi.read_command(("uwsgi", "a.ini"), NO_ENVIRONMENT, Folder()).settings
    assert (settings.workers, settings.threads, settings.max_requests, settings.preload) == (None, None, None, None)
    titled = uwsgi.read_command(("uWSGI master",), NO_ENVIRONMENT, Folder()).settings
    assert (titled.workers, titled.preload) == (None, None)
    assert uwsgi.read_command(("shop uWSGI master",), NO_ENVIRONMENT, Folder()).name == "shop"


def test_uwsgi_reads_its_environment_and_files_that_name_files() -> None:
    files = Folder({"a.ini": "[uwsgi]\nini = b.ini\nini = a.ini\n", "b.ini": "[uwsgi]\nprocesses=5\nmule=true\n"})
    command = uwsgi.read_command(("uwsgi", "--ini", "a.ini"), {"UWSGI_HARAKIRI": "9"}, files)
    assert (command.settings.workers, command.settings.timeout_s) == (5, 9.0)
    assert command.settings.role == "with helpers"


def test_what_a_fork_of_uwsgi_is() -> None:
    argv = ("uwsgi", "--ini", "a.ini")
    plain, mules = ServiceSettings(workers=2), ServiceSettings(workers=2, role="with helpers")
    assert uwsgi.child(Seen(argv), 1, argv, plain) is Child.WORKER
    assert uwsgi.child(Seen(argv), 1, argv, mules) is Child.UNKNOWN
    assert uwsgi.child(Seen(argv, awaited=(3, 7)), 1, argv, mules) is Child.WORKER
    assert uwsgi.child(Seen(("sleep", "9")), 1, argv, plain) is Child.UNKNOWN
    assert uwsgi.child(Seen(("uWSGI mule 1",)), 1, argv, plain) is Child.HELPER
    router = ServiceSettings(workers=2, role="with helpers", router_binds=("0.0.0.0:8000",))
    assert uwsgi.child(Seen(argv, awaited=(3, 7)), 1, argv, router) is Child.UNKNOWN
    assert uwsgi.is_ready(Seen(argv, awaited=(7,)), 1)
    assert not uwsgi.is_ready(Seen(argv, awaited=(8,)), 1)


def test_uvicorn_settings() -> None:
    argv = ("python", "/v/bin/uvicorn", "--workers", "3", "--limit-max-requests=900", "shop:app", "--uds", "/run/a")
    command = uvicorn.read_command(argv, NO_ENVIRONMENT, Folder())
    settings = command.settings
    assert (settings.app, settings.workers, settings.max_requests) == ("shop:app", 3, 900)
    assert (settings.binds, command.serves_itself) == (("unix:/run/a",), False)
    alone = uvicorn.read_command(("uvicorn", "shop:app"), NO_ENVIRONMENT, Folder())
    assert (alone.settings.binds, alone.serves_itself) == (("127.0.0.1:8000",), True)
    by_environment = uvicorn.read_command(("uvicorn", "shop:app"), {"WEB_CONCURRENCY": "2"}, Folder())
    assert by_environment.settings.workers == 2
    fast = uvicorn.read_command(("fastapi", "run", "main.py", "--workers", "4"), NO_ENVIRONMENT, Folder())
    assert (fast.settings.app, fast.settings.workers) == ("main.py", 4)


def test_what_a_child_of_uvicorn_is() -> None:
    spawned = ("python", "-c", "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5)")
    tracker = ("python", "-c", "from multiprocessing.resource_tracker import main;main(4)")
    settings = ServiceSettings()
    assert uvicorn.child(Seen(spawned), 1, (), settings) is Child.WORKER
    assert uvicorn.child(Seen(tracker), 1, (), settings) is Child.HELPER
    assert uvicorn.child(Seen(("uvicorn", "shop:app")), 1, (), settings) is Child.UNKNOWN


def test_celery_settings() -> None:
    argv = ("python", "-m", "celery", "-A", "shop", "worker", "-Q", "a,b", "-c4", "-n", "orders@%h", "-Ofair", "-B")
    command = celery.read_command((*argv, "--max-tasks-per-child=9", "--time-limit", "60"), NO_ENVIRONMENT, Folder())
    settings = command.settings
    assert (settings.app, settings.workers, settings.worker_class, settings.queues) == (
        "shop",
        4,
        "prefork",
        ("a", "b"),
    )
    assert (settings.max_requests, settings.timeout_s, settings.role, command.name) == (9, 60.0, "worker", "orders")
    threads = celery.read_command(("celery", "-A", "x", "worker", "-P", "threads", "-c", "8"), NO_ENVIRONMENT, Folder())
    assert (threads.settings.workers, threads.settings.threads, threads.serves_itself) == (None, 8, True)
    assert celery.read_command(("celery", "-A", "x", "worker", "-D"), NO_ENVIRONMENT, Folder()).one_shot
    titled = celery.read_command(("[celeryd: a@h:MainProcess] -active- (-A shop worker -c 2)",), {}, Folder())
    assert (titled.settings.app, titled.settings.workers, titled.name) == ("shop", 2, "a")
    for title in ("[celery beat] -A shop beat -s x", "[celery beat] (-A shop beat)"):
        beat = celery.read_command((title,), {}, Folder())
        assert (beat.settings.app, beat.settings.role, beat.name) == ("shop", "beat", None)


def test_celery_brokers_the_surest_first_and_never_a_result_backend() -> None:
    environment = {
        "APP_REDIS": "redis://a",
        "CELERY_RESULT_BACKEND": "redis://results",
        "CACHE_URL": "redis://cache",
        "CELERY_BROKER_URL": "amqp://u:p@b//",
        "HOME": "/root",
    }
    argv = ("celery", "-A", "x", "-b", "sentinel://s", "worker")
    command = celery.read_command(argv, environment, Folder())
    assert command.broker_urls == ("sentinel://s", "amqp://u:p@b//", "redis://a")
    assert "u:p" not in repr(command)


def test_what_a_fork_of_celery_is() -> None:
    argv = ("python", "-m", "celery", "-A", "x", "worker")
    prefork, threads = ServiceSettings(worker_class="prefork"), ServiceSettings(worker_class="threads")
    assert celery.child(Seen(argv, sleeps_in="pipe_read"), 1, argv, prefork) is Child.WORKER
    assert celery.child(Seen(argv), 1, argv, prefork) is Child.UNKNOWN
    assert celery.child(Seen(argv, sleeps_in="pipe_read"), 1, argv, threads) is Child.UNKNOWN
    assert celery.child(Seen(("[celery beat]",)), 1, argv, prefork) is Child.HELPER
    assert celery.is_ready(Seen(argv, sleeps_in="anon_pipe_read"), 1)
    assert not celery.is_ready(Seen(argv), 1)


def test_options_with_and_without_spaces_and_equals() -> None:
    arguments = take_apart(["-w4", "--bind=:80", "--bind", ":81", "-v", "app", "--last"], frozenset({"-v"}))
    assert (arguments.last("-w"), arguments.every("--bind"), arguments.words) == ("4", (":80", ":81"), ("app",))
    assert (arguments.has("-v"), arguments.last("--last"), arguments.last("--none")) == (True, "", None)
    assert after_program(("python", "-m", "pip", "celery"), ("celery",)) is None


@pytest.mark.parametrize(
    ("folder", "release"),
    [
        ("/srv/shop/releases/20261123T010203", "20261123T010203"),
        ("/srv/shop/releases/v12/backend", "v12"),
        ("/srv/shop/releases", None),
        ("/srv/shop", None),
    ],
)
def test_the_release_that_a_folder_is_of(folder: str, release: str | None) -> None:
    assert release_folder(folder) == release


def test_names_are_what_the_wire_takes() -> None:
    long = service_name("celery", f"/srv/{'x' * 300}", "/", own_name=None, app="shop\n\x07" + "y" * 300)
    assert len(long) <= 120
    assert long.isprintable()
    assert len(release_folder(f"/srv/releases/{'z' * 250}") or "") <= 120


def test_a_release_folder_is_no_part_of_the_name() -> None:
    for release in ("20261123T010203", "v12", "blue"):
        folder = f"/srv/shop/releases/{release}"
        assert service_name("uwsgi", folder, "/", own_name=None, app="shop.wsgi") == "shop/shop.wsgi"
    assert service_name("celery", "/srv/shop", "/", own_name=None, app="shop", role="beat") == "shop/shop beat"
