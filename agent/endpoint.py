"""Where the server is, and whether the host key may travel there."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit


class LinkError(ValueError):
    """The server's address or the host key cannot be used as it is; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The URL to post to; through the unix socket at `socket_path` unless that is empty."""

    url: str
    socket_path: str = ""


def endpoint_of(server_url: str, *, allow_plain_http: bool) -> Endpoint:
    """The endpoint behind the setting `server_url`; raises LinkError."""
    socket_path = server_url.removeprefix("unix:")
    if socket_path != server_url:
        if not socket_path.startswith("/"):
            raise LinkError(f"server_url {server_url!r} must name the socket by its full path: unix:/run/reflex.sock")
        return Endpoint("http://reflex-server/v1/ingest", socket_path)
    parts = _split(server_url)
    if parts.username is not None or parts.password is not None:
        raise LinkError("server_url must not hold a user or password; the host key says who this host is")
    if parts.query or parts.fragment:
        raise LinkError(f"server_url {server_url!r} must end before any ? or #")
    if parts.scheme == "http" and not allow_plain_http and not _is_loopback(parts.hostname or ""):
        raise LinkError(
            f"server_url {server_url!r} would send the host key unencrypted; use https, or set allow_plain_http = true"
        )
    return Endpoint(f"{server_url.rstrip('/')}/v1/ingest")


def authorization(host_key: str) -> str:
    """The header's value; raises LinkError, which never shows the key."""
    if not host_key or not host_key.isascii() or not _is_plain(host_key):
        raise LinkError("the host key must be one line of plain characters without spaces; make a new one")
    return f"Bearer {host_key}"


def _split(server_url: str) -> SplitResult:
    try:
        parts = urlsplit(server_url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and _is_plain(server_url):
            return parts
    except ValueError:
        pass
    raise LinkError(f"server_url {server_url!r} must look like https://reflex.example or unix:/run/reflex.sock")


def _is_plain(text: str) -> bool:
    return text.isprintable() and " " not in text


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
