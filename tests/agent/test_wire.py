"""The laws of the contract: what is written is read back, and whatever arrives is an event or a WireError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import RFC_4122, UUID

import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agent.wire import (
    KINDS,
    MAX_ATTR_CHARS,
    MAX_ATTRS,
    MAX_EVIDENCE,
    MAX_INTEGER,
    MAX_NAME_CHARS,
    MAX_TEXT_CHARS,
    METRICS,
    SEVERITIES,
    Event,
    Evidence,
    Sample,
    WireError,
    WorkerRef,
    event_from_json,
    event_to_json,
    sample_from_json,
    sample_to_json,
    serial_id,
    uuid7,
)

patient = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""

WHOLE = st.integers(0, MAX_INTEGER)
NAME = st.text(min_size=1, max_size=MAX_NAME_CHARS)
TEXT = st.text(min_size=1, max_size=MAX_TEXT_CHARS)
NUMBER = st.floats(-MAX_INTEGER, MAX_INTEGER, allow_nan=False)
IDENT = st.uuids().map(str)
EVENTS = st.builds(
    Event,
    id=IDENT,
    ts_us=WHOLE,
    kind=st.sampled_from(sorted(KINDS)),
    severity=st.sampled_from(SEVERITIES),
    text=TEXT,
    service=st.none() | NAME,
    worker=st.none() | st.builds(WorkerRef, WHOLE, WHOLE, WHOLE, WHOLE),
    release=st.none() | NAME,
    cause=st.none() | IDENT,
    evidence=st.lists(st.builds(Evidence, NAME, TEXT), max_size=MAX_EVIDENCE).map(tuple),
    attrs=st.dictionaries(
        NAME,
        st.text(max_size=MAX_ATTR_CHARS) | st.integers(-MAX_INTEGER, MAX_INTEGER) | NUMBER | st.booleans(),
        max_size=5,
    ),
)
SAMPLES = st.builds(
    Sample, WHOLE, st.sampled_from(sorted(METRICS)), NUMBER, service=st.none() | NAME, subject=st.none() | NAME
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
DEPTH = 1000
NESTED: Any = orjson.loads(b"[" * DEPTH + b"]" * DEPTH)
"""As deep as a body can be: more than Python's own printing of it can take."""


def _everyday_event() -> dict[str, Any]:
    return event_to_json(
        Event(
            id="019a5b6c-0000-7000-8000-000000000001",
            ts_us=1,
            kind="worker.exited",
            severity="info",
            text="worker 4121 (shop-web on web-3) ended: exit code 0",
            worker=WorkerRef(0, 1, 4121, 81234),
            evidence=(Evidence("tp_btf/sched_process_exit", "exit code 0"),),
            attrs={"death": "clean"},
        )
    )


def _problem(read: Callable[[object], object], value: object) -> str | None:
    """What a WireError says, None without one; any other exception is the test's failure."""
    try:
        read(value)
    except WireError as error:
        return str(error)
    return None


@patient
@given(EVENTS)
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    assert event_from_json(orjson.loads(orjson.dumps(event_to_json(event)))) == event


@patient
@given(SAMPLES)
def test_a_sample_comes_back_as_it_was(sample: Sample) -> None:
    assert sample_from_json(orjson.loads(orjson.dumps(sample_to_json(sample)))) == sample


@patient
@given(JSON)
def test_whatever_arrives_is_a_record_or_a_wire_error(value: object) -> None:
    for read in (event_from_json, sample_from_json):
        assert _problem(read, value) != ""


@patient
@given(field=st.sampled_from(sorted(_everyday_event())), value=JSON)
def test_one_wrong_field_is_a_wire_error_at_most(field: str, value: object) -> None:
    problem = _problem(event_from_json, {**_everyday_event(), field: value})
    assert problem is None or problem.startswith(field)


@patient
@given(field=st.sampled_from(["ts_us", "metric", "value", "service", "subject"]), value=JSON)
def test_one_wrong_field_of_a_sample_is_a_wire_error_at_most(field: str, value: object) -> None:
    problem = _problem(sample_from_json, {**sample_to_json(Sample(1, "agent.rss_bytes", 1.0)), field: value})
    assert problem is None or problem.startswith(f"{field}: ")


@pytest.mark.parametrize("field", sorted(_everyday_event()))
def test_a_deeply_nested_field_is_a_wire_error(field: str) -> None:
    for value in (NESTED, [NESTED], {"source": NESTED}, [{"source": NESTED, "fact": "x"}], {"slot": NESTED}):
        with pytest.raises(WireError):
            event_from_json({**_everyday_event(), field: value})


@pytest.mark.parametrize("count", [MAX_ATTRS, MAX_ATTRS + 1])
def test_the_number_of_attributes_is_bounded(count: int) -> None:
    event = {**_everyday_event(), "attrs": {f"a{number}": number for number in range(count)}}
    if count <= MAX_ATTRS:
        assert len(event_from_json(event).attrs) == count
    else:
        with pytest.raises(WireError, match="has 65 entries; the limit is 64"):
            event_from_json(event)


@patient
@given(ts_us=WHOLE, bits=st.integers(0, 2**62 - 1))
def test_an_id_is_a_version_7_uuid(ts_us: int, bits: int) -> None:
    ident = UUID(uuid7(ts_us, bits))
    assert (ident.version, ident.variant) == (7, RFC_4122)
    assert ident.int >> 80 == ts_us // 1000


@patient
@given(times=st.lists(WHOLE, min_size=2, max_size=2, unique=True), bits=st.lists(st.integers(0, 2**62 - 1), min_size=2))
def test_the_order_of_ids_is_the_order_of_time(times: list[int], bits: list[int]) -> None:
    early, late = sorted(times)
    assert uuid7(early, bits[0]) < uuid7(late, bits[1])


@patient
@given(ts_us=WHOLE, bits=st.integers(0, 2**62 - 1))
def test_an_id_gives_its_time_back_to_within_a_microsecond(ts_us: int, bits: int) -> None:
    value = UUID(uuid7(ts_us, bits)).int
    milliseconds, fraction = value >> 80, value >> 64 & 0xFFF
    assert abs(milliseconds * 1000 + fraction * 1000 / 4096 - ts_us) < 1


@patient
@given(seed=st.text(max_size=20), serial=st.integers(0, 2**30), ts_us=st.integers(0, 2**47 * 1000))
def test_ids_of_an_engine_repeat_for_the_same_and_for_nothing_else(seed: str, serial: int, ts_us: int) -> None:
    one = serial_id(seed, serial, ts_us)
    assert one == serial_id(seed, serial, ts_us)
    assert one != serial_id(seed, serial + 1, ts_us)
    assert one != serial_id(f"{seed} of another", serial, ts_us)
    assert one < serial_id(seed, serial, ts_us + 1)
    if (serial + 1) % 2**14:
        assert one < serial_id(seed, serial + 1, ts_us)
