"""The file of an app: what it says, and how its mistakes are told."""

from __future__ import annotations

import pytest

from agent.wire.app import Health, Jobs, Migrate, Start, Watch, Web, app_from_json, app_to_json
from server.pipeline.site import SiteError, read_site

WHOLE = """\
app: shop
repository: git@git.example:team/shop.git
ref: main
hosts: [web-1, web-2]
batch: 2
stop_after: 1
on_failure: leave
user: shop
folder: /srv/shop
shared: [media, var/log]
keep: 3
build:
  python: python3.12
  requirements: requirements/production.txt
  commands:
    - python manage.py collectstatic --noinput
    - [npm, run, "build all"]
  within: 10m
checks:
  - python manage.py check --deploy
migrate: {command: python manage.py migrate --noinput, when: after}
web:
  - service: shop-web
    app: shop.wsgi:application
    strategy: handover
    health: {path: /healthz, address: /run/shop.sock, status: 204, contains: ok, within: 500ms, host: shop.example}
    boot: 20s
    start: {unit: shop-web.service}
celery:
  - {service: shop-jobs, drain: 5m, past: kill, start: {supervisor: "shop:jobs"}}
watch: {for: 2m, deaths: 1, errors_percent: 2, slower: 100ms, memory_ratio: 1.2}
environment: {DJANGO_SETTINGS_MODULE: shop.settings, WORKERS: 4, DEBUG: false}
secrets: [SECRET_KEY]
patience: 30s
"""


def test_all_of_it_is_read() -> None:
    site = read_site(WHOLE, "reflex.yml")
    app = site.app
    assert (site.hosts, site.batch, site.on_failure, site.secrets) == (("web-1", "web-2"), 2, "leave", ("SECRET_KEY",))
    assert site.patience_s == 30
    assert app.build.commands[1] == ("npm", "run", "build all")
    assert app.build.within_s == 600
    assert app.migrate == Migrate(("python", "manage.py", "migrate", "--noinput"), "after")
    health = Health("/healthz", "/run/shop.sock", 204, "ok", 0.5, "shop.example")
    start = Start(unit="shop-web.service")
    assert app.web == (Web("shop-web", "shop.wsgi:application", "handover", health, 20.0, start=start),)
    assert app.jobs == (Jobs("shop-jobs", 300.0, "kill", start=Start("shop:jobs")),)
    assert app.watch == Watch(120.0, 1, 2.0, 100.0, 1.2)
    assert app.environment == {"DJANGO_SETTINGS_MODULE": "shop.settings", "WORKERS": "4", "DEBUG": "false"}
    assert app_from_json(app_to_json(app)) == app


def test_little_is_enough() -> None:
    site = read_site("app: a\nrepository: /r\nhosts: [h]\nuser: u\nfolder: /srv/a\n", "reflex.yml")
    assert (site.app.ref, site.batch, site.app.watch.for_s) == ("main", 1, 300)


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        ("app: shop", "app: Shop!", "1:6: name must be of a-z, 0-9, dot, _ and -, not 'Shop!'"),
        ("folder: /srv/shop", "folder: /srv/../etc", "9:9: folder must be a full path"),
        ("folder: /srv/shop", "folder: /srv", "9:9: folder must be a full path"),
        ("user: shop", "user: root; rm", "8:7: user must be a user's name"),
        ("keep: 3", "keeep: 3", "11:1: an app has no 'keeep'; did you mean 'keep'?"),
        ("batch: 2", "batch: many", "5:8: 'batch' must be a whole number"),
        ("boot: 20s", "boot: 20", "'boot' must be a text, not 20"),
        (
            "start: {unit: shop-web.service}",
            "start: {unit: shop-web}",
            "start.unit must be a unit such as shop-web.service",
        ),
        ("start: {unit: shop-web.service}", "start: {}", "start must name one who starts it"),
        ("start: {unit: shop-web.service}", "start: {supervisor: a b}", "start.supervisor must be a program such as"),
        ("start: {unit: shop-web.service}", "start: {units: x}", "start has no 'units'; did you mean 'unit'?"),
        ("strategy: handover", "strategy: handover2", "'strategy' is 'handover2'; did you mean 'handover'?"),
        ("secrets: [SECRET_KEY]", "secrets: [SECRET-KEY]", "'SECRET-KEY' is no name of a variable"),
        ("shared: [media, var/log]", "shared: [../media]", "10:9: shared must be a path inside of the release"),
        ("- python manage.py check --deploy", "- make all && rm x", "'&&' would be a word of the command: no shell"),
        ("- python manage.py check --deploy", "- python 'manage.py", "'checks': No closing quotation"),
        ("ref: main", "ref: -upload-pack=x", "3:6: ref must be a branch, a tag or a commit"),
        ("repository: git@git.example:team/shop.git", "repository: ext::sh -c x", "must be an address"),
        (
            "repository: git@git.example:team/shop.git",
            "repository: https://ada:secret@git.example/x",
            "must not contain a password",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(line: str, instead: str, said: str) -> None:
    assert line in WHOLE
    with pytest.raises(SiteError) as caught:
        read_site(WHOLE.replace(line, instead), "reflex.yml")
    assert said in str(caught.value)
    assert str(caught.value).startswith("reflex.yml:")


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SiteError) as caught:
        read_site("app: a\nhosts: []\nuser: u\n", "reflex.yml")
    said = str(caught.value)
    assert "lacks 'repository'" in said
    assert "lacks 'folder'" in said
    assert "'hosts' must have at least 1 member" in said
