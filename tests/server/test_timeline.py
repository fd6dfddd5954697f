"""Reading the timeline: filters, ranges, pages that neither lose nor repeat, and one event by its id."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

Make = Callable[..., dict[str, Any]]
MINUTE_US = 60_000_000


async def all_pages(api: Any, between: Callable[[], Any] | None = None, **params: Any) -> list[str]:
    """Ids of all pages; `between` runs after each page."""
    ids, cursor = [], None
    while True:
        answer = await api.timeline(**params, **({"cursor": cursor} if cursor else {}))
        ids += [event["id"] for event in answer["events"]]
        cursor = answer["next_cursor"]
        if cursor is None:
            return ids
        if between is not None:
            await between()


@pytest.mark.parametrize("limit", [1, 3, 7, 20, 21, 500])
async def test_pages_put_together_are_the_whole(api: Any, agent: Any, make_event: Make, limit: int) -> None:
    """Events of one moment are the hard case: a page may end among them."""
    now_us = time.time_ns() // 1000
    events = [make_event(ts_us=now_us - index // 6) for index in range(20)]
    await agent.send(*events)
    ids = await all_pages(api, host=agent.host, limit=limit)
    assert sorted(ids) == sorted(event["id"] for event in events)
    times = {event["id"]: event["ts_us"] for event in events}
    assert [times[one] for one in ids] == sorted(times.values(), reverse=True)


async def test_pages_stay_while_newer_events_arrive(api: Any, agent: Any, make_event: Make) -> None:
    now_us = time.time_ns() // 1000
    events = [make_event(ts_us=now_us - index) for index in range(10)]
    await agent.send(*events)
    ids = await all_pages(api, lambda: agent.send(make_event()), host=agent.host, limit=3)
    assert ids == [event["id"] for event in events]


async def test_a_relative_range_means_the_same_on_every_page(api: Any, agent: Any, make_event: Make) -> None:
    events = [make_event() for _ in range(4)]
    await agent.send(*events)
    ids = await all_pages(api, host=agent.host, from_="-15m", to="-0s", limit=2)
    assert sorted(ids) == sorted(event["id"] for event in events)


async def test_filters(api: Any, agent: Any, make_event: Make) -> None:
    a = make_event(kind="worker.oom_killed", severity="critical", service="shop", text="Größe über 100 % – it's full")
    b = make_event(kind="worker.ready", severity="info", service="api", text="worker is ready")
    c = make_event(kind="queue.saturated", severity="warning", text="queue_full")
    await agent.send(a, b, c)

    async def found(**params: Any) -> set[str]:
        names = {a["id"]: "a", b["id"]: "b", c["id"]: "c"}
        return {names[one] for one in await api.ids(host=agent.host, **params)}

    assert await found() == {"a", "b", "c"}
    assert await found(kind="worker.*") == {"a", "b"}
    assert await found(kind=["worker.ready", "queue.*"]) == {"b", "c"}
    assert await found(kind="none.*") == set()
    assert await found(service=["shop", "api"]) == {"a", "b"}
    assert await found(severity="warning") == {"a", "c"}
    assert await found(severity="critical") == {"a"}
    assert await found(q="GRÖSSE") == set()
    assert await found(q="GRÖßE ÜBER") == {"a"}
    assert await found(q="100 %") == {"a"}
    assert await found(q="it's") == {"a"}
    assert await found(q="e_f") == {"c"}
    assert await found(q="') OR 1=1 --") == set()
    assert await api.ids(host="' OR '1'='1") == []
    assert await api.ids(host=[agent.host, "another"], service="shop") == [a["id"]]


async def test_a_range_includes_its_start_and_not_its_end(api: Any, agent: Any, make_event: Make) -> None:
    start_us = 1_700_000_000_000_000
    events = [make_event(ts_us=start_us + index * MINUTE_US) for index in range(3)]
    await agent.send(*events)
    for from_, to in (
        (start_us, start_us + 2 * MINUTE_US),
        ("2023-11-14T22:13:20Z", "2023-11-14T22:15:20.000000Z"),
        ("2023-11-14T23:13:20+01:00", "2023-11-14T22:15:20+00:00"),
    ):
        assert await api.ids(host=agent.host, from_=from_, to=to) == [events[1]["id"], events[0]["id"]]


@pytest.mark.parametrize(
    "params",
    [
        {"limit": 0},
        {"limit": 501},
        {"limit": "x"},
        {"limit": "١"},
        {"from": "yesterday"},
        {"from": "2026-11-23T01:11:09"},
        {"to": "-5y"},
        {"kind": "worker"},
        {"kind": "*.exited"},
        {"severity": "loud"},
        {"cursor": "nonsense"},
        {"cursor": "bnVsbA"},
        {"cursor": "WzEsMiwzLDRd"},
        {"q": "x" * 2001},
        {"host": "x" * 201},
        {"host": ""},
    ],
)
async def test_bad_parameters_are_400_and_named(api: Any, params: dict[str, Any]) -> None:
    status, answer = await api.get("/v1/timeline", params)
    assert (status, answer["error"]["code"]) == (400, "bad_request")
    assert answer["error"]["message"].startswith(next(iter(params)))


async def test_an_event_that_is_not_there(api: Any) -> None:
    for path in ("/v1/events/", "/v1/chain/"):
        assert (await api.get(path + str(uuid4())))[0] == 404
        assert (await api.get(path + "nonsense"))[0] == 400


async def test_an_id_that_tells_no_time_is_found_too(api: Any, agent: Any, make_event: Make) -> None:
    event = make_event(id=str(uuid4()))
    await agent.send(event)
    assert (await api.get(f"/v1/events/{event['id']}"))[0] == 200


async def test_errors_are_json_everywhere(api: Any, http: Any, server: Any) -> None:
    assert (await api.get("/v1/nothing"))[1]["error"]["code"] == "not_found"
    async with http.put(server.base + "/v1/timeline") as answer:
        assert answer.status == 405
        assert (await answer.json())["error"]["code"] == "method_not_allowed"
