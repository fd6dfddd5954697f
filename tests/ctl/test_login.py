"""`reflexctl login` and `logout` against a real server."""

from __future__ import annotations

import io
import stat
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def kept(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that login writes; the environment names no server and no token."""
    monkeypatch.delenv("REFLEX_URL")
    monkeypatch.delenv("REFLEX_TOKEN")
    return Path(env["HOME"]) / ".config" / "reflex" / "ctl.toml"


@pytest.fixture
def token_file(server: Any, tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text(server.token + "\n")
    return str(path)


def test_login_keeps_address_and_token_for_later(
    ctl: Any, server: Any, agent: Any, event: Any, kept: Path, token_file: str
) -> None:
    done = ctl("login", server.base + "/", "--token-file", token_file)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"logged in to {server.base} as operator (server ")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert server.token not in done.out
    agent.tell(event())
    assert ctl("timeline", "--host", agent.host).code == 0
    assert ctl("logout").out.startswith(f"removed {kept}")
    assert not kept.exists()
    assert ctl("timeline").code == 4
    assert ctl("logout").out == "nothing was kept\n"


def test_a_token_typed_on_a_terminal_is_not_shown(on_terminal: Any, server: Any, kept: Path) -> None:
    done = on_terminal("login", server.base, typed=f"{server.token}\n", REFLEX_URL="", REFLEX_TOKEN="")
    assert done.code == 0
    assert "(not shown): " in done.out and "logged in to" in done.out
    assert server.token not in done.out
    assert server.token in kept.read_text()


def test_a_token_comes_through_a_pipe(ctl: Any, server: Any, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(server.token + "\n"))
    assert ctl("login", server.base).code == 0
    assert server.token in kept.read_text()


def test_a_wrong_token_is_4_and_keeps_what_was_there(
    ctl: Any, server: Any, kept: Path, token_file: str, tmp_path: Path
) -> None:
    assert ctl("login", server.base, "--token-file", token_file).code == 0
    before = kept.read_bytes()
    wrong = tmp_path / "wrong"
    wrong.write_text("rfx_op_" + "x" * 43)
    done = ctl("login", server.base, "--token-file", str(wrong))
    assert (done.code, done.out) == (4, "")
    assert "reflex-server operator-token new" in done.err and "xxx" not in done.err
    assert kept.read_bytes() == before
    assert [path.name for path in kept.parent.iterdir()] == ["ctl.toml"]


def test_the_environment_goes_before_the_file(
    ctl: Any, server: Any, kept: Path, token_file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert ctl("login", server.base, "--token-file", token_file).code == 0
    (tmp_path / "wrong").write_text("rfx_op_wrong")
    monkeypatch.setenv("REFLEX_TOKEN_FILE", str(tmp_path / "wrong"))
    assert ctl("hosts").code == 4
    monkeypatch.setenv("REFLEX_TOKEN", server.token)
    assert ctl("hosts").code in (0, 1)
    assert "REFLEX_TOKEN is set and goes before" in ctl("login", server.base, "--token-file", token_file).err
    assert "REFLEX_TOKEN is still set" in ctl("logout").err


def test_a_kept_token_goes_to_its_own_server_only(
    ctl: Any, server: Any, kept: Path, token_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ctl("login", server.base, "--token-file", token_file).code == 0
    monkeypatch.setenv("REFLEX_URL", "http://127.0.0.1:1")
    done = ctl("hosts")
    assert done.code == 4
    assert "run: reflexctl login http://127.0.0.1:1" in done.err


def test_a_file_that_others_can_read_is_said(ctl: Any, server: Any, kept: Path, token_file: str) -> None:
    assert ctl("login", server.base, "--token-file", token_file).code == 0
    kept.chmod(0o644)
    assert f"chmod 600 {kept}" in ctl("hosts").err
    assert ctl("login", server.base, "--token-file", token_file).code == 0
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_damaged_file_is_2_and_login_mends_it(ctl: Any, server: Any, kept: Path, token_file: str) -> None:
    kept.parent.mkdir(parents=True)
    kept.write_text("url = ")
    assert ctl("hosts").code == 2
    assert ctl("login", server.base, "--token-file", token_file).code == 0
    assert ctl("hosts").code in (0, 1)


@pytest.mark.parametrize(
    ("text", "said"), [("", "holds no token"), ("two words", "holds no token"), (None, "cannot be read")]
)
def test_a_useless_token_file_is_2(ctl: Any, server: Any, tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "token").write_text(text)
    done = ctl("login", server.base, "--token-file", str(tmp_path / "token"))
    assert done.code == 2
    assert said in done.err
