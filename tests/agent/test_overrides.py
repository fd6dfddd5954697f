"""The file in which people name their services."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.overrides import Override, OverridesError, first_fitting, load_overrides
from agent.procfs import Process

SERVE = Process(7, 1, 1, "python", ("python", "-m", "shop.serve", "--fast"), 33, "/srv/shop", "/system.slice/a.service")


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "services.toml"
    path.write_text(text)
    return path


def test_without_a_file_nothing_is_said(tmp_path: Path) -> None:
    assert load_overrides(tmp_path / "none.toml") == ()
    assert first_fitting((), SERVE) == Override()


def test_the_first_table_that_fits_in_all_its_patterns_counts(tmp_path: Path) -> None:
    text = """
[[service]]
command = "python -m shop.serve*"
folder = "/srv/other"
name = "other"

[[service]]
command = "python -m shop.serve*"
unit = "a.service"
name = "shop-api"
kind = "uvicorn"
"""
    found = first_fitting(load_overrides(_file(tmp_path, text)), SERVE)
    assert (found.name, found.kind) == ("shop-api", "uvicorn")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[service]]\nname = 'x'\n", "line 1: say which service is meant by one of command, unit, folder"),
        ("\n[[service]]\nunit = 'a'\nkind = 'gunicron'\n", "line 2: there is no kind 'gunicron'; there are celery"),
        ("[[service]]\nunit = 'a'\nnmae = 'x'\n", "'nmae' is not known; a service has name, kind"),
        ("[[service]]\nunit = 3\n", "unit must be a text"),
        ("[service]\nunit = 'a'\n", "must be written as tables"),
        ("colour = 1\n", "'colour' is not known"),
        ("[[service", "is not TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(OverridesError) as error:
        load_overrides(_file(tmp_path, text))
    assert says in str(error.value)
    assert "services.toml" in str(error.value)
