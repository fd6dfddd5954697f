"""Records that the server will never take, kept in a file for people to look at."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import orjson

from agent.exchange import Rejected

MAX_BYTES = 16 * 1024 * 1024

log = logging.getLogger(__name__)


class RejectedFile:
    """One JSON object a line, up to a size; later ones are only logged."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, records: Sequence[Rejected]) -> None:
        """Appends them, and says once for all of them what happened."""
        if not records:
            return
        first = records[0]
        what = f"the server rejected {len(records)} records, first {first.stream} {first.seq} ({first.error})"
        try:
            if self._path.exists() and self._path.stat().st_size > MAX_BYTES:
                log.warning("%s; %s is full and does not keep them", what, self._path)
                return
            with self._path.open("ab") as file:
                file.writelines(_line(record) for record in records)
        except OSError as problem:
            log.warning("%s; they could not be kept: %s", what, problem)
            return
        log.warning("%s; they are kept in %s", what, self._path)


def _line(record: Rejected) -> bytes:
    return orjson.dumps(
        {
            "stream": record.stream,
            "seq": record.seq,
            "error": record.error,
            "record": record.payload.decode("utf-8", "replace"),
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )
