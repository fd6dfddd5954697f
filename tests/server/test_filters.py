"""Parsing of times and the filter's own test, without a store."""

from __future__ import annotations

import pytest

from agent.wire import Event
from server.errors import ApiError
from server.filters import EventFilter, parse_time
from server.stored import StoredEvent

NOW_US = 1_795_395_069_123_456


@pytest.mark.parametrize(
    ("text", "ts_us"),
    [
        ("-15m", NOW_US - 15 * 60_000_000),
        ("-24h", NOW_US - 24 * 3_600_000_000),
        ("-7d", NOW_US - 7 * 86_400_000_000),
        ("0", 0),
        (str(NOW_US), NOW_US),
        ("2026-11-23T00:51:09.123456Z", NOW_US),
        ("2026-11-23T01:51:09.123456+01:00", NOW_US),
        ("2026-11-23T01:51:09.123456 01:00", NOW_US),
        ("-999999w", 0),
        ("1900-01-01T00:00:00Z", 0),
    ],
)
def test_times(text: str, ts_us: int) -> None:
    assert parse_time("from", text, now_us=NOW_US) == ts_us


@pytest.mark.parametrize("text", ["", "15m", "-m", "-1.5h", "٣", "9" * 19, "2026-11-23", "tomorrow"])
def test_what_is_no_time_is_named(text: str) -> None:
    with pytest.raises(ApiError, match="^from: "):
        parse_time("from", text, now_us=NOW_US)


def test_an_event_without_a_service_passes_no_service_filter() -> None:
    stored = StoredEvent("web-3", Event("x", 1, "worker.exited", "info", "Worker ended"))
    assert EventFilter(q="WORKER").matches(stored)
    assert not EventFilter(services=frozenset({"shop"})).matches(stored)
    assert not EventFilter(kinds=frozenset()).matches(stored)
