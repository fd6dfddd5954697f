"""Telling people: channels by name from a file of the operator, each an address that Apprise knows (Slack, mail, PagerDuty, ...).

```
[ops]
url = "slack://TokenA/TokenB/TokenC/#ops"
[own-hook]
url = "jsons://ops.example.com/reflex"
```
Addresses hold secrets: they are in no log, no answer and no event.
"""

from __future__ import annotations

import asyncio
import logging
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

MOST_BYTES = 64 * 1024
WITHIN_S = 20
_NAME = re.compile(r"[a-z0-9-]{1,64}")

log = logging.getLogger(__name__)


class ChannelsError(ValueError):
    """The file of channels cannot be used; the text says why and where."""


class Notices:
    """The channels of one server. The file is read for each notice, so that a change needs no restart."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def tell(self, title: str, text: str, channel: str) -> tuple[list[str], list[str]]:
        """Tells one channel, or all if `channel` is empty: who was told, and what went wrong with the others."""
        try:
            channels = await asyncio.to_thread(load_channels, self._file)
        except ChannelsError as error:
            return [], [str(error)]
        if channel and channel not in channels:
            return [], [f"{self._file} has no channel {channel}"]
        names = [channel] if channel else sorted(channels)
        results = await asyncio.gather(*(self._tell_one(channels[name], title, text) for name in names))
        told = [name for name, trouble in zip(names, results, strict=True) if trouble is None]
        return told, [f"{name} {trouble}" for name, trouble in zip(names, results, strict=True) if trouble is not None]

    async def _tell_one(self, url: str, title: str, text: str) -> str | None:
        """What went wrong, never with the address."""
        import apprise  # a hundred plugins, loaded by those who have a channel

        sender = apprise.Apprise()
        if not sender.add(url):
            return "has an address that Apprise does not know"
        try:
            async with asyncio.timeout(WITHIN_S):
                is_told = await sender.async_notify(body=text, title=title)
        except TimeoutError:
            return f"did not answer within {WITHIN_S} s"
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            log.error("a notice failed with a %s", type(error).__name__)
            return f"failed with a {type(error).__name__}"
        return None if is_told else "did not take it"


def load_channels(file: Path) -> Mapping[str, str]:
    """Addresses by name; none where there is no file. Raises ChannelsError."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ChannelsError(f"{file} is larger than {MOST_BYTES} bytes")
        table = tomllib.loads(content.decode())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ChannelsError(f"{file} cannot be read: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise ChannelsError(f"{file} is not TOML: {error}") from None
    except UnicodeDecodeError:
        raise ChannelsError(f"{file} is not UTF-8") from None
    channels: dict[str, str] = {}
    for name, value in table.items():
        if not _NAME.fullmatch(name):
            raise ChannelsError(f"{file}: {name!r:.80} is no name of a channel: small letters, digits and -")
        if not isinstance(value, dict) or set(value) != {"url"} or not isinstance(value["url"], str):
            raise ChannelsError(f'{file}: [{name}] must have one line, url = "…"')
        channels[name] = value["url"]
    return channels
