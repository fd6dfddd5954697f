"""The live stream: what comes, in which order, after which event, and how it ends."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from yarl import URL

Make = Callable[..., dict[str, Any]]
PATIENCE_S = 120
"""Long enough for a machine that does ten other things; a stream that lost an event waits it out in vain."""


@dataclass
class Message:
    name: str
    id: str
    data: Any


async def messages(answer: aiohttp.ClientResponse) -> AsyncIterator[Message]:
    """What a browser's EventSource would tell, comments left out."""
    fields: dict[str, str] = {}
    async for line in answer.content:
        text = line.decode().rstrip("\n")
        if not text and "data" in fields:
            yield Message(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
        if not text:
            fields = {}
        elif not text.startswith(":"):
            name, _, value = text.partition(": ")
            fields[name] = value


async def ids_until(stream: AsyncIterator[Message], last: str) -> list[str]:
    """Ids of timeline messages up to `last`."""
    found: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        async for message in stream:
            if message.name == "timeline":
                assert message.id == message.data["id"]
                found.append(message.id)
                if message.id == last:
                    return found
    raise AssertionError(f"the stream ended after {found}")


@pytest.fixture
def open_stream(api: Any) -> Callable[..., Any]:
    @asynccontextmanager
    async def opened(params: Any = None, last_id: str | None = None) -> AsyncIterator[AsyncIterator[Message]]:
        headers = api.headers | ({"Last-Event-ID": last_id} if last_id else {})
        async with api.http.get(api.base + "/v1/stream", params=params, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.content_type == "text/event-stream"
            stream = messages(answer)
            assert (await anext(stream)).name == "hosts"
            yield stream

    return opened


async def test_new_events_come_in_order_and_filtered(open_stream: Any, agent: Any, make_event: Make) -> None:
    wanted = [make_event(kind="worker.ready") for _ in range(5)]
    async with open_stream({"host": agent.host, "kind": "worker.ready"}) as stream:
        await agent.send(make_event(), *wanted[:2])
        await agent.send(*wanted[2:])
        assert await ids_until(stream, wanted[4]["id"]) == [event["id"] for event in wanted]


async def test_an_event_sent_twice_comes_once(open_stream: Any, agent: Any, make_event: Make) -> None:
    first, last = make_event(), make_event()
    async with open_stream({"host": agent.host}) as stream:
        await agent.send(first)
        await agent.send(first, last)
        assert await ids_until(stream, last["id"]) == [first["id"], last["id"]]


@pytest.mark.parametrize("by", ["header", "url", "both"])
async def test_a_returning_reader_misses_nothing(open_stream: Any, agent: Any, make_event: Make, by: str) -> None:
    """Late events with old times are replayed too: what counts is when they arrived."""
    events = [make_event(ts_us=1_790_000_000_000_000 - index) for index in range(6)]
    await agent.send(*events[:4])
    params = {"host": agent.host}
    if by != "header":
        params["after"] = events[1 if by == "url" else 3]["id"]
    async with open_stream(params, None if by == "url" else events[1]["id"]) as stream:
        await agent.send(*events[4:])
        assert await ids_until(stream, events[5]["id"]) == [event["id"] for event in events[2:]]


async def test_replay_has_no_gap_and_no_double_under_load(open_stream: Any, agent: Any, make_event: Make) -> None:
    """Readers come back at any moment of a busy time; each must see every event once, in one order."""
    events = [make_event() for _ in range(1300)]
    await agent.send(*events[:700])

    async def send_the_rest() -> None:
        for first in range(700, 1300, 10):
            await agent.send(*events[first : first + 10])

    async def read(after: int) -> None:
        async with open_stream({"host": agent.host}, events[after]["id"]) as stream:
            assert await ids_until(stream, events[-1]["id"]) == [event["id"] for event in events[after + 1 :]]

    async def read_later(delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await read(100)

    await asyncio.gather(send_the_rest(), *(read_later(index / 10) for index in range(6)))


async def test_an_unknown_last_id_begins_now(open_stream: Any, agent: Any, make_event: Make) -> None:
    event = make_event()
    async with open_stream({"host": agent.host}, str(uuid4())) as stream:
        await agent.send(event)
        assert await ids_until(stream, event["id"]) == [event["id"]]


async def test_hosts_come_when_they_change(open_stream: Any, agent: Any) -> None:
    async with open_stream({"host": "nobody"}) as stream:
        await agent.post(agent.batch(status={"version": "0.1.0"}))
        async with asyncio.timeout(PATIENCE_S):
            async for message in stream:
                found = [host for host in message.data["hosts"] if host["name"] == agent.host]
                if message.name == "hosts" and found:
                    assert (found[0]["state"], found[0]["status"]) == ("live", {"version": "0.1.0"})
                    break


async def test_bad_parameters_are_400(api: Any) -> None:
    assert (await api.get("/v1/stream", {"kind": "x"}))[0] == 400
    assert (await api.get("/v1/stream", {"after": "x"}))[0] == 400


async def test_too_many_streams_are_503(own_server: Any, connect: Any) -> None:
    server = own_server("--max-readers", "2")
    api, _ = connect(server, "web-1")
    opened = [await api.http.get(api.base + "/v1/stream", headers=api.headers) for _ in range(2)]
    assert (await api.get("/v1/stream"))[0] == 503
    for answer in opened:
        answer.close()


async def test_a_slow_reader_is_let_go_and_hurts_nobody(
    open_stream: Any, api: Any, agent: Any, make_event: Make
) -> None:
    """The slow one reads nothing while some 10 MB are told; the other one gets it all."""
    events = [make_event(attrs={"long": "x" * 4000}) for _ in range(2600)]
    async with slow_stream(api, agent.host) as slow, open_stream({"host": agent.host}) as quick:
        reading = asyncio.create_task(ids_until(quick, events[-1]["id"]))
        for first in range(0, len(events), 200):
            await agent.send(*events[first : first + 200])
        assert len(await reading) == len(events)
        told = 0
        async with asyncio.timeout(PATIENCE_S):
            with suppress(ConnectionError):
                while line := await slow.readline():
                    told += line.startswith(b"event: timeline")
        assert told < len(events)


@asynccontextmanager
async def slow_stream(api: Any, host: str) -> AsyncIterator[asyncio.StreamReader]:
    """A stream whose client has little room, so that what it does not read waits at the server."""
    url = URL(api.base)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (url.host, url.port))
    reader, writer = await asyncio.open_connection(sock=connection)
    lines = (
        f"GET /v1/stream?host={host} HTTP/1.1",
        "Host: shop",
        "Connection: close",
        *(f"{k}: {v}" for k, v in api.headers.items()),
    )
    writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
    await reader.readuntil(b"event: hosts")
    try:
        yield reader
    finally:
        writer.transport.abort()


async def test_streams_end_cleanly_when_the_server_stops(own_server: Any, connect: Any) -> None:
    server = own_server()
    api, _ = connect(server, "web-1")
    async with api.http.get(api.base + "/v1/stream", headers=api.headers) as answer:
        await answer.content.readuntil(b"\n\n")
        assert await asyncio.to_thread(server.stop) == 0
        await answer.content.read()
