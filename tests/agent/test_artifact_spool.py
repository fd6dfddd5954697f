"""Artifacts on their way: after events and before samples, given up in the opposite order, and acknowledged by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from agent.exchange import TryLater, encode_batch, read_answer
from agent.spool import Spool, SpoolBatch

CAP = 64 * 1024
MIB = 1024 * 1024


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool.open(tmp_path / "spool", CAP)
    yield opened
    opened.close()


def test_events_go_first_then_artifacts_then_samples(spool: Spool) -> None:
    for _ in range(2):
        spool.append_sample(b'{"s":1}')
        spool.append_artifact(b'{"a":1}')
        spool.append_event(b'{"e":1}')
    first = spool.next_batch(3, MIB)
    assert (len(first.events), len(first.artifacts), len(first.samples)) == (2, 1, 0)
    whole = spool.next_batch(100, MIB)
    assert (len(whole.events), len(whole.artifacts), len(whole.samples)) == (2, 2, 2)
    spool.ack(events=2, samples=None, artifacts=1)
    rest = spool.next_batch(100, MIB)
    assert ([seq for seq, _ in rest.artifacts], len(rest.events), len(rest.samples)) == ([2], 0, 2)
    assert spool.pending == 3


def test_a_full_spool_gives_up_samples_then_artifacts_then_events(spool: Spool) -> None:
    for _ in range(10):
        spool.append_event(b"e" * 1000)
    for _ in range(10):
        spool.append_artifact(b"a" * 1000)
    for _ in range(60):
        spool.append_sample(b"s" * 1000)
    assert {drop.stream for drop in spool.take_drops()} == {"samples"}
    for _ in range(70):
        spool.append_artifact(b"a" * 1000)
    drops = {drop.stream: drop for drop in spool.take_drops()}
    assert set(drops) == {"samples", "artifacts"}
    assert drops["artifacts"].reason.startswith("the spool reached its cap")
    assert len(spool.next_batch(1000, MIB).events) == 10
    for _ in range(80):
        spool.append_event(b"e" * 1000)
    assert {drop.stream for drop in spool.take_drops()} == {"artifacts", "events"}


def test_a_spool_of_an_agent_without_artifacts_keeps_its_name(tmp_path: Path) -> None:
    with_three = Spool.open(tmp_path / "spool", CAP)
    name = with_three.id
    with_three.append_event(b"{}")
    with_three.close()
    for file in (tmp_path / "spool" / "artifacts").iterdir():
        file.unlink()
    (tmp_path / "spool" / "artifacts").rmdir()
    again = Spool.open(tmp_path / "spool", CAP)
    assert again.id == name
    assert again.append_artifact(b"{}") == 1
    again.close()


def test_artifacts_wake_the_link_at_once(spool: Spool) -> None:
    woken: list[str] = []
    spool.wake(on_event=lambda: woken.append("event"), on_sample=lambda: woken.append("sample"))
    spool.append_artifact(b"{}")
    assert woken == ["event"]


def test_the_request_and_its_answer() -> None:
    batch = SpoolBatch((), (), ((7, b'{"id":"x"}'),))
    body, _ = encode_batch("0" * 8, b"{}", batch)
    assert orjson.loads(body)["artifacts"] == [{"seq": 7, "artifact": {"id": "x"}}]
    assert "artifacts" not in orjson.loads(encode_batch("0" * 8, b"{}", SpoolBatch((), ()))[0])
    rejected = [{"stream": "artifacts", "seq": 7, "error": "kind: unknown"}]
    said = orjson.dumps({"acked": {"events": None, "samples": None, "artifacts": 9}, "rejected": rejected})
    answer = read_answer(200, "", said, batch)
    assert answer.artifacts == 7
    assert [(one.stream, one.seq, one.payload) for one in answer.rejected] == [("artifacts", 7, b'{"id":"x"}')]


def test_a_server_that_knows_no_artifacts_leaves_them_spooled() -> None:
    said = orjson.dumps({"acked": {"events": None, "samples": None}, "rejected": []})
    with pytest.raises(TryLater, match="acknowledges nothing"):
        read_answer(200, "", said, SpoolBatch((), (), ((7, b"{}"),)))
    assert read_answer(200, "", said, SpoolBatch((), ())).artifacts is None
