"""Batches from agents: what is taken, what is refused, and that a record is stored once however often it is sent."""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib
from collections.abc import Callable
from typing import Any

import orjson
import pytest

Make = Callable[..., dict[str, Any]]


async def test_every_field_of_an_event_comes_back(api: Any, agent: Any, make_event: Make) -> None:
    event = make_event(
        kind="worker.oom_killed",
        severity="critical",
        text="a 'quoted' \\ sentence\nwith {braces:String} and é 😀",
        service="shop-web",
        worker={"slot": 2, "generation": 3, "pid": 4121, "start_ticks": 81234},
        release="v1",
        cause="019a0000-0000-7000-8000-000000000001",
        evidence=[{"source": "tp_btf/mark_victim", "fact": "victim 4121"}],
        attrs={"anon_bytes": 191889408, "share": 0.5, "whole": 2.0, "own": True, "death": "kernel_oom", "empty": ""},
    )
    answer = await agent.send(event)
    assert answer == {"acked": {"events": 1, "samples": None, "artifacts": None}, "rejected": []}
    status, stored = await api.get(f"/v1/events/{event['id']}")
    assert status == 200
    assert {key: stored[key] for key in event} == event
    assert stored["host"] == agent.host
    assert [type(stored["attrs"][key]) for key in ("anon_bytes", "whole", "own")] == [int, float, bool]


async def test_what_an_event_leaves_out_is_null(api: Any, agent: Any, make_event: Make) -> None:
    event = make_event(ts_us=1795395069123456)
    await agent.send(event)
    _, stored = await api.get(f"/v1/events/{event['id']}")
    assert stored["ts"] == "2026-11-23T00:51:09.123456Z"
    assert [stored[key] for key in ("service", "worker", "release", "cause")] == [None] * 4
    assert (stored["evidence"], stored["attrs"]) == ([], {})


async def test_bad_records_are_rejected_alone(api: Any, agent: Any, make_event: Make) -> None:
    good = make_event()
    records = agent.number(
        [make_event(kind="no.such"), good, {**make_event(), "ts_us": "now"}, make_event(severity="loud")]
    )
    status, answer = await agent.post(agent.batch(records))
    assert status == 200
    assert answer["acked"]["events"] == 4
    assert [(one["stream"], one["seq"]) for one in answer["rejected"]] == [("events", 1), ("events", 3), ("events", 4)]
    assert "unknown kind 'no.such'" in answer["rejected"][0]["error"]
    assert await api.ids(host=agent.host) == [good["id"]]


async def test_samples_outside_their_window_and_unknown_metrics_are_rejected(agent: Any) -> None:
    now_us = time.time_ns() // 1000
    sample = {"ts_us": now_us, "metric": "agent.rss_bytes", "value": 4.3e7, "service": None, "subject": None}
    samples = [sample, {**sample, "ts_us": 0}, {**sample, "metric": "no.such"}, {**sample, "value": "much"}]
    numbered = [{"seq": 9000 + index, "sample": one} for index, one in enumerate(samples)]
    status, answer = await agent.post(agent.batch(samples=numbered))
    assert status == 200
    assert answer["acked"] == {"events": None, "samples": 9003, "artifacts": None}
    assert [one["seq"] for one in answer["rejected"]] == [9001, 9002, 9003]


@pytest.mark.parametrize(
    ("rows", "where"),
    [
        ([], "rows"),
        ([["worker.threads", 1, None, None]] * 501, "rows"),
        ([["worker.threads", 1, None]], "rows[0]"),
        ([["worker.threads", 1, None, None], ["no.such", 1, None, None]], "rows[1].metric"),
    ],
)
async def test_a_bad_row_rejects_its_record(agent: Any, rows: object, where: str) -> None:
    record = {"ts_us": time.time_ns() // 1000, "rows": rows}
    status, answer = await agent.post(agent.batch(samples=[{"seq": 1, "sample": record}]))
    assert status == 200
    assert [one["error"].partition(":")[0] for one in answer["rejected"]] == [where]


async def test_repeats_and_other_batch_boundaries_store_nothing_twice(api: Any, agent: Any, make_event: Make) -> None:
    events = [make_event() for _ in range(12)]
    records = agent.number(events)
    for first, end in ((0, 8), (0, 8), (0, 3), (3, 10), (0, 12), (11, 12)):
        status, answer = await agent.post(agent.batch(records[first:end]))
        assert (status, answer["acked"]["events"]) == (200, end)
    assert sorted(await api.ids(host=agent.host)) == sorted(event["id"] for event in events)


async def test_simultaneous_repeats_store_nothing_twice(api: Any, agent: Any, make_event: Make) -> None:
    records = agent.number([make_event() for _ in range(20)])
    answers = await asyncio.gather(*(agent.post(agent.batch(records[n : n + 10])) for n in (0, 0, 5, 10, 0, 10)))
    assert {status for status, _ in answers} == {200}
    assert len(await api.ids(host=agent.host)) == 20


async def test_one_id_twice_in_a_batch_is_one_event(api: Any, agent: Any, make_event: Make) -> None:
    event = make_event()
    await agent.send(event, event)
    assert await api.ids(host=agent.host) == [event["id"]]


async def test_an_event_can_be_read_as_soon_as_it_is_acknowledged(api: Any, agent: Any, make_event: Make) -> None:
    for _ in range(10):
        event = make_event()
        await agent.send(event)
        assert (await api.get(f"/v1/events/{event['id']}"))[0] == 200


async def test_events_from_wrong_clocks_are_kept(api: Any, agent: Any, make_event: Make) -> None:
    """A host whose clock is wrong still tells of its deaths; even two hundred months in one insert are taken."""
    month_us = 31 * 86_400_000_000
    events = [make_event(ts_us=month * month_us) for month in range(200)]
    await agent.send(*events)
    assert len(await api.ids(host=agent.host, from_=0, limit=500)) == 200


async def test_a_heartbeat_is_acknowledged(agent: Any) -> None:
    assert await agent.post(agent.batch()) == (
        200,
        {"acked": {"events": None, "samples": None, "artifacts": None}, "rejected": []},
    )


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"v": 2}, "version"),
        ({"spool": "x"}, "spool"),
        ({"events": {}}, "events"),
        ({"events": [{"event": {}}]}, "events[0].seq"),
        ({"samples": [{"seq": -1}]}, "samples[0].seq"),
        ({"status": []}, "status"),
    ],
)
async def test_what_is_no_batch_is_400(agent: Any, change: dict[str, Any], word: str) -> None:
    status, answer = await agent.post(agent.batch(**change))
    assert (status, answer["error"]["code"]) == (400, "bad_request")
    assert word in answer["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"[1", b"[]", b"\xff\xfe", b"[" * 100_000])
async def test_what_is_no_object_is_400(agent: Any, body: bytes) -> None:
    assert (await agent.post(body))[0] == 400


async def test_too_many_records_are_413(agent: Any, make_event: Make) -> None:
    status, answer = await agent.post(agent.batch(agent.number([make_event()] * 2001)))
    assert (status, answer["error"]["code"]) == (413, "too_big")


async def test_a_gzip_body_is_taken(api: Any, agent: Any, make_event: Make) -> None:
    event = make_event()
    body = gzip.compress(orjson.dumps(agent.batch(agent.number([event]))))
    status, _ = await agent.post(body, **{"Content-Encoding": "gzip"})
    assert status == 200
    assert await api.ids(host=agent.host) == [event["id"]]


async def test_a_gzip_bomb_is_413_and_costs_no_memory(server: Any, agent: Any) -> None:
    """256 MiB of blanks in a quarter of a MiB."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    blanks = b" " * (1 << 20)
    bomb = b"".join(squeeze.compress(blanks) for _ in range(256)) + squeeze.flush()
    assert len(bomb) < 4 << 20
    before = server.rss_bytes()
    status, answer = await agent.post(bomb, **{"Content-Encoding": "gzip"})
    assert (status, answer["error"]["code"]) == (413, "too_big")
    assert server.rss_bytes() - before < 64 << 20


async def test_a_plain_body_over_the_limit_is_413(agent: Any) -> None:
    assert (await agent.post(b" " * ((4 << 20) + 1)))[0] == 413


@pytest.mark.parametrize("change", [lambda body: body[:-9], lambda body: body + b"more", lambda _: b"no gzip at all"])
async def test_a_damaged_gzip_body_is_400(agent: Any, change: Callable[[bytes], bytes]) -> None:
    body = change(gzip.compress(orjson.dumps(agent.batch())))
    assert (await agent.post(body, **{"Content-Encoding": "gzip"}))[0] == 400


async def test_other_encodings_are_415(agent: Any) -> None:
    assert (await agent.post(b"{}", **{"Content-Encoding": "br"}))[0] == 415


async def test_too_many_bytes_at_once_are_429(own_server: Any, connect: Any) -> None:
    """With room for one body, a second one that comes while the first is being read must come back later."""
    server = own_server("--max-inflight-bytes", str(5 << 20))
    _, agent = connect(server, "web-1")
    release = asyncio.Event()

    async def slowly() -> Any:
        yield b'{"v": 1,'
        await release.wait()
        yield orjson.dumps(agent.batch())[len('{"v":1,') :]

    headers = {"Authorization": f"Bearer {agent.key}"}
    slow = asyncio.create_task(agent.http.post(agent.base + "/v1/ingest", data=slowly(), headers=headers))
    statuses: list[int] = []
    while 429 not in statuses and len(statuses) < 200:
        statuses.append((await agent.post(agent.batch()))[0])
    release.set()
    assert statuses[-1] == 429
    async with await slow as answer:
        assert answer.status == 200
    assert (await agent.post(agent.batch()))[0] == 200
