"""The page's files: what the UI's build made, or a friendly word that it is not built."""

from __future__ import annotations

import re
from pathlib import Path

from aiohttp import web

from server.errors import ApiError

_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_NOT_BUILT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Reflex</title></head>
<body><h1>Reflex is running</h1>
<p>Its page is not built yet. Run <code>./reflex setup</code> in the source tree, then load this page again.</p>
<p>The API works without the page: <a href="/healthz">/healthz</a>, <a href="/readyz">/readyz</a>.</p>
</body></html>
"""


class PageFiles:
    """Serves the built page from one directory: `index.html`, files beside it, and hashed files in `assets`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def index(self, _request: web.Request) -> web.StreamResponse:
        """The page itself; browsers ask every time whether it is still the same."""
        index = self._directory / "index.html"
        if not index.is_file():
            return web.Response(text=_NOT_BUILT, content_type="text/html", headers={"Cache-Control": "no-cache"})
        return web.FileResponse(index, headers={"Cache-Control": "no-cache"})

    async def asset(self, request: web.Request) -> web.StreamResponse:
        """A file whose name carries a hash of its content, and so never changes."""
        return self._file(self._directory / "assets", request, "public, max-age=31536000, immutable")

    async def beside(self, request: web.Request) -> web.StreamResponse:
        """A file beside the page, such as its icon."""
        return self._file(self._directory, request, "no-cache")

    def _file(self, directory: Path, request: web.Request, caching: str) -> web.StreamResponse:
        name = request.match_info["name"]
        path = directory / name
        if not _FILE_NAME.fullmatch(name) or not path.is_file():
            raise ApiError(404, "not_found", f"there is nothing at {request.path:.100}")
        return web.FileResponse(path, headers={"Cache-Control": caching})
