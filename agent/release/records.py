"""What this host remembers of its releases and orders, in one file that is replaced as a whole."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

RECORDS_FILE = "releases.json"
MOST_ORDERS = 200
MOST_BAD = 100

log = logging.getLogger(__name__)


@dataclass(slots=True)
class AppRecord:
    """`serving` and `before` are releases, `commits` the commit of each, `bad` why each bad commit is so.

    `own` has what the repository says of each release in its own file. `ran` are the services of the app that have
    been seen.

    `usual` has how many workers of each of its services died of faults in the hour before the switch at `switched_us`;
    `regressed` is the release of which it was told that it turned bad.
    """

    serving: str = ""
    before: str = ""
    commits: dict[str, str] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    own: dict[str, dict[str, Any]] = field(default_factory=dict)
    usual: dict[str, int] = field(default_factory=dict)
    switched_us: int = 0
    regressed: str = ""
    ran: list[str] = field(default_factory=list)


@dataclass(slots=True)
class OrderRecord:
    """An order that was begun; `outcome` is the event that told its end, as JSON, None until then.

    What an order that was cut off has to know to go on: `before`, the release that served when it began, and `goes_back`,
    why what it switched to is taken back; and `has_migrated`. `folder` and `services` are the app's.
    """

    phase: str
    app: str
    release: str = ""
    outcome: dict[str, Any] | None = None
    before: str = ""
    goes_back: str = ""
    has_migrated: bool = False
    folder: str = ""
    services: list[str] = field(default_factory=list)


class Records:
    """The file `releases.json` of a state directory. Raises OSError when it cannot be written."""

    def __init__(self, path: Path) -> None:
        """Reads what is there; a file that cannot be understood counts as none, is put aside and told of in the log."""
        self._path = path
        self.apps: dict[str, AppRecord] = {}
        self.orders: dict[str, OrderRecord] = {}
        try:
            known = orjson.loads(path.read_bytes())
            self.apps = {name: AppRecord(**one) for name, one in known["apps"].items()}
            self.orders = {id_: OrderRecord(**one) for id_, one in known["orders"].items()}
        except OSError as error:
            if path.exists():
                log.error("%s cannot be read, so what releases did here is not known: %s", path, error.strerror)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            aside = path.with_suffix(".broken")
            log.error("%s is not understood (%r) and kept as %s; bad releases are forgotten", path, error, aside.name)
            self.apps, self.orders = {}, {}
            with suppress(OSError):
                path.replace(aside)

    def app(self, name: str) -> AppRecord:
        """What is known of an app; empty at first."""
        return self.apps.setdefault(name, AppRecord())

    def cut(self) -> Iterator[tuple[str, OrderRecord]]:
        """Orders that were begun and of whose end nothing is known."""
        yield from ((id_, order) for id_, order in self.orders.items() if order.outcome is None)

    def save(self) -> None:
        """Returns when all is on the disk."""
        ended = [id_ for id_, order in self.orders.items() if order.outcome is not None]
        for id_ in ended[: max(len(ended) - MOST_ORDERS, 0)]:
            del self.orders[id_]
        for app in self.apps.values():
            while len(app.bad) > MOST_BAD:
                del app.bad[next(iter(app.bad))]
        value = {
            "apps": {name: _plain(app) for name, app in self.apps.items()},
            "orders": {id_: _plain(order) for id_, order in self.orders.items()},
        }
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(orjson.dumps(value))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)


def _plain(one: AppRecord | OrderRecord) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__slots__}
