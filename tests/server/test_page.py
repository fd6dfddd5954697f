"""The page's files and their headers."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("path", "kind", "caching"),
    [
        ("/", "text/html", "no-cache"),
        ("/icon.svg", "image/svg+xml", "no-cache"),
        ("/assets/index-Ab12_c.js", "javascript", "public, max-age=31536000, immutable"),
    ],
)
async def test_files_are_served_with_fitting_headers(
    server: Any, http: Any, path: str, kind: str, caching: str
) -> None:
    async with http.get(server.base + path) as answer:
        assert answer.status == 200
        assert answer.content_type.endswith(kind)
        assert answer.headers["Cache-Control"] == caching
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/assets/..%2findex.html", "/.hidden", "/assets/no.js", "/assets/"])
async def test_nothing_else_is_served(server: Any, http: Any, path: str) -> None:
    async with http.get(server.base + path) as answer:
        assert answer.status == 404


async def test_without_a_build_the_page_says_what_to_do(own_server: Any, http: Any, tmp_path: Any) -> None:
    server = own_server("--page-dir", str(tmp_path / "none"))
    async with http.get(server.base + "/") as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        assert "./reflex setup" in await answer.text()
