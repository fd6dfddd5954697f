"""Where the host key may travel, and where not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agent.endpoint import Endpoint, authorization, endpoint_of
from agent.link import Link, LinkError
from agent.spool import Spool

patient = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""


@pytest.mark.parametrize(
    ("server_url", "endpoint"),
    [
        ("https://reflex.example", Endpoint("https://reflex.example/v1/ingest")),
        ("https://reflex.example:8443/under/", Endpoint("https://reflex.example:8443/under/v1/ingest")),
        ("http://127.0.0.1:8765", Endpoint("http://127.0.0.1:8765/v1/ingest")),
        ("http://127.9.9.9:1", Endpoint("http://127.9.9.9:1/v1/ingest")),
        ("http://[::1]:8765", Endpoint("http://[::1]:8765/v1/ingest")),
        ("http://localhost:8765", Endpoint("http://localhost:8765/v1/ingest")),
        ("unix:/run/reflex.sock", Endpoint("http://reflex-server/v1/ingest", "/run/reflex.sock")),
    ],
)
def test_where_the_key_may_travel(server_url: str, endpoint: Endpoint) -> None:
    assert endpoint_of(server_url, allow_plain_http=False) == endpoint


@pytest.mark.parametrize(
    "server_url",
    [
        "http://reflex.example",
        "http://10.0.0.7:8765",
        "http://[2001:db8::1]",
        "http://localhost.example",
        "http://127.0.0.1.example:8765",
        "http://0x7f000001.example",
    ],
)
def test_unencrypted_only_when_allowed(server_url: str) -> None:
    with pytest.raises(LinkError, match="would send the host key unencrypted; use https, or set allow_plain_http"):
        endpoint_of(server_url, allow_plain_http=False)
    assert endpoint_of(server_url, allow_plain_http=True).url == f"{server_url}/v1/ingest"


@pytest.mark.parametrize(
    "server_url",
    [
        "",
        "reflex.example",
        "ftp://reflex.example",
        "https://",
        "https://:8765",
        "https://x:99999",
        "https://x:port",
        "http://[::1",
        "https://a\nb",
        "https://a b",
        "unix:",
        "unix:relative.sock",
        "https://x/?q=1",
        "https://x/#part",
    ],
)
def test_an_address_that_is_none_is_refused(server_url: str) -> None:
    with pytest.raises(LinkError, match="server_url"):
        endpoint_of(server_url, allow_plain_http=True)


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(LinkError) as caught:
        endpoint_of("https://ann:tiger@reflex.example", allow_plain_http=True)
    assert "tiger" not in str(caught.value)


@patient
@given(st.text() | st.text().map("https://".__add__) | st.text().map("unix:/".__add__))
def test_no_address_makes_anything_but_a_link_error(server_url: str) -> None:
    try:
        endpoint = endpoint_of(server_url, allow_plain_http=False)
    except LinkError:
        return
    assert endpoint.socket_path or endpoint.url.startswith(("https://", "http://"))


@pytest.mark.parametrize("key", ["", "two words", "two\nlines", "a\x00b", "schlüssel"])
def test_a_key_that_is_none_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(LinkError, match="the host key must be one line of plain characters") as caught:
        authorization(key)
    assert not key or key not in str(caught.value)


def test_the_link_refuses_before_it_starts(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool", 1024 * 1024)
    with pytest.raises(LinkError):
        Link("http://10.0.0.7", "key", spool, dict, rejected_file=tmp_path / "rejected.jsonl")
    spool.close()
