"""The policy of a host: what it allows, and how a broken one is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.actions import ACTIONS
from agent.policy import AppRules, Policy, PolicyError, load_policy
from agent.wire.app import App, Jobs, Start, Web

RECYCLE, RUN = ACTIONS["gunicorn.recycle_worker"], ACTIONS["command.run"]


def policy(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return load_policy(path)


def test_without_a_file_the_defaults_count(tmp_path: Path) -> None:
    given = load_policy(tmp_path / "none.toml")
    assert given.refusal(RECYCLE, "shop-web") is None
    refused = {name for name, action in ACTIONS.items() if given.refusal(action, "shop-web")}
    assert refused == {
        "command.run",
        "cgroup.set_limit",
        "unit.restart",
        "supervisor.restart",
        "circus.restart",
    }


def test_deny_goes_before_allow_and_a_service_before_the_host(tmp_path: Path) -> None:
    given = policy(
        tmp_path,
        'allow = ["gunicorn.*"]\ndeny = ["gunicorn.scale"]\n[services."shop-*"]\nallow = ["celery.*"]\n',
    )
    assert given.refusal(RECYCLE, "blog") is None
    assert "denies" in str(given.refusal(ACTIONS["gunicorn.scale"], "blog"))
    assert "does not allow" in str(given.refusal(RECYCLE, "shop-web"))


def test_a_command_is_named_with_user_and_time(tmp_path: Path) -> None:
    text = 'allow = ["command.run"]\n[commands.x]\nargv = ["/bin/true"]\nuser = "root"\ntimeout_s = 5\n'
    command = policy(tmp_path, text).commands["x"]
    assert (command.argv, command.within_s, command.uid) == (("/bin/true",), 5.0, 0)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("allow = ]", 1, "is not TOML"),
        ('\nalow = ["x"]', 2, "alow is not known"),
        ("allow = 1", 1, "allow must be a list of texts"),
        ('stop = "yes"', 1, "stop must be true or false"),
        ('[commands.x]\nargv = ["true"]', 2, "full path"),
        ('[commands.x]\nargv = ["/bin/true"]\nuser = "nobody-at-all"', 3, "no user of this host"),
        ('[commands.x]\nargv = ["/bin/true"]\ntimeout_s = 0', 3, "timeout_s must be"),
        ('[services.shop]\nalow = ["x"]', 2, "alow is not known in shop"),
    ],
)
def test_a_broken_file_is_told_with_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(PolicyError) as raised:
        policy(tmp_path, text)
    assert said in str(raised.value)
    assert f"line {line}" in str(raised.value)


def test_an_app_is_deployed_as_the_policy_has_it_or_not_at_all() -> None:
    web = Web("shop-web", start=Start("shop-web"))
    app = App("shop", "/srv/git/shop.git", "main", "shop", "/srv/shop", web=(web,), jobs=(Jobs("shop-jobs"),))
    allowed = AppRules("shop", "/srv/shop", "", ("shop-web",))
    assert allowed.refusal(app) is None
    assert replace(allowed, repository="/srv/git/shop.git").refusal(app) is None
    for rules, said in (
        (replace(allowed, user="www"), "the policy of this host has www as its user, not shop"),
        (replace(allowed, folder="/srv/a"), "the policy of this host has /srv/a as its folder, not /srv/shop"),
        (replace(allowed, repository="/r"), "the policy of this host has /r as its repository, not /srv/git/shop.git"),
        (
            replace(allowed, starts=()),
            "shop-web is not among what shop may start by the policy of this host ([apps.shop], starts)",
        ),
    ):
        assert rules.refusal(app) == said
    unit = replace(app, jobs=(Jobs("shop-jobs", start=Start(unit="sshd.service")),))
    assert "sshd.service is not among" in str(allowed.refusal(unit))


def test_apps_that_may_be_deployed_are_named(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('[apps.shop]\nuser = "nobody"\nfolder = "/srv/shop"\nrepository = "git@git.example:shop.git"\n')
    assert load_policy(file).apps == {"shop": AppRules("nobody", "/srv/shop", "git@git.example:shop.git")}
    assert load_policy(tmp_path / "none.toml").apps == {}
    file.write_text(
        '[apps.a]\nuser = "nobody"\nfolder = "/srv/a"\nstarts = ["a-web", "a.service"]\nsupervisor = "/s.sock"\n'
    )
    assert load_policy(file).apps == {"a": AppRules("nobody", "/srv/a", "", ("a-web", "a.service"), "/s.sock")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[apps.shop]\nuser = "nobodyelse"\nfolder = "/srv/shop"\n', "line 2: user names 'nobodyelse'"),
        ('[apps.a]\nuser = "nobody"\nfolder = "/srv/a"\nstarts = "a"\n', "line 4: starts must be a list of texts"),
        (
            '[apps.a]\nuser = "nobody"\nfolder = "/srv/a"\nsupervisor = "s"\n',
            "line 4: supervisor must be the full path",
        ),
        ('[apps.shop]\nuser = "nobody"\nfolder = "/"\n', "line 3: folder must be a full path"),
        ('[apps.shop]\nuser = "nobody"\nfolder = "/srv/a/../b"\n', "line 3: folder must be a full path"),
        ('[apps.shop]\nuser = "nobody"\nfolder = "/srv/shop"\nbranch = "x"\n', "line 4: branch is not known in shop"),
    ],
)
def test_an_app_that_is_not_well_named_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(PolicyError) as caught:
        load_policy(file)
    assert said in str(caught.value)
