"""What the repository of an app says in its own file: read with line numbers, merged with the server's, on a real host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.release.failure import ReleaseFailed
from agent.release.hired import Runner
from agent.release.own import merged
from agent.release.own_file import OwnFileWrong, read_own_file
from agent.release.prepare import Preparation, Prepared
from agent.release.records import Records
from agent.wire import Order
from agent.wire.app import App, Health, Jobs, Web, app_from_json, app_to_json
from playbooks.apps import read_own
from playbooks.problems import PlaybookError
from server.pipeline.site import SiteError, read_site

ROOT = Path(__file__).parents[2]
SERVERS = """\
app: shop
repository: /srv/shop.git
hosts: [web-1]
user: nobody
folder: /srv/shop
from_repository: true
build: {within: 5m}
web:
  - {service: shop-web, health: {address: "127.0.0.1:8000", within: 1s}}
celery:
  - {service: shop-jobs, drain: 1m}
environment: {A: server, B: server}
"""
OWN = """\
shared: [media]
build:
  python: python3.12
  commands: [make assets]
  within: 1h
checks: [make check]
migrate: {command: make migrate, when: after}
web:
  - service: shop-web
    app: shop.wsgi
    strategy: handover
    boot: 20s
    health: {path: /healthz, within: 9s}
celery:
  - {service: shop-jobs, drain: 1h, past: kill}
environment: {A: own, C: 3}
"""
SERVICES = {"web": ["shop-web"], "celery": ["shop-jobs"]}


def site_app(text: str = SERVERS) -> App:
    return read_site(text, "shop.yml").app


def test_the_servers_file_stands_and_the_repositorys_says_the_rest() -> None:
    app = merged(site_app(), read_own(OWN, "reflex.yml", SERVICES))
    assert (app.build.within_s, app.build.python, app.build.commands) == (300, "python3.12", (("make", "assets"),))
    assert (app.checks, app.shared) == ((("make", "check"),), ("media",))
    assert app.migrate is not None
    assert app.migrate.when == "after"
    health = Health("/healthz", "127.0.0.1:8000", within_s=1.0)
    assert app.web == (Web("shop-web", "shop.wsgi", "handover", health, 20.0),)
    assert app.jobs == (Jobs("shop-jobs", 60.0, "kill"),)
    assert app.environment == {"A": "server", "B": "server", "C": "3"}
    assert (app.user, app.folder, app.repository) == ("nobody", "/srv/shop", "/srv/shop.git")


def test_what_the_server_says_whole_stays_whole() -> None:
    said = SERVERS + "checks: []\nshared: []\nmigrate: {command: server migrate}\n"
    app = merged(site_app(said), read_own(OWN, "reflex.yml", SERVICES))
    assert (app.checks, app.shared) == ((), ())
    assert app.migrate is not None
    assert app.migrate.command == ("server", "migrate")


def test_without_the_key_a_repository_says_nothing() -> None:
    app = site_app(SERVERS.replace("from_repository: true\n", ""))
    assert (app.own_file, app.said) == ("", ())
    assert merged(app, read_own(OWN, "reflex.yml", SERVICES)) == app
    assert {"own_file", "said"} & app_to_json(app).keys() == set()  # agents of before know neither


def test_it_goes_over_the_wire() -> None:
    app = site_app(SERVERS.replace("true", "deploy/reflex.yml"))
    assert app.own_file == "deploy/reflex.yml"
    assert app_from_json(json.loads(json.dumps(app_to_json(app)))) == app


def test_a_service_that_the_server_names_no_more_is_left_out() -> None:
    app = site_app(SERVERS.replace("shop-jobs", "shop-tasks"))
    assert merged(app, read_own(OWN, "reflex.yml", SERVICES)).jobs == (Jobs("shop-tasks", 60.0),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user: root\n", "reflex.yml:1:1: 'user' is for the server's file of the app to say"),
        ("checks: []\nhosts: [web-9]\n", "reflex.yml:2:1: 'hosts' is for the server's file"),
        ("watch: {for: 1s}\n", "reflex.yml:1:1: 'watch' is for the server's file"),
        ("secrets: [KEY]\n", "reflex.yml:1:1: 'secrets' is for the server's file"),
        ("build: {least_free_mb: 0}\n", "reflex.yml:1:9: 'least_free_mb' is for the server's file"),
        (
            "web:\n  - service: shop-web\n    restart_may_fail_requests: true\n",
            "reflex.yml:3:5: 'restart_may_fail_requests' is for the server's file",
        ),
        (
            "web:\n  - service: shop-web\n    health: {address: /run/docker.sock}\n",
            "reflex.yml:3:14: 'address' is for the server's file",
        ),
        (
            "web:\n  - {service: till-web}\n",
            "reflex.yml:2:5: 'till-web' is no service of the server's file, which names",
        ),
        ("celery:\n  - {service: shop-web}\n", "reflex.yml:2:5: 'shop-web' is no service of the server's file"),
        ("chekcs: [a]\n", "reflex.yml:1:1: the repository's file has no 'chekcs'; did you mean 'checks'?"),
        ("build: {commands: [a | b]}\n", "reflex.yml:1:20: 'commands': '|' would be a word of the command"),
        ("shared: [../etc]\n", "reflex.yml:1:9: shared must be a path inside of the release"),
        ("build: [\n", "reflex.yml:2:1: is no YAML"),
        ("", "reflex.yml:1:1: is empty"),
    ],
)
def test_what_it_may_not_say_is_told_with_its_place(text: str, said: str) -> None:
    with pytest.raises(PlaybookError) as caught:
        read_own(text, "reflex.yml", SERVICES)
    assert str(caught.value).startswith(said)


def test_the_servers_file_names_a_path_inside_of_the_repository() -> None:
    with pytest.raises(SiteError, match=r"shop.yml:6:18: from_repository must be a path inside of the release"):
        site_app(SERVERS.replace("true", "/etc/passwd"))


async def test_it_is_read_in_a_process_of_its_own() -> None:
    assert await read_own_file(OWN.encode(), site_app()) == read_own(OWN, "reflex.yml", SERVICES)
    for raw, said in ((b"\xff\xfe", "is no UTF-8"), (b"user: root", "is for the server's file"), (b"", "is empty")):
        with pytest.raises(OwnFileWrong, match=said):
            await read_own_file(raw, site_app())


def test_an_agent_does_not_load_what_reads_it() -> None:
    known = "import agent.release.releaser, sys; print('ruamel.yaml' in sys.modules or 'playbooks' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", known], capture_output=True, cwd=ROOT, check=True).stdout == b"False\n"


def test_what_each_release_says_is_remembered(tmp_path: Path) -> None:
    records = Records(tmp_path / "releases.json")
    records.app("shop").own["1"] = read_own(OWN, "reflex.yml", SERVICES)
    records.save()
    assert merged(site_app(), Records(tmp_path / "releases.json").app("shop").own["1"]).build.python == "python3.12"


# On a real host.

CHECK = "import os, pathlib; assert os.environ['WHO'] == 'own'; pathlib.Path('checked').write_text('yes')\n"


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(f"/tmp/reflex-test-own-{os.getpid()}")
    folder.mkdir(mode=0o755)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture
def runner(home: Path) -> Iterator[Runner]:
    policy, path = home / "policy.toml", home / "runner.sock"
    policy.write_text(f'[apps.shop]\nuser = "nobody"\nfolder = "{home}/shop"\n')
    command = [sys.executable, "-m", "agent", "runner", "--socket", str(path), "--policy-file", str(policy)]
    process = subprocess.Popen([*command, "--until-closed", "0"], stdin=subprocess.PIPE, cwd=ROOT)
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.02)
    yield Runner(path, "shop")
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0


def commit(repository: Path, files: dict[str, str]) -> None:
    """Another commit on main."""
    repository.mkdir(exist_ok=True)
    for name, text in files.items():
        (repository / name).write_text(text)
    who = ("-c", "user.name=Demo", "-c", "user.email=demo@localhost")
    for words in (("init", "-q", "-b", "main", "."), ("add", "-A"), (*who, "commit", "-q", "-m", "A change")):
        subprocess.run(["git", *words], cwd=repository, check=True)


async def prepare(home: Path, runner: Runner, said: list[str], **other: Any) -> Prepared:
    """A preparation of what is on main."""
    text = SERVERS.replace("/srv/shop.git", str(home / "shop.git")).replace("/srv/shop", f"{home}/shop")
    app = replace(site_app(text), **other)
    order = Order("1", "d", "prepare", "host", 0, 1, "c", app)
    return await Preparation(
        order, runner, known={}, kinds={}, venvs=(), bad={}, say=said.append, stepped=lambda _step, _seconds: None
    ).run()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: builds run as another user")
async def test_a_release_is_made_as_its_own_commit_has_it(home: Path, runner: Runner) -> None:
    own = (
        "shared: [media]\nbuild: {commands: [python3 check.py]}\nenvironment: {WHO: own}\n"
        "migrate: {command: python3 migrate.py}\n"
    )
    commit(home / "shop.git", {"reflex.yml": own, "check.py": CHECK})
    said: list[str] = []
    prepared = await prepare(home, runner, said)
    release = home / "shop" / "releases" / prepared.release
    assert (release / "checked").read_text() == "yes", said
    assert (release / "media").is_symlink()
    assert "WHO='own'\n" in (release / ".environment").read_text()
    assert prepared.own["migrate"] == {"command": ["python3", "migrate.py"]}
    assert prepared.notes[0] == "reflex.yml of the commit says shared, environment, build, migrate"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: builds run as another user")
@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"reflex.yml": "build: {commands: [touch built]}\n\nuser: root\n"},
            "reflex.yml:3:1: 'user' is for the server's",
        ),
        ({"reflex.yml": "# " + "x" * 100_000}, "reflex.yml has 100002 bytes; at most 100000"),
        ({"other.yml": ""}, "there is no reflex.yml in this commit"),
    ],
    ids=["of the server", "too large", "missing"],
)
async def test_nothing_is_built_by_a_file_that_cannot_be_used(
    home: Path, runner: Runner, files: dict[str, str], said: str
) -> None:
    commit(home / "shop.git", files)
    with pytest.raises(ReleaseFailed, match=said) as caught:
        await prepare(home, runner, [])
    assert caught.value.step == "settings"
    assert list((home / "shop" / "releases").iterdir()) == []
