"""Orders of deploys: there and back, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire import Order, WireError, is_signed_order, order_from_json, order_to_json, sign_order
from agent.wire.app import App, Build, Health, Jobs, Migrate, Web
from agent.wire.order import LONGEST_ORDER_US, PHASES

ID = "01890000-0000-7000-8000-000000000001"
KEY_HASH = "0" * 64
APP = App(
    "shop", "git@git.example:shop.git", "main", "shop", "/srv/shop", Build(commands=(("make",),)), (("true",),),
    Migrate(("migrate",)), (Web("shop-web", health=Health()),), (Jobs("shop-jobs"),), ("media",),
)  # fmt: skip
ORDER = Order(ID, ID, "prepare", "web-1", 5, 9, ID, APP, secrets={"SECRET": "x"}, key="k")

orders = st.builds(
    lambda phase, issued, life, release, migrates, secrets: replace(
        ORDER,
        phase=phase,
        issued_us=issued,
        expires_us=issued + life,
        release=release,
        migrates=migrates,
        secrets=secrets,
    ),
    st.sampled_from(PHASES),
    st.integers(0, 2**50),
    st.integers(1, LONGEST_ORDER_US),
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.booleans(),
    st.dictionaries(
        st.from_regex(r"[A-Z_]{1,9}", fullmatch=True),
        st.text(st.characters(min_codepoint=1, codec="utf-8"), max_size=20),
    ),
)


@given(orders)
def test_there_and_back(order: Order) -> None:
    assert order_from_json(orjson.loads(orjson.dumps(order_to_json(order)))) == order


def test_only_its_own_signature_is_right() -> None:
    signature = sign_order(ORDER, KEY_HASH)
    assert is_signed_order(ORDER, signature, KEY_HASH)
    for other in (
        replace(ORDER, phase="switch"),
        replace(ORDER, secrets={"SECRET": "y"}),
        replace(ORDER, app=replace(APP, user="root")),
        replace(ORDER, app=replace(APP, build=Build(commands=(("rm",),)))),
    ):
        assert not is_signed_order(other, signature, KEY_HASH)
    assert not is_signed_order(ORDER, signature, "1" * 64)
    assert not is_signed_order(ORDER, "ü", KEY_HASH)


def test_secrets_are_in_no_words_about_an_order() -> None:
    assert "'x'" not in repr(ORDER)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"phase": "explode"}, "phase: must be one of prepare, switch, rollback, cancel"),
        ({"expires_us": 5}, "expires_us: must be after issued_us"),
        ({"id": "7"}, "id: must be a UUID"),
        ({"app": {}}, "name: must be a non-empty string"),
        ({"app": {**order_to_json(ORDER)["app"], "folder": "/"}}, "folder: must be a full path"),
        ({"app": {**order_to_json(ORDER)["app"], "web": [{"service": "x", "evil": 1}]}}, "web.evil: is not known"),
        ({"app": {**order_to_json(ORDER)["app"], "checks": [[]]}}, "checks: must be a list of 1 to"),
        ({"secrets": {"A B": "x"}}, "secrets: 'A B' is no name of a variable"),
        ({"secrets": {"A": 1}}, "secrets.A: must be a text"),
        ({"migrates": 1}, "migrates: must be true or false"),
    ],
)
def test_what_is_not_well_formed_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(WireError) as caught:
        order_from_json({**order_to_json(ORDER), **change})
    assert said in str(caught.value)
