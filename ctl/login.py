"""`reflexctl login` and `logout`: keep an address and a token, after the server has said that it takes them."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from pathlib import Path
from typing import Any

from ctl.access import Access, check_token, check_url, find_url, forget, read_token_file, store
from ctl.client import connect
from ctl.errors import Misused
from ctl.safe import clean
from ctl.screen import note, show


def log_in(url: str | None, token_file: Path | None, *, insecure: bool) -> None:
    """Asks for the token, tries it, and keeps it; raises CtlError, and then what was kept before stays.

    The question is asked outside of any event loop, where Ctrl-C ends it at once.
    """
    address = find_url() if url is None else check_url(url, url)
    token = read_token_file(token_file) if token_file is not None else _ask_for_token(address)
    access = Access(address, token)
    session = asyncio.run(_try(access, insecure=insecure))
    path = store(access)
    version = clean(str(session.get("server_version", "of unknown version")))
    show(f"logged in to {address} as {clean(str(session.get('role', 'operator')))} (server {version}); kept in {path}")
    for name in ("REFLEX_URL", "REFLEX_TOKEN", "REFLEX_TOKEN_FILE"):
        if os.environ.get(name):
            note(f"{name} is set and goes before what is kept")


def log_out() -> None:
    """Forgets address and token; raises CtlError."""
    path = forget()
    show(
        "nothing was kept"
        if path is None
        else f"removed {path}; the token itself stays valid until the server revokes it"
    )
    for name in ("REFLEX_TOKEN", "REFLEX_TOKEN_FILE"):
        if os.environ.get(name):
            note(f"{name} is still set")


async def _try(access: Access, *, insecure: bool) -> dict[str, Any]:
    """What the server says of the token; raises CtlError."""
    async with connect(access, insecure=insecure) as client:
        return await client.get("/v1/session")


def _ask_for_token(address: str) -> str:
    """From the terminal without echo, else the first line of stdin; raises Misused."""
    if not sys.stdin.isatty():
        return check_token(sys.stdin.readline(), "stdin")
    try:
        return check_token(getpass.getpass(f"Operator token for {address} (not shown): "), "what was typed")
    except EOFError:
        raise Misused("no token was typed") from None
