"""What starts a service that does not run, and how long a deploy waits for it."""

from __future__ import annotations

import pytest

from agent.actions.steps import AskSupervisor, RunCommand
from agent.release.starting import start_step, workers_to_wait_for
from agent.wire.app import Start
from agent.workers.settings import ServiceSettings


def test_who_the_file_names_is_asked() -> None:
    step = start_step(Start(unit="shop-web.service"), "/run/s.sock", 60)
    assert step == RunCommand(("systemctl", "start", "shop-web.service"), 60, "start by systemd")
    assert start_step(Start("shop:web"), "/run/s.sock", 60) == AskSupervisor("/run/s.sock", "shop:web", 60, True)


@pytest.mark.parametrize(
    ("kind", "settings", "count"),
    [
        ("gunicorn", ServiceSettings(workers=4), 4),
        ("gunicorn", ServiceSettings(), 1),
        ("uwsgi", ServiceSettings(workers=2), 2),
        ("uvicorn", ServiceSettings(), 0),
        ("uvicorn", ServiceSettings(workers=2), 2),
        ("celery", ServiceSettings(role="worker", workers=2, worker_class="prefork"), 2),
        ("celery", ServiceSettings(role="worker", worker_class="solo"), 0),
        ("celery", ServiceSettings(role="beat"), 0),
    ],
)
def test_as_many_workers_are_waited_for_as_there_will_be(kind: str, settings: ServiceSettings, count: int) -> None:
    assert workers_to_wait_for(kind, settings) == count
