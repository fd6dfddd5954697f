"""Reading a request's body with every size bounded, before and after decompression."""

from __future__ import annotations

import zlib
from typing import Any

import orjson
from aiohttp import web

from server.errors import ApiError, bad_request

_GZIP = 16 + zlib.MAX_WBITS


async def read_json(request: web.Request, *, limit: int) -> Any:
    """The JSON body of at most `limit` bytes; raises ApiError 400, 413 or 415."""
    return parse_json(await read_body(request, limit=limit))


def parse_json(body: bytes | bytearray) -> Any:
    """What the bytes say; raises ApiError 400."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body is not JSON: {error}") from None


async def read_body(request: web.Request, *, limit: int) -> bytearray:
    """The body, plain or gzip, of at most `limit` bytes after decompression; raises ApiError 400, 413 or 415.

    aiohttp must not decompress by itself (`auto_decompress=False`). Here at most `limit` + 1 bytes
    are ever made of a compressed body, however much more it would expand to.
    """
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise ApiError(
            415, "unsupported_encoding", f"Content-Encoding {encoding:.30} is not understood; use gzip or none"
        )
    if (request.content_length or 0) > limit:
        raise _too_big(limit)
    inflate = zlib.decompressobj(wbits=_GZIP) if encoding == "gzip" else None
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk if inflate is None else _inflate(inflate, chunk, room=limit + 1 - len(body))
        if len(body) > limit:
            raise _too_big(limit)
    if inflate is not None and not inflate.eof:
        raise bad_request("the gzip body is cut off")
    return body


def _inflate(inflate: zlib._Decompress, chunk: bytes, *, room: int) -> bytes:
    try:
        made = inflate.decompress(chunk, room)
    except zlib.error as error:
        raise bad_request(f"the body is not gzip: {error}") from None
    if inflate.unused_data:
        raise bad_request("something follows the end of the gzip body")
    return made


def _too_big(limit: int) -> ApiError:
    return ApiError(413, "too_big", f"the body is larger than {limit} bytes after decompression; send less at once")
