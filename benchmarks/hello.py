"""The smallest WSGI application: what Reflex costs a request stands out most where the request itself costs least."""

from __future__ import annotations

from collections.abc import Callable, Iterable

BODY = b"hello world\n"


def app(_environ: dict[str, object], start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    """Answers every request alike."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return (BODY,)
