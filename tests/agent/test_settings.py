"""Where a setting comes from, and how wrong ones are told."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from agent.settings import SETTINGS_DOC, Settings, SettingsError, add_arguments, load_settings

patient = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""

BARE = ("spool", "allow", "cpu", "memory", "oom")
"""Settings that are no strings in TOML begin so."""

Load = Callable[..., Settings]


def parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(argv)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "reflexd.toml"


@pytest.fixture
def load(config: Path) -> Load:
    """Settings from a file's text, an environment and a command line."""

    def from_all(text: str | bytes, environment: dict[str, str] | None = None, *argv: str) -> Settings:
        config.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_settings(parse("--config", str(config), *argv), environment or {})

    return from_all


def problem_of(call: Callable[[], object]) -> str:
    with pytest.raises(SettingsError) as caught:
        call()
    return str(caught.value)


def test_each_place_wins_over_the_one_before(load: Load) -> None:
    assert load("").log_level == "info"
    assert load("log_level = 'debug'").log_level == "debug"
    assert load("log_level = 'debug'", {"REFLEXD_LOG_LEVEL": "warning"}).log_level == "warning"
    assert load("log_level = 'debug'", {"REFLEXD_LOG_LEVEL": "warning"}, "--log-level", "error").log_level == "error"


def test_every_setting_can_be_set_in_every_place(load: Load) -> None:
    values = dict.fromkeys(SETTINGS_DOC, "/some/where")
    values |= {"spool_max_bytes": "5000000", "log_level": "error", "allow_plain_http": "true", "rungs": "queue=diag"}
    values |= {"cpu_budget_percent": "0.5", "memory_budget_mb": "64", "oom_score_adj": "-500"}
    values |= {"celery_stuck_after_s": "30", "celery_backlog_window_s": "40"}
    values |= {"boot_hang_s": "7", "stuck_after_s": "8", "only_own_network": "true"}
    in_file = "".join(f"{name} = {value if name.startswith(BARE) else repr(value)}\n" for name, value in values.items())
    everywhere = [
        load(in_file),
        load("", {f"REFLEXD_{name.upper()}": value for name, value in values.items()}),
        load("", {}, *(part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", value))),
    ]
    assert everywhere[0] == everywhere[1] == everywhere[2]
    assert (everywhere[0].state_dir, everywhere[0].spool_max_bytes) == (Path("/some/where"), 5_000_000)
    assert everywhere[0].allow_plain_http is True
    assert (everywhere[0].cpu_budget_percent, everywhere[0].oom_score_adj) == (0.5, -500)


def test_other_environment_is_left_alone(load: Load) -> None:
    assert load("", {"REFLEX_DEMO_PYTHON": "x", "HOME": "/"}) == load("")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n\nlog_levle = 'info'", "line 3: there is no setting log_levle; did you mean log_level?"),
        ("zzz = 1", "line 1: there is no setting zzz; the settings are server_url, host_key_file,"),
        ("# x\n[spool]\nmax_bytes = 1", "line 2: there is no setting spool"),
        ("\nhost.name = 'a'", "line 2: host must be a string of printable characters, not a dict"),
        ("\n'host' = 3", "line 2: host must be a string of printable characters, not 3"),
        ("host = ''", "line 1: host must be a string"),
        ('host = "a\\u0000b"', "line 1: host must be a string"),
        ("state_dir = ['/a']", "line 1: state_dir must be a string of printable characters, not a list"),
        ("spool_max_bytes = 1.5", "spool_max_bytes must be a whole number above 0, not 1.5"),
        ("spool_max_bytes = true", "spool_max_bytes must be a whole number above 0, not True"),
        ("spool_max_bytes = -1", "spool_max_bytes must be a whole number above 0, not -1"),
        ("spool_max_bytes = 4096", "spool_max_bytes must be at least 1048576, not 4096"),
        ("spool_max_bytes = '²'", "spool_max_bytes must be a whole number above 0, not '²'"),
        ("cpu_budget_percent = 0", "cpu_budget_percent must be a number above 0, not 0"),
        ("cpu_budget_percent = nan", "cpu_budget_percent must be a number above 0, not nan"),
        ("cpu_budget_percent = inf", "cpu_budget_percent must be at most 10000, not inf"),
        ("cpu_budget_percent = 'much'", "cpu_budget_percent must be a number above 0, not 'much'"),
        ("memory_budget_mb = 0", "memory_budget_mb must be a whole number above 0, not 0"),
        ("oom_score_adj = -1000", "oom_score_adj must be at least -999, not -1000"),
        ("oom_score_adj = 1.5", "oom_score_adj must be a whole number, not 1.5"),
        ("allow_plain_http = 1", "allow_plain_http must be true or false, not 1"),
        ("log_level = 'loud'", "log_level must be one of debug, info, warning, error, not 'loud'"),
        ("log_level", "is not TOML"),
        (b"\xff", "is not TOML"),
        ("host = " + "[" * 5000, "is not TOML"),
        ("spool_max_bytes = " + "9" * 5000, "is not TOML"),
    ],
)
def test_a_wrong_file_is_told_with_its_line(load: Load, config: Path, text: str | bytes, says: str) -> None:
    problem = problem_of(lambda: load(text))
    assert says in problem
    assert str(config) in problem


def test_a_wrong_environment_or_option_is_told_by_its_name(load: Load) -> None:
    assert problem_of(lambda: load("", {"REFLEXD_SERVR_URL": "x"})) == (
        "environment, REFLEXD_SERVR_URL: there is no setting servr_url; did you mean server_url?"
    )
    assert problem_of(lambda: load("", {}, "--spool-max-bytes", "lots")) == (
        "command line, --spool-max-bytes: spool_max_bytes must be a whole number above 0, not 'lots'"
    )


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    assert problem_of(lambda: load_settings(parse("--config", str(tmp_path / "none")), {})).endswith(
        "none is not there"
    )
    assert "cannot be read" in problem_of(lambda: load_settings(parse("--config", str(tmp_path)), {}))


def test_the_key_is_read_from_a_file_of_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "host-key"
    file.write_text("secret-key\n")
    settings = Settings(host_key_file=file, host="web-3")
    for mode in (0o600, 0o400, 0o700):
        file.chmod(mode)
        assert settings.read_host_key() == "secret-key"
    for mode in (0o640, 0o604, 0o620, 0o601, 0o666):
        file.chmod(mode)
        problem = problem_of(settings.read_host_key)
        assert problem == f"the host key {file} can be read by others; run: chmod 600 {file}"
        assert "secret-key" not in problem


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "is no text"),
        (b"a\nb", "one word"),
        (b"x" * 2000, "one word"),
    ],
)
def test_a_file_that_holds_no_key_is_told(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "host-key"
    file.write_bytes(content)
    file.chmod(0o600)
    assert says in problem_of(Settings(host_key_file=file).read_host_key)


def test_a_missing_key_file_says_how_to_make_one(tmp_path: Path) -> None:
    problem = problem_of(Settings(host_key_file=tmp_path / "none", host="web-3").read_host_key)
    assert problem.endswith(f"make one with: reflex-server host-key add web-3 --out {tmp_path / 'none'}")


NAMES = st.sampled_from(sorted(SETTINGS_DOC)) | st.text(max_size=20)


def _assert_settings_or_error(call: Callable[[], Any]) -> None:
    """Any other exception is the test's failure."""
    try:
        settings = call()
    except SettingsError:
        return
    assert isinstance(settings, Settings)


@patient
@given(environment=st.dictionaries(NAMES.map(lambda name: f"REFLEXD_{name.upper()}"), st.text(max_size=30), max_size=4))
@example({"REFLEXD_SPOOL_MAX_BYTES": "9" * 5000})
@example({"REFLEXD_HOST": "\udcff"})
def test_no_environment_makes_anything_but_a_settings_error(environment: dict[str, str]) -> None:
    _assert_settings_or_error(lambda: load_settings(argparse.Namespace(config=Path("/dev/null")), environment))


TOML_VALUES: SearchStrategy[str] = st.recursive(
    st.sampled_from(
        ["true", "1", "-7", "1.5", "nan", "1979-05-27", "07:32:00", "'x'", '"\\u0000"', "''", "0xff", "1e400"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]") | inner.map(lambda v: f"{{a = {v}}}")
    ),
    max_leaves=4,
)


@patient
@given(lines=st.lists(st.tuples(NAMES, TOML_VALUES).map(" = ".join) | st.text(max_size=30), max_size=4))
def test_no_file_makes_anything_but_a_settings_error(
    lines: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes("\n".join(lines).encode())
    _assert_settings_or_error(lambda: load_settings(argparse.Namespace(config=file), {}))


@patient
@given(content=st.binary(max_size=60))
def test_no_bytes_make_anything_but_a_settings_error(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "any.bytes"
    file.write_bytes(content)
    file.chmod(0o600)
    _assert_settings_or_error(lambda: load_settings(argparse.Namespace(config=file), {}))
    _assert_settings_or_error(lambda: Settings(host=Settings(host_key_file=file).read_host_key()))
