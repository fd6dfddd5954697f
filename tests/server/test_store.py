"""The store on the real engine, inside this process: rows there and back, and the schema's ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.wire import MAX_INTEGER, SEVERITIES, Event, Evidence, WorkerRef, event_from_json, event_to_json
from server.errors import StoreCannotStart
from server.store.cpu import check_cpu
from server.store.database import Database, open_embedded
from server.store.events import EventTable
from server.store.migrate import ENGINES, migrate, read_schema
from server.stored import StoredEvent

MEMORY_BYTES = 1 << 30
whole = st.integers(0, MAX_INTEGER)
text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
names = st.none() | text
scalars = (
    st.text(st.characters(codec="utf-8"), max_size=40)
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(-MAX_INTEGER, MAX_INTEGER, allow_nan=False)
)
any_event = st.builds(
    Event,
    id=st.uuids().map(str),
    ts_us=whole,
    kind=st.just("worker.exited"),
    severity=st.sampled_from(SEVERITIES),
    text=text,
    service=names,
    worker=st.none() | st.builds(WorkerRef, whole, whole, whole, whole),
    release=names,
    cause=st.none() | st.uuids().map(str),
    evidence=st.lists(st.builds(Evidence, text, text), max_size=3).map(tuple),
    attrs=st.dictionaries(text, scalars, max_size=6),
)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as one:
        yield one


@pytest.fixture
def database(tmp_path: Path, runner: asyncio.Runner) -> Iterator[Database]:
    """An empty embedded store."""
    opened = runner.run(open_embedded(tmp_path / "store", memory_bytes=MEMORY_BYTES))
    yield opened
    runner.run(opened.close())


def test_every_event_comes_back_exactly(database: Database, runner: asyncio.Runner) -> None:
    runner.run(migrate(database, read_schema()))
    table = EventTable(database)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(any_event, min_size=1, max_size=8, unique_by=lambda event: event.id))
    def there_and_back(events: list[Event]) -> None:
        runner.run(table.insert([StoredEvent("web-3", event, 7) for event in events]))
        found = {stored.event.id: stored for stored in runner.run(table.by_ids([event.id for event in events]))}
        for event in events:
            assert found[event.id] == StoredEvent("web-3", event, 7)
            kinds = {name: repr(value) for name, value in event.attrs.items()}
            assert {name: repr(value) for name, value in found[event.id].event.attrs.items()} == kinds
            assert event_from_json(event_to_json(event)) == event

    there_and_back()


def test_the_schema_is_applied_once(database: Database, runner: asyncio.Runner) -> None:
    files = read_schema()
    runner.run(migrate(database, files))
    runner.run(migrate(database, files))
    rows = runner.run(database.ask("SELECT number, name FROM schema_files ORDER BY number"))
    assert rows == [(file.number, file.name) for file in files]


def test_a_changed_schema_file_is_refused(database: Database, runner: asyncio.Runner) -> None:
    files = read_schema()
    runner.run(migrate(database, files))
    with pytest.raises(StoreCannotStart, match="001_events.sql differs"):
        runner.run(migrate(database, [replace(files[0], sha256="other"), *files[1:]]))


def test_a_store_of_a_newer_version_is_refused(database: Database, runner: asyncio.Runner) -> None:
    files = read_schema()
    runner.run(migrate(database, files))
    with pytest.raises(StoreCannotStart, match="newer Reflex"):
        runner.run(migrate(database, files[:-1]))


def test_a_crash_between_statements_and_ledger_is_healed(database: Database, runner: asyncio.Runner) -> None:
    for statement in read_schema()[0].statements:
        runner.run(database.define(statement))
    runner.run(migrate(database, read_schema()))


def test_numbers_must_be_complete(tmp_path: Path) -> None:
    (tmp_path / "002_late.sql").write_text("SELECT 1;\n")
    with pytest.raises(StoreCannotStart, match="numbered"):
        read_schema(tmp_path)


def test_a_cluster_needs_only_other_words() -> None:
    words = {**ENGINES, "merge_tree": "ReplicatedMergeTree", "on_cluster": "ON CLUSTER c"}
    first = read_schema(engines=words)[0].statements[0]
    assert "ENGINE = ReplicatedMergeTree\n" in first
    assert "events ON CLUSTER c\n" in first


@pytest.mark.parametrize(("flags", "good"), [("sse4_2 avx avx2", True), ("sse4_2 avx avx2x", False)])
def test_the_processor_is_asked_first(tmp_path: Path, flags: str, good: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    if good:
        check_cpu(tmp_path / "cpuinfo", "x86_64")
    else:
        check_cpu(tmp_path / "cpuinfo", "aarch64")
        with pytest.raises(StoreCannotStart, match="AVX2"):
            check_cpu(tmp_path / "cpuinfo", "x86_64")
