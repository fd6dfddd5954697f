"""Addresses of brokers: what may be told of them, and what never is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.brokers.common import Address, is_internal

SECRET = "s3cret-w0rd"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://:{SECRET}@10.0.0.5:6380/2", "redis://10.0.0.5:6380/2"),
        (f"redis://{SECRET}:{SECRET}@cache/0?token={SECRET}", "redis://cache:6379/0"),
        (f"rediss://:{SECRET}@[::1]/1", "rediss://[::1]:6379/1"),
        (f"amqp://shop:{SECRET}@mq//", "amqp://mq:5672//"),
        (f"amqp://shop:{SECRET}@mq/orders%2Feu", "amqp://mq:5672/orders/eu"),
        (f"amqps://{SECRET}:{SECRET}@mq", "amqps://mq:5671/"),
        (f"redis+socket://:{SECRET}@/run/redis.sock?virtual_host=1", "redis+socket:///run/redis.sock"),
        (f"sentinel://:{SECRET}@a:26379;sentinel://:{SECRET}@b:26379", "sentinel://a:26379/"),
        (f"redis://:{SECRET}@host:notaport/0", "redis://host:6379/0"),
        (f"redis://:p@ss@{SECRET}@host/0", "redis://host:6379/0"),
        (f"redis://:a/{SECRET}@host/0", "redis://…"),
        (f"redis://:a#{SECRET}@host/0", "redis://…"),
        (SECRET, "unknown://…"),
    ],
)
def test_credentials_are_not_shown(url: str, shown: str) -> None:
    address = Address(url)
    assert (address.shown, str(address), f"{address}") == (shown, shown, shown)
    assert SECRET not in repr(address)


@given(
    st.sampled_from(["redis", "amqp", "rediss", "amqps", "pyamqp", "sentinel"]),
    st.text(
        st.characters(categories=["L", "N"], include_characters="!$&*+,-._~%^()='\" /?#@:[];"), min_size=1, max_size=12
    ),
)
def test_whatever_the_password_holds(scheme: str, password: str) -> None:
    shown = Address(f"{scheme}://user:<<{password}>>{password}>>@host:1234/0").shown
    assert "<" not in shown
    assert ">" not in shown


@given(st.text(max_size=60))
def test_what_is_no_address_does_no_harm(url: str) -> None:
    assert isinstance(Address(url).shown, str)


def test_what_is_no_queue_of_tasks() -> None:
    assert is_internal("celery@a.celery.pidbox")
    assert is_internal("celeryev.0b8f")
    assert not is_internal("celery")
