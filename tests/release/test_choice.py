"""How a service comes to serve another release, decided from plain values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.actions.action import ServiceView
from agent.managers import Manager, holds_socket, is_keeper
from agent.release.choice import NoWay, Standing, bridge_argv, runs_release, venv_of, way_of
from agent.wire import Target
from agent.wire.app import Web

SUPERVISOR = Manager("supervisor", "shop:web", "/run/supervisor.sock")


def service(kind: str, manager: Manager | None = None) -> ServiceView:
    return ServiceView("shop-web", kind, Target(10, 1), (), 1000, manager=manager)


@pytest.mark.parametrize(
    ("kind", "manager", "standing", "way"),
    [
        ("gunicorn", None, Standing(False, False), "handover"),
        ("gunicorn", None, Standing(False, True), "handover"),
        ("gunicorn", SUPERVISOR, Standing(True, True), "handover"),
        ("gunicorn", SUPERVISOR, Standing(False, False), "reload"),
        ("uvicorn", SUPERVISOR, Standing(True, False, holds_socket=True), "handover"),
        ("uvicorn", None, Standing(True, False, holds_socket=True), "handover"),
        ("uwsgi", SUPERVISOR, Standing(True, True, holds_socket=True), "handover"),
        ("uwsgi", SUPERVISOR, Standing(True, True, holds_socket=True, finishes=False), "reload"),
        ("uwsgi", SUPERVISOR, Standing(False, False), "reload"),
    ],
)
def test_the_best_way_is_taken(kind: str, manager: Manager | None, standing: Standing, way: str) -> None:
    assert way_of(Web("shop-web"), service(kind, manager), standing) == way


@pytest.mark.parametrize(
    "argv", [("/v/bin/python", "-m", "gunicorn", "a:b"), ("/v/bin/python", "/v/lib/gunicorn/__main__.py")]
)
def test_gunicorn_that_was_started_as_a_module_does_not_hand_over(argv: tuple[str, ...]) -> None:
    module = replace(service("gunicorn"), argv=argv)
    assert way_of(Web("shop-web"), module, Standing(True, False)) == "reload"
    with pytest.raises(NoWay, match="of which a second master cannot import http; start it by the keeper"):
        way_of(Web("shop-web", strategy="handover"), module, Standing(True, False))
    script = replace(module, argv=("/v/bin/python", "/v/bin/gunicorn", "a:b"))
    assert way_of(Web("shop-web"), script, Standing(True, False)) == "handover"


def test_a_restart_has_to_be_allowed() -> None:
    with pytest.raises(NoWay, match="only a restart makes shop-web serve another release"):
        way_of(Web("shop-web"), service("gunicorn", SUPERVISOR), Standing(False, True))
    allowed = Web("shop-web", restart_may_fail_requests=True)
    assert way_of(allowed, service("gunicorn", SUPERVISOR), Standing(False, True)) == "restart"
    assert way_of(allowed, service("uvicorn", SUPERVISOR), Standing(False, False)) == "restart"
    assert way_of(allowed, service("gunicorn", SUPERVISOR), Standing(False, False, is_inside=False)) == "restart"
    with pytest.raises(NoWay, match="nobody is known who starts shop-web again"):
        way_of(allowed, service("uvicorn"), Standing(False, False))


@pytest.mark.parametrize(
    ("strategy", "kind", "manager", "standing", "why"),
    [
        ("handover", "celery", None, Standing(False, False), "cannot hand over"),
        ("handover", "uwsgi", None, Standing(False, False), "start it by reflex-keep --listen"),
        ("handover", "uwsgi", None, Standing(True, False, True, finishes=False), "would cut its requests off"),
        ("handover", "gunicorn", SUPERVISOR, Standing(False, False), "would take the handover of shop-web for its end"),
        ("handover", "uvicorn", SUPERVISOR, Standing(True, False), "start it by reflex-keep --listen"),
        ("reload", "uvicorn", None, Standing(False, False), "cannot load another release by itself"),
        ("reload", "gunicorn", None, Standing(False, True), "preloads its application"),
        ("auto", "gunicorn", None, Standing(False, False, is_inside=False), "works outside of the app's folder"),
        ("reload", "uwsgi", None, Standing(False, False, is_inside=False), "works outside of the app's folder"),
    ],
)
def test_a_way_that_is_not_safe_is_refused(
    strategy: str, kind: str, manager: Manager | None, standing: Standing, why: str
) -> None:
    with pytest.raises(NoWay, match=why):
        way_of(Web("shop-web", strategy=strategy), service(kind, manager), standing)  # type: ignore[arg-type]


def test_a_keeper_is_known_by_its_name() -> None:
    assert is_keeper(("/usr/bin/python3", "-I", "/opt/reflex/bin/reflex-keep", "--", "gunicorn"))
    assert not is_keeper(("/srv/shop/current/venv/bin/python", "-m", "gunicorn", "keep.py:app"))
    keeper = ("/usr/bin/python3", "-I", "/opt/reflex/reflex-keep")
    assert holds_socket((*keeper, "--listen", "127.0.0.1:8000", "--", "uvicorn", "--fd", "3"))
    assert not holds_socket((*keeper, "--", "server", "--listen", "127.0.0.1:8000"))


def test_old_code_is_seen() -> None:
    folder, venv = "/srv/shop/releases/2", "/srv/shop/venvs/b"
    assert runs_release(folder, venv, folder, venv) == ""
    assert runs_release(f"{folder}/src", None, folder, venv) == ""
    assert "its working folder is /srv/shop/releases/1" in runs_release("/srv/shop/releases/1", venv, folder, venv)
    assert "its packages are those of /srv/shop/venvs/a" in runs_release(folder, "/srv/shop/venvs/a", folder, venv)
    assert runs_release("/srv/shop/releases/20", venv, folder, venv)
    assert runs_release(folder, "/opt/venv", folder, None) == ""


def test_a_virtual_environment_is_known_by_the_interpreter() -> None:
    assert venv_of(("/srv/shop/current/venv/bin/python", "-m", "gunicorn")) == "/srv/shop/current/venv"
    assert venv_of(("python", "-m", "gunicorn")) is None
    assert venv_of(()) is None


def test_a_second_node_has_its_own_name_and_no_beat() -> None:
    argv = ("python", "-m", "celery", "-A", "jobs", "worker", "-B", "-n", "shop@%h", "-c", "2", "--pidfile=/run/c.pid")
    assert bridge_argv(argv, "reflex-1@%h") == (
        "python", "-m", "celery", "-A", "jobs", "worker", "-c", "2", "-n", "reflex-1@%h",
    )  # fmt: skip
