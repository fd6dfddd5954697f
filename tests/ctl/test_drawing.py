"""Timeline lines, trees, times and safe text as plain values."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire import Evidence
from ctl.entry import Entry, read_entry
from ctl.lines import TimelineWriter
from ctl.safe import cells, clean, json_line, wrap
from ctl.screen import Screen
from ctl.spell import age, number, size, span
from ctl.sse import Message, SseReader
from ctl.timespan import read_time
from ctl.tree import Chain, draw, nodes

TS_US = 1_795_395_069_123_456
"""2026-11-23T00:51:09.123456Z"""


def entry(name: str, **other: Any) -> Entry:
    values = {"ts_us": TS_US, "host": "web-3", "kind": "worker.exited", "severity": "info", "text": f"{name}.", **other}
    return Entry(id=f"019a0000-0000-7000-8000-00000000{name:0>4}", **values)


def chain_of(*entries: Entry, missing: tuple[str, ...] = (), truncated: bool = False) -> Chain:
    by_id = {one.id: one for one in entries}
    causes = {e.id: (e.cause, e.ts_us - by_id[e.cause].ts_us) for e in entries if e.cause and e.cause in by_id}
    return Chain(entries[0].id, entries, causes, frozenset(missing), truncated)


def test_wide_terminal_has_columns_and_a_line_for_each_day() -> None:
    writer = TimelineWriter(Screen(width=100, zone=UTC))
    first = entry("1", text="one two " * 8, severity="warning")
    next_day = entry("2", ts_us=TS_US + 86_400_000_000, host="web-10", kind="worker.ready")
    assert writer.lines([first, next_day]) == [
        "Monday, 2026-11-23",
        "00:51:09.123 ▲ 00000001 web-3  worker.exited one two one two one two one two one two one two one two",
        "                                             one two ",
        "Tuesday, 2026-11-24",
        "00:51:09.123 ● 00000002 web-10 worker.ready  2.",
    ]


def test_narrow_terminal_has_the_sentence_below() -> None:
    lines = TimelineWriter(Screen(width=60, zone=UTC)).lines([entry("1")])
    assert lines[1:] == ["00:51:09.123 ● 00000001 web-3 worker.exited", "    1."]


def test_plain_characters_where_the_encoding_has_no_others() -> None:
    lines = TimelineWriter(Screen(unicode=False, zone=timezone(timedelta(hours=-3)))).lines([entry("1")])
    assert lines == [f"2026-11-22 21:51:09.123-03:00 - info     {entry('1').id} web-3 worker.exited 1."]
    tree = draw(chain_of(entry("1"), entry("2", cause=entry("1").id, ts_us=TS_US + 5)), Screen(unicode=False, zone=UTC))
    assert all(line.isascii() for line in tree)


def test_a_tree_with_branches() -> None:
    root = entry("1", evidence=(Evidence("proc", "fact"),))
    left = entry("2", cause=root.id, ts_us=TS_US + 1_800, severity="critical")
    leaf = entry("3", cause=left.id, ts_us=TS_US + 2_000_000)
    right = entry("4", cause=root.id, ts_us=TS_US - 50)
    assert draw(chain_of(root, left, leaf, right), Screen(width=100, zone=UTC)) == [
        "● worker.exited web-3 2026-11-23 00:51:09.123+00:00 00000001 ◀ asked for",
        "│ 1.",
        "│ · proc: fact",
        "├─ +1.8 ms ✖ worker.exited web-3 00:51:09.125 00000002",
        "│  │ 2.",
        "│  └─ +2.0 s ● worker.exited web-3 00:51:11.123 00000003",
        "│       3.",
        "└─ -50 µs (clocks differ) ● worker.exited web-3 00:51:09.123 00000004",
        "     4.",
    ]


def test_missing_causes_and_a_cut_chain_are_said() -> None:
    orphan = entry("1", cause=entry("9").id)
    lines = draw(chain_of(orphan, missing=(entry("9").id,)), Screen(zone=UTC))
    assert lines[0] == f"? its cause {entry('9').id} is not stored (yet)"
    lines = draw(chain_of(orphan, missing=(entry("9").id,), truncated=True), Screen(zone=UTC))
    assert "beyond what is shown" in lines[0] and "longer than the server tells" in lines[-1]


def test_circles_of_causes_end() -> None:
    one, two, own = entry("1", cause=entry("2").id), entry("2", cause=entry("1").id), entry("3", cause=entry("3").id)
    lines = draw(chain_of(one, two, own), Screen(zone=UTC))
    assert sum("is also one of its effects" in line for line in lines) == 2
    assert [node.entry.id for node in nodes(chain_of(one, two, own))] == [own.id, one.id, two.id]


def test_a_very_deep_chain_stays_on_the_screen() -> None:
    entries = [entry("0")]
    for depth in range(1, 500):
        entries.append(entry(str(depth), cause=entries[-1].id))
    lines = draw(chain_of(*entries), Screen(width=80, zone=UTC))
    assert max(len(line) for line in lines) < 120
    assert "┆499┆ └─ " in lines[-2]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=30))
def test_every_event_is_drawn_exactly_once(pairs: list[tuple[int, int]]) -> None:
    causes = dict(pairs)
    entries = [entry(str(n), cause=entry(str(causes[n])).id if n in causes else None) for n in range(21)]
    assert sorted(node.entry.id for node in nodes(chain_of(*entries))) == sorted(one.id for one in entries)


@settings(deadline=None)
@given(st.text())
def test_clean_text_has_nothing_that_steers(text: str) -> None:
    assert all(unicodedata.category(one) not in ("Cc", "Cf", "Zl", "Zp") for one in clean(text))


def test_clean_keeps_what_people_read() -> None:
    assert clean("größer 漢字 a\tb\r\nc\x1b[31m\u202eevil\u200b\x9b2J") == "größer 漢字 a b  c[31mevil2J"


@settings(deadline=None)
@given(st.recursive(st.text() | st.integers(-(2**53), 2**53), lambda inner: st.lists(inner), max_leaves=5))
def test_json_means_the_same_and_shows_no_hidden_character(value: Any) -> None:
    line = json_line(value).decode()
    assert json.loads(line) == value
    assert all(unicodedata.category(one) not in ("Cc", "Cf") for one in line[:-1])


@settings(deadline=None)
@given(st.text(alphabet="ab 漢é\u0301"), st.integers(2, 30))
def test_wrapped_lines_fit_and_keep_every_character(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert all(cells(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_spans_ages_sizes_and_numbers() -> None:
    spans = [85, 1_800, 999_960, 59_900_000, 59_960_000, 250_000_000, 3_600_000_000, 183_600_000_000]
    assert [span(us) for us in spans] == ["85 µs", "1.8 ms", "1.0 s", "59.9 s", "59 s", "4 min 10 s", "1 h", "2 d 3 h"]
    assert [age(since, now_us=TS_US) for since in (None, TS_US + 9, TS_US - 61_000_000)] == [
        "unknown",
        "0 s",
        "1 min 1 s",
    ]
    assert [size(n) for n in (None, 0, 1023, 1024, 43_000_000, 2**40)] == [
        "unknown", "0 B", "1023 B", "1.0 KiB", "41.0 MiB", "1.0 TiB",
    ]  # fmt: skip
    assert [number(None), number(0.25, "%"), number(3)] == ["unknown", "0.2 %", "3"]


def test_times() -> None:
    zone = timezone(timedelta(hours=1))
    assert [read_time(text, zone=zone) for text in ("1h", "-1h", "90s", "2w")] == ["-1h", "-1h", "-90s", "-2w"]
    written = ("2026-11-23T00:51:09Z", "2026-11-23T01:51:09", "2026-11-23 01:51:09+01:00")
    assert {read_time(text, zone=zone) for text in written} == {str(TS_US // 1_000_000 * 1_000_000)}
    for wrong in ("", "1y", "yesterday", "1960-01-01", "-", "now"):
        with pytest.raises(ValueError, match="is no time"):
            read_time(wrong, zone=zone)


@settings(deadline=None)
@given(st.integers(1, 40))
def test_a_stream_reads_the_same_in_pieces_of_any_size(piece: int) -> None:
    text = (
        "retry: 2000\n: hello\n\nevent: timeline\r\nid: 7\r\ndata: {\r\ndata: }é\r\n\r\ndata:x\n\nevent: cut".encode()
    )
    reader = SseReader()
    found = [m for at in range(0, len(text), piece) for m in reader.feed(text[at : at + piece])]
    assert found == [Message("timeline", "7", "{\n}é"), Message("message", None, "x")]


def test_an_event_of_a_newer_server_is_read() -> None:
    told = {"id": "1", "ts_us": 1, "host": "h", "kind": "new.kind", "severity": "fatal", "text": "t", "more": []}
    assert read_entry(told) == Entry("1", 1, "h", "new.kind", "critical", "t")
