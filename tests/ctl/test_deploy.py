"""`reflexctl app`, `deploy` and their like against a real server."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.wire.app import Start
from ctl.deploy import QUESTIONS, file_of, policy_of
from ctl.errors import Misused
from server.pipeline.site import read_site

FILE = """\
app: {name}
repository: /srv/shop.git
hosts: [web-1, web-2]
user: shop
folder: /srv/shop
secrets: [SECRET_KEY]
"""


@pytest.fixture
def operator(server: Any, ctl: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """reflexctl, as an operator of the server."""
    monkeypatch.setenv("REFLEX_URL", server.base)
    monkeypatch.setenv("REFLEX_TOKEN", server.token)
    return lambda *words: ctl(*words)


def test_an_app_is_taken_on_held_and_forgotten(operator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "reflex.yml"
    file.write_text(FILE.format(name="till").replace("hosts:", "hostss:"))
    wrong = operator("app", "add", str(file))
    assert wrong.code == 1
    assert "reflex.yml:3:1: an app has no 'hostss'; did you mean 'hosts'?" in wrong.out
    assert operator("app", "lint", str(file)).code == 1
    file.write_text(FILE.format(name="till"))
    assert operator("app", "lint", str(file)).out.endswith("till can be used\n")
    added = operator("app", "add", str(file))
    assert added.code == 0
    assert '  [apps.till]\n  user = "shop"\n  folder = "/srv/shop"\n' in added.out
    assert "A secret is missing: reflexctl app secret till SECRET_KEY" in added.out
    missing = operator("deploy", "till")
    assert (missing.code, "secrets of till are not set: SECRET_KEY" in missing.err) == (5, True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("hunter2 is long\n"))
    assert operator("app", "secret", "till", "SECRET_KEY").out == "Secrets of till: SECRET_KEY\n"
    shown = operator("app", "show", "till")
    assert "secrets: SECRET_KEY" in shown.out
    assert "hunter2" not in shown.out
    assert operator("app", "hold", "till", "--why", "a sale").code == 0
    assert re.search(r"held by operator \d+: a sale", operator("app", "list").out)
    waits = operator("deploy", "till", "--no-wait", "--json")
    assert json.loads(waits.out)["deploy"]["stage"] == "queued"
    assert operator("cancel", json.loads(waits.out)["deploy"]["id"]).code == 0
    assert operator("app", "resume", "till").out == "Deploys of till go on.\n"
    assert operator("app", "remove", "till").code == 0
    assert operator("app", "show", "till").code == 1


def test_a_deploy_without_its_first_host_says_so(operator: Any, tmp_path: Path) -> None:
    file = tmp_path / "reflex.yml"
    file.write_text(FILE.format(name="lone").replace("secrets: [SECRET_KEY]\n", ""))
    assert operator("app", "add", str(file)).code == 0
    failed = operator("deploy", "lone", "--why", "to see")
    assert failed.code == 5
    assert re.search(r"operator \d+ began to deploy lone to main on web-1, web-2: to see\.", failed.out)
    assert "its first host web-1 cannot be reached" in failed.err
    releases = operator("releases", "lone")
    assert re.search(r"failed  lone main by operator \d+: to see", releases.out)
    assert "web-1: waiting" in releases.out
    assert operator("logs").code == 1
    assert operator("logs", "00000000").code == 1
    assert operator("rollback", "nobody").code == 1


def test_what_is_asked_makes_a_file_that_can_be_used() -> None:
    said = {key: default.format(app="shop") for key, _question, default in QUESTIONS}
    said |= {"app": "shop", "repository": "git@git.example:shop.git", "hosts": "web-1, web-2", "user": "shop"}
    said |= {"migrate": "python manage.py migrate", "web": "shop-web", "celery": "shop-jobs", "start": "supervisor"}
    site = read_site(file_of(said), "reflex.yml")
    assert (site.app.web[0].start, site.app.jobs[0].start) == (Start("shop-web"), Start("shop-jobs"))
    assert policy_of(file_of(said), "shop")[-1] == '  starts = ["shop-web", "shop-jobs"]'
    said |= {"start": "systemd"}
    assert read_site(file_of(said), "reflex.yml").app.web[0].start == Start(unit="shop-web.service")
    assert policy_of(file_of(said), "shop")[-1] == '  starts = ["shop-web.service", "shop-jobs.service"]'
    with pytest.raises(Misused, match="not by 'cron'"):
        file_of(said | {"start": "cron"})
    assert site.hosts == ("web-1", "web-2")
    assert (site.app.web[0].app, site.app.jobs[0].service) == ("shop.wsgi:application", "shop-jobs")
    assert site.app.migrate is not None
