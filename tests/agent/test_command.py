"""Commands: what travels comes back, and what is not signed for this host, or signed otherwise, is told apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire import (
    LONGEST_US,
    Command,
    Target,
    WireError,
    command_from_json,
    command_to_json,
    is_signed,
    sign,
)

IDS = [str(UUID(int=n)) for n in range(1, 4)]
KEY = "ab" * 32
COMMAND = Command(
    id=IDS[0],
    issued_us=1_000_000,
    expires_us=31_000_000,
    host="web-1",
    run=IDS[1],
    step="recycle",
    action="gunicorn.recycle_worker",
    cause=IDS[2],
    params={"grace_s": 30},
    service="shop-web",
    target=Target(4121, 81234),
)

commands = st.builds(
    Command,
    id=st.uuids().map(str),
    issued_us=st.integers(0, 2**52),
    expires_us=st.just(0),
    host=st.text(min_size=1, max_size=50),
    run=st.uuids().map(str),
    step=st.text(min_size=1, max_size=50),
    action=st.text(min_size=1, max_size=50),
    cause=st.uuids().map(str),
    params=st.dictionaries(st.text(min_size=1, max_size=9), st.integers(-5, 5) | st.text(max_size=9) | st.booleans()),
    service=st.none() | st.text(min_size=1, max_size=9),
    target=st.none() | st.builds(Target, st.integers(2, 2**22), st.integers(0, 2**40)),
    dry_run=st.booleans(),
).flatmap(lambda one: st.integers(1, LONGEST_US).map(lambda for_us: replace(one, expires_us=one.issued_us + for_us)))


@given(commands)
def test_there_and_back(command: Command) -> None:
    there = orjson.loads(orjson.dumps(command_to_json(command)))
    assert command_from_json(there) == command
    assert is_signed(command_from_json(there), sign(command, KEY), KEY)


@given(commands, commands)
def test_a_signature_is_of_one_command(one: Command, other: Command) -> None:
    assert is_signed(other, sign(one, KEY), KEY) == (one == other)


def test_another_hosts_key_and_no_signature_at_all() -> None:
    assert not is_signed(COMMAND, sign(COMMAND, KEY), "cd" * 32)
    for forged in ("", "00" * 32, "é", sign(COMMAND, KEY).upper(), sign(COMMAND, KEY)[:-1]):
        assert not is_signed(COMMAND, forged, KEY)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"id": "4121"}, "id: must be a UUID"),
        ({"expires_us": 1_000_000}, "expires_us: must be after issued_us"),
        ({"expires_us": 1_000_001 + LONGEST_US}, "expires_us: must be after issued_us"),
        ({"action": ""}, "action: must be a non-empty string"),
        ({"target": {"pid": 1}}, "target.start_ticks: must be a whole number"),
        ({"target": 4121}, "target: must be an object"),
        ({"params": {"a": []}}, "params.a"),
        ({"dry_run": "no"}, "dry_run: must be true or false"),
        ({"host": None}, "host: must be a non-empty string"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(WireError) as told:
        command_from_json({**command_to_json(COMMAND), **change})
    assert problem in str(told.value)
