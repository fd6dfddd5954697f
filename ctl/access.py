"""Which server to ask, with which token, and the file that `reflexctl login` keeps them in.

The environment goes before the file: REFLEX_URL, REFLEX_TOKEN, REFLEX_TOKEN_FILE. A stored token belongs to the stored
address and is never sent to another one.
"""

from __future__ import annotations

import ipaddress
import json
import os
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ctl.errors import HOW_TO_GET_A_TOKEN, Misused, NotAllowed
from ctl.screen import note

DEFAULT_URL = "http://127.0.0.1:8765"
MAX_TOKEN_CHARS = 4_096


@dataclass(frozen=True, slots=True)
class Access:
    """An address without a slash at its end, and the token for it; `token` is "" where there is none."""

    url: str
    token: str = field(default="", repr=False)


def find_access(environment: Mapping[str, str] = os.environ) -> Access:
    """What the next request uses. Raises Misused for files and addresses that cannot be used, NotAllowed without a token."""
    stored = read_stored(environment)
    url = find_url(environment)
    if token := environment.get("REFLEX_TOKEN"):
        return Access(url, check_token(token, "REFLEX_TOKEN"))
    if path := environment.get("REFLEX_TOKEN_FILE"):
        return Access(url, read_token_file(Path(path)))
    if stored is None or not stored.token:
        raise NotAllowed(f"there is no token yet; {HOW_TO_GET_A_TOKEN}")
    if stored.url != url:
        raise NotAllowed(f"the stored token is for {stored.url}, not for {url}; run: reflexctl login {url}")
    return stored


def find_url(environment: Mapping[str, str] = os.environ) -> str:
    """REFLEX_URL, else the stored address, else the default; raises Misused."""
    if text := environment.get("REFLEX_URL"):
        return check_url(text, "REFLEX_URL")
    stored = read_stored(environment)
    return stored.url if stored else DEFAULT_URL


def stored_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Where `login` keeps address and token."""
    base = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME") or Path.home()) / ".config")
    return Path(base) / "reflex" / "ctl.toml"


def read_stored(environment: Mapping[str, str] = os.environ) -> Access | None:
    """What `login` has kept, or None; raises Misused for a file that cannot be read."""
    path = stored_file(environment)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            table = tomllib.load(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Misused(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise Misused(f"{path} is not TOML; run reflexctl login again, it writes the file anew") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        note(f"{path} can be read by others; run: chmod 600 {path}")
    url, token = table.get("url"), table.get("token", "")
    if not isinstance(url, str) or not isinstance(token, str):
        raise Misused(f"{path} needs url and token as strings; run reflexctl login again, it writes the file anew")
    return Access(check_url(url, str(path)), check_token(token, str(path)) if token else "")


def store(access: Access, environment: Mapping[str, str] = os.environ) -> Path:
    """Keeps address and token, readable by this user only; the file's path. Raises Misused."""
    path = stored_file(environment)
    text = f"# Written by reflexctl login.\nurl = {json.dumps(access.url)}\ntoken = {json.dumps(access.token)}\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".ctl-")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            os.replace(draft, path)
        except OSError:
            os.unlink(draft)
            raise
    except OSError as error:
        raise Misused(f"{path} cannot be written: {error.strerror}") from None
    return path


def forget(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Removes what `store` keeps; its path, or None when nothing was kept. Raises Misused."""
    path = stored_file(environment)
    try:
        path.unlink()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Misused(f"{path} cannot be removed: {error.strerror}") from None
    return path


def read_token_file(path: Path) -> str:
    """The token in a file; raises Misused."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise Misused(f"the token file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Misused(f"the token file {path} is not text") from None
    return check_token(text, f"the token file {path}")


def check_token(text: str, where: str) -> str:
    """The token without blanks around it; raises Misused, without showing it."""
    token = text.strip()
    if not token or len(token) > MAX_TOKEN_CHARS or not token.isascii() or not token.isprintable() or " " in token:
        raise Misused(f"{where} holds no token; a token is one word such as rfx_op_…")
    return token


def check_url(text: str, where: str) -> str:
    """The address without a slash at its end; raises Misused."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isascii() or not text.isprintable() or " " in text:
        raise Misused(f"{where} is no address of a server; write for example https://reflex.example or {DEFAULT_URL}")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise Misused(f"{where}: leave user names, passwords, ? and # out of the server's address")
    return text.rstrip("/")


def refuse_plain_http(url: str) -> None:
    """Raises Misused where the token would cross a network unencrypted."""
    parts = urlsplit(url)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise Misused(
            f"{url} would send the token unencrypted over the network; use https, or a tunnel "
            "(ssh -L 8765:127.0.0.1:8765 …), or --insecure where everybody on the way is trusted"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
