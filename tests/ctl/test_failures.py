"""What reflexctl says when the server is not there, is no reflex-server, or must not be asked."""

from __future__ import annotations

from typing import Any

import pytest

COMMANDS = (["timeline"], ["chain", "3f9a2b1c"], ["hosts"])


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unreachable_server_is_3(ctl: Any, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.setenv("REFLEX_URL", "http://127.0.0.1:1")
    done = ctl(*command)
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("reflexctl: http://127.0.0.1:1 cannot be reached: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_token_is_4(ctl: Any, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.setenv("REFLEX_TOKEN", "rfx_op_wrong")
    done = ctl(*command)
    assert (done.code, done.out) == (4, "")
    assert "reflex-server operator-token new" in done.err and "rfx_op_wrong" not in done.err


def test_a_missing_token_is_4(ctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REFLEX_TOKEN")
    done = ctl("timeline")
    assert done.code == 4
    assert "then run: reflexctl login" in done.err


@pytest.mark.parametrize(
    ("status", "body", "code", "said"),
    [
        (200, b"<html>", 3, "did not answer with JSON"),
        (200, b"[]", 3, "is the address that of reflex-server?"),
        (200, b"{}", 3, "is it reflex-server?"),
        (404, b"<html>", 3, "not as reflex-server does"),
        (
            503,
            b'{"error": {"code": "x", "message": "the store is \\u001b[31mdown"}}',
            3,
            "the store is [31mdown (HTTP 503)",
        ),
        (400, b'{"error": {"code": "x", "message": "kind: unknown"}}', 2, "the server says: kind: unknown"),
        (200, b'{"events": [{"id": 5}], "next_cursor": null}', 3, "reflexctl older than the server?"),
    ],
)
def test_strange_answers(
    ctl: Any, answering: Any, monkeypatch: Any, status: int, body: bytes, code: int, said: str
) -> None:
    monkeypatch.setenv("REFLEX_URL", answering(status, body))
    done = ctl("timeline")
    assert (done.code, done.out) == (code, "")
    assert said in done.err and "\x1b" not in done.err


def test_a_redirect_is_not_followed_with_the_token(ctl: Any, answering: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("REFLEX_URL", answering(302, Location="http://127.0.0.2:1/"))
    done = ctl("hosts")
    assert done.code == 3
    assert "redirects to http://127.0.0.2:1/" in done.err


@pytest.mark.parametrize("url", ["http://reflex.invalid", "http://192.0.2.1:8765", "http://localhost.invalid"])
def test_the_token_crosses_no_network_unencrypted(ctl: Any, monkeypatch: Any, url: str) -> None:
    monkeypatch.setenv("REFLEX_URL", url)
    done = ctl("timeline")
    assert done.code == 2
    assert "would send the token unencrypted" in done.err and "--insecure" in done.err


def test_insecure_is_the_operators_own_word(ctl: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("REFLEX_URL", "http://reflex.invalid")
    done = ctl("timeline", "--insecure")
    assert done.code == 3
    assert "cannot be reached" in done.err


@pytest.mark.parametrize(
    "url", ["web-3:8765", "ftp://web-3", "http://", "http://u:secret@web-3", "https://web-3/?a=1", "http://web-3:99999"]
)
def test_an_address_that_is_none_is_2(ctl: Any, monkeypatch: Any, url: str) -> None:
    monkeypatch.setenv("REFLEX_URL", url)
    done = ctl("timeline")
    assert done.code == 2
    assert "REFLEX_URL" in done.err and "secret" not in done.err
