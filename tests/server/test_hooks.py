"""Webhooks of forges: who is believed, and what follows."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from server.pipeline.hooks import is_believed

BODY, SECRET = b'{"ref": "refs/heads/main"}', "a long secret"
RIGHT = hmac.new(SECRET.encode(), BODY, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Hub-Signature-256": f"sha256={RIGHT}"},
        {"X-Gitea-Signature": RIGHT},
        {"X-Forgejo-Signature": RIGHT},
        {"X-Reflex-Signature": RIGHT.upper()},
        {"X-Gitlab-Token": SECRET},
    ],
)
def test_who_knows_the_secret_is_believed(headers: dict[str, str]) -> None:
    assert is_believed(headers, BODY, SECRET)
    assert not is_believed(headers, BODY, "another secret")
    assert not is_believed(dict.fromkeys(headers, ""), BODY, SECRET)


def test_nobody_else_is() -> None:
    assert not is_believed({}, BODY, SECRET)
    assert not is_believed({"X-Hub-Signature-256": f"sha256={RIGHT}"}, BODY + b" ", SECRET)
    assert not is_believed({"X-Hub-Signature": RIGHT}, BODY, SECRET)
    wrong = {"X-Hub-Signature-256": "sha256=0", "X-Gitlab-Token": SECRET}
    assert not is_believed(wrong, BODY, SECRET), "a wrong signature is not made good by a token"
