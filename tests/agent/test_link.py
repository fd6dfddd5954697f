"""The link against servers that are late, dead, full, wrong or hostile: everything arrives, nothing is forgotten early."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson
import pytest
from aiohttp import ClientTimeout, web

import agent.exchange
import agent.link
from agent.link import Link
from agent.spool import Spool

KEY = "rfx-host-key-for-tests"
PATIENCE_S = 20
Handler = Callable[[dict[str, Any]], Awaitable[web.StreamResponse]]


def acked(batch: dict[str, Any], **other: Any) -> web.Response:
    """The server's everyday answer."""
    last = {name: max((one["seq"] for one in batch[name]), default=None) for name in ("events", "samples")}
    return web.json_response({"acked": last, "rejected": [], **other})


@dataclass
class Server:
    """A real HTTP server whose answer the test decides; `batches` is what arrived, `times` when."""

    answer: Handler | None = None
    batches: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    port: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.keys.append(request.headers["Authorization"])
        batch: dict[str, Any] = orjson.loads(await request.read())
        async with self.arrived:
            self.batches.append(batch)
            self.times.append(asyncio.get_running_loop().time())
            self.arrived.notify_all()
        return acked(batch) if self.answer is None else await self.answer(batch)

    async def start(self) -> web.AppRunner:
        """Listens; on the same port again when it did before."""
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/v1/ingest", self.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = runner.addresses[0][1]
        return runner

    async def until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S), self.arrived:
            await self.arrived.wait_for(met)

    def sent(self, stream: str = "events") -> list[int]:
        return [one["seq"] for batch in self.batches for one in batch[stream]]


class Connect(Protocol):
    """Starts a link to a server."""

    async def __call__(self, server: Server, status: Callable[[], Any] = dict) -> Link: ...


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.link, "BACKOFF_FIRST_S", 0.02)
    monkeypatch.setattr(agent.exchange, "REFUSED_RETRY_S", 0.05)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.open(tmp_path / "spool", 64 * 1024 * 1024)


@pytest.fixture
async def cleanup() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def server(cleanup: AsyncExitStack) -> Server:
    made = Server()
    runner = await made.start()
    cleanup.push_async_callback(runner.cleanup)
    return made


@pytest.fixture
def rejected_file(tmp_path: Path) -> Path:
    return tmp_path / "rejected.jsonl"


@pytest.fixture
def connect(spool: Spool, rejected_file: Path, cleanup: AsyncExitStack) -> Connect:
    async def start(server: Server, status: Callable[[], Any] = dict) -> Link:
        link = Link(f"http://127.0.0.1:{server.port}", KEY, spool, status, rejected_file=rejected_file)
        await link.start()
        cleanup.push_async_callback(link.stop, 0)
        return link

    return start


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not met():
            await asyncio.sleep(0.005)


def records_in(rejected_file: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in rejected_file.read_bytes().splitlines()]


def first_answers(*answers: web.StreamResponse | Exception | None) -> Handler:
    """These answers in turn, then everyday ones. None is a connection that ends without an answer."""
    left = list(answers)

    async def answer(batch: dict[str, Any]) -> web.StreamResponse:
        if not left:
            return acked(batch)
        one = left.pop(0)
        if isinstance(one, web.StreamResponse):
            return one
        raise one or ConnectionResetError

    return answer


async def test_an_event_is_sent_at_once_and_forgotten_on_ack(server: Server, spool: Spool, connect: Connect) -> None:
    await connect(server, lambda: {"version": "1"})
    await server.until(lambda: len(server.batches) == 1)
    await asyncio.sleep(0.1)
    now = asyncio.get_running_loop().time()
    spool.append_event(b'{"n":1}')
    await server.until(lambda: len(server.batches) == 2)
    assert server.times[1] - now < agent.link.GATHER_SAMPLES_S / 2
    assert server.batches[1] == {
        "v": 1,
        "spool": spool.id,
        "status": {"version": "1"},
        "events": [{"seq": 1, "event": {"n": 1}}],
        "samples": [],
    }
    assert server.keys[1] == f"Bearer {KEY}"
    await until(lambda: not spool.waiting)


async def test_samples_are_gathered_for_a_second(
    server: Server, spool: Spool, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent.link, "GATHER_SAMPLES_S", 0.3)
    await connect(server)
    await server.until(lambda: len(server.batches) == 1)
    for rounds in (1, 2):
        begun = asyncio.get_running_loop().time()
        for _ in range(5):
            spool.append_sample(b"{}")
            await asyncio.sleep(0.01)
        await server.until(lambda: len(server.sent("samples")) == 5 * rounds)  # noqa: B023 - awaited at once
        assert server.times[-1] - begun >= 0.29
        assert len(server.batches[-1]["samples"]) == 5


async def test_a_heartbeat_carries_the_status(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent.link, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(agent.link, "STATUS_EVERY_S", 0.15)
    beats = iter(range(1000))
    await connect(server, lambda: {"beat": next(beats)})
    await server.until(lambda: len(server.batches) == 4)
    assert [batch["status"] for batch in server.batches[:4]] == [{"beat": 0}, {}, {"beat": 1}, {}]
    assert all(later - early >= 0.095 for early, later in zip(server.times, server.times[1:], strict=False))


async def test_samples_alone_mostly_go_without_the_status(
    server: Server, spool: Spool, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent.link, "GATHER_SAMPLES_S", 0.01)
    beats = iter(range(1000))
    await connect(server, lambda: {"beat": next(beats)})
    await server.until(lambda: len(server.batches) == 1)
    for count in (2, 3):
        spool.append_sample(b"{}")
        await server.until(lambda: len(server.batches) == count)  # noqa: B023 - awaited at once
    spool.append_event(b"{}")
    await server.until(lambda: len(server.batches) == 4)
    assert [batch["status"] for batch in server.batches] == [{"beat": 0}, {}, {}, {"beat": 1}]


def test_a_heartbeat_comes_every_five_seconds() -> None:
    assert agent.link.HEARTBEAT_S == 5.0
    assert agent.link.STATUS_EVERY_S == 15.0
    assert agent.link.GATHER_SAMPLES_S == 5.0


@pytest.mark.parametrize(
    "trouble",
    [
        web.Response(status=503, headers={"Retry-After": "1"}),
        web.Response(status=429, headers={"Retry-After": "0"}),
        web.Response(status=503, headers={"Retry-After": "²"}),
        web.Response(status=503, headers={"Retry-After": "Mon, 23 Nov 2026 02:00:00 GMT"}),
        web.Response(status=500, text="<html>"),
        web.json_response({"error": {"code": "bad_request", "message": "v: upgrade both"}}, status=400),
        web.Response(status=401),
        web.Response(status=403),
        web.Response(status=307, headers={"Location": "http://127.0.0.1:1/steal"}),
        web.Response(status=204),
        web.Response(text="not JSON"),
        web.Response(text=""),
        web.json_response([1]),
        web.json_response({"acked": 7}),
        web.json_response({"acked": {}}),
        web.json_response({"acked": {"events": None, "samples": None}}),
        web.json_response({"acked": {"events": "2", "samples": True}}),
        web.json_response({"acked": {"events": -1}}),
        web.Response(body=b"\x1f\x8b broken", headers={"Content-Encoding": "gzip"}),
        web.Response(body=b"[" * 5000),
        web.Response(body=b" " * 3_000_000),
        None,
    ],
    ids=str,
)
async def test_what_is_no_acknowledgement_forgets_nothing(
    server: Server, spool: Spool, connect: Connect, trouble: web.Response | None
) -> None:
    """Also the records of a lost answer are sent again as they were."""
    spool.append_event(b'{"n":1}')
    spool.append_event(b'{"n":2}')
    server.answer = first_answers(trouble)
    await connect(server)
    await server.until(lambda: len(server.batches) >= 2)
    assert server.batches[0] == server.batches[1]
    await until(lambda: not spool.waiting)


async def test_retry_after_is_kept(server: Server, spool: Spool, connect: Connect) -> None:
    spool.append_event(b"{}")
    server.answer = first_answers(web.Response(status=503, headers={"Retry-After": "1"}))
    await connect(server)
    await server.until(lambda: len(server.batches) == 2)
    assert 0.95 < server.times[1] - server.times[0] < 5


async def test_retry_after_is_bounded(server: Server, spool: Spool, connect: Connect) -> None:
    for text, seconds in (("1", 1.0), ("99999999", 15.0), ("9" * 400, None), ("-1", None), ("1.5", None), ("", None)):
        with pytest.raises(agent.exchange.TryLater) as caught:
            agent.exchange.read_answer(503, text, b"", spool.next_batch(1, 1))
        assert caught.value.wait_s == seconds


async def test_an_acknowledgement_of_more_than_was_sent_forgets_only_that(
    server: Server, spool: Spool, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent.link, "BATCH_RECORDS", 2)
    server.answer = first_answers(web.json_response({"acked": {"events": 10**15, "samples": None}}))
    for _ in range(5):
        spool.append_event(b"{}")
    await connect(server)
    await until(lambda: not spool.waiting)
    assert server.sent() == [1, 2, 3, 4, 5]


async def test_half_an_answer_is_none(server: Server, spool: Spool, connect: Connect) -> None:
    async def answer(batch: dict[str, Any]) -> web.StreamResponse:
        if len(server.batches) > 1:
            return acked(batch)
        response = web.Response(body=orjson.dumps({"acked": {"events": 1}}))
        response.content_length = 500
        return response

    server.answer = answer
    spool.append_event(b"{}")
    await connect(server)
    await server.until(lambda: len(server.batches) == 2)
    assert server.sent() == [1, 1]


async def test_an_answer_in_small_pieces_is_read_whole(
    server: Server, spool: Spool, connect: Connect, rejected_file: Path
) -> None:
    said = orjson.dumps({"acked": {"events": 1}, "rejected": [{"stream": "events", "seq": 1, "error": "x" * 90_000}]})

    class InPieces(web.StreamResponse):
        async def write_eof(self, data: bytes = b"") -> None:
            for start in range(0, len(said), 40_000):
                await self.write(said[start : start + 40_000])
                await asyncio.sleep(0.01)
            await super().write_eof(data)

    server.answer = first_answers(InPieces())
    spool.append_event(b"{}")
    await connect(server)
    await until(lambda: not spool.waiting)
    assert len(server.batches) == 1


async def test_a_late_server_is_waited_for(server: Server, spool: Spool, connect: Connect) -> None:
    async def answer(batch: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(0.5)
        return acked(batch)

    server.answer = answer
    spool.append_event(b"{}")
    await connect(server)
    await until(lambda: not spool.waiting)
    assert server.sent() == [1]


async def test_a_server_that_never_answers_is_given_up_and_asked_again(
    server: Server,
    spool: Spool,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(agent.link, "TIMEOUT", ClientTimeout(total=0.3))

    async def answer(batch: dict[str, Any]) -> web.StreamResponse:
        if len(server.batches) == 1:
            await asyncio.sleep(3600)
        return acked(batch)

    server.answer = answer
    spool.append_event(b"{}")
    await connect(server)
    await until(lambda: not spool.waiting)
    assert server.sent() == [1, 1]
    assert "server unreachable (no answer in time); 1 events stay spooled" in caplog.text


async def test_a_server_that_comes_back_gets_everything_in_order(
    spool: Spool, connect: Connect, cleanup: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = Server()
    runner = await server.start()
    await runner.cleanup()
    for _ in range(3):
        spool.append_event(b"{}")
    await connect(server)
    await until(lambda: "server unreachable" in caplog.text)
    spool.append_event(b"{}")
    cleanup.push_async_callback((await server.start()).cleanup)
    await until(lambda: not spool.waiting)
    assert server.sent() == [1, 2, 3, 4]
    await until(lambda: "takes batches again" in caplog.text)
    assert "3 events stay spooled" in caplog.text
    assert caplog.text.count("Cannot connect") == 1, "said once, not at every try"


async def test_raw_rubbish_on_the_socket_is_survived(spool: Spool, connect: Connect, cleanup: AsyncExitStack) -> None:
    rubbish = [b"", b"\x00\xff" * 50, b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"]
    rubbish += [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\nabc",
    ]
    left, done = list(rubbish), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        if left:
            writer.write(left.pop())
        else:
            done.set()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    cleanup.callback(listener.close)
    spool.append_event(b"{}")
    await connect(Server(port=listener.sockets[0].getsockname()[1]))
    async with asyncio.timeout(PATIENCE_S):
        await done.wait()
    assert spool.pending_events == 1


async def test_413_halves_until_it_fits_and_puts_aside_what_never_will(
    server: Server, spool: Spool, connect: Connect, rejected_file: Path
) -> None:
    async def answer(batch: dict[str, Any]) -> web.StreamResponse:
        records = [one["event"]["n"] for one in batch["events"]]
        return web.Response(status=413) if len(records) > 3 or 6 in records else acked(batch)

    server.answer = answer
    for number in range(10):
        spool.append_event(orjson.dumps({"n": number}))
    await connect(server)
    await until(lambda: not spool.waiting)
    (kept,) = records_in(rejected_file)
    assert (kept["stream"], kept["seq"], orjson.loads(kept["record"])) == ("events", 7, {"n": 6})
    count = len(server.batches)
    spool.append_event(b'{"n":99}')
    await server.until(lambda: len(server.batches) > count)
    assert 7 not in [one["seq"] for one in server.batches[-1]["events"]]


async def test_413_for_a_heartbeat_is_no_endless_loop(server: Server, spool: Spool, connect: Connect) -> None:
    server.answer = first_answers(*[web.Response(status=413) for _ in range(3)])
    await connect(server)
    await server.until(lambda: len(server.batches) == 3)
    assert server.times[2] - server.times[0] >= 0.02
    spool.append_event(b"{}")
    await until(lambda: not spool.waiting)


async def test_rejected_records_are_kept_and_not_sent_again(
    server: Server, spool: Spool, connect: Connect, rejected_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = [{"stream": "events", "seq": 2, "error": "kind: unknown"}, 7, None, {"stream": [], "seq": {}}, {"seq": 1}]
    odd += [{"stream": "events", "seq": 77, "error": "never sent"}]
    server.answer = first_answers(web.json_response({"acked": {"events": 3, "samples": None}, "rejected": odd}))
    for number in range(3):
        spool.append_event(orjson.dumps({"n": number}))
    await connect(server)
    await until(lambda: not spool.waiting)
    assert server.sent() == [1, 2, 3]
    (kept,) = records_in(rejected_file)
    assert kept == {"stream": "events", "seq": 2, "error": "kind: unknown", "record": '{"n":1}'}
    assert "rejected 1 records, first events 2 (kind: unknown)" in caplog.text


@pytest.mark.parametrize("rejected", [None, 5, "x", {"a": 1}, [[]]])
async def test_an_odd_list_of_rejected_records_is_survived(
    server: Server, spool: Spool, connect: Connect, rejected: object
) -> None:
    spool.append_event(b"{}")
    server.answer = first_answers(web.json_response({"acked": {"events": 1}, "rejected": rejected}))
    await connect(server)
    await until(lambda: not spool.waiting)
    assert server.sent() == [1]


@pytest.mark.parametrize("status", [{"x": object()}, {"x": "y" * 5_000_000}, {1: 2}, None, {"x": "\ud800"}], ids=repr)
async def test_an_impossible_status_does_not_stop_the_sending(
    server: Server, spool: Spool, connect: Connect, status: Any
) -> None:
    spool.append_event(b"{}")
    await connect(server, lambda: status)
    await until(lambda: not spool.waiting)
    assert "problem" in server.batches[0]["status"]


async def test_a_status_that_fails_does_not_stop_the_sending(
    server: Server, spool: Spool, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    def status() -> dict[str, Any]:
        raise RuntimeError("dictionary changed size during iteration")

    await connect(server, status)
    for number in range(3):
        spool.append_event(b"{}")
        await until(lambda: not spool.waiting)
        assert server.sent() == list(range(1, number + 2))
    assert server.batches[0]["status"]["problem"].startswith("the agent could not make its status: RuntimeError")
    assert caplog.text.count("a defect in making the status") == 1


async def test_stop_sends_what_is_left(server: Server, spool: Spool, connect: Connect) -> None:
    link = await connect(server)
    await server.until(lambda: len(server.batches) == 1)
    spool.append_sample(b"{}")
    spool.append_event(b"{}")
    await link.stop(PATIENCE_S)
    assert not spool.waiting


async def test_stop_tries_once_more_in_a_pause_between_tries(
    server: Server, spool: Spool, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent.exchange, "REFUSED_RETRY_S", 3600)
    server.answer = first_answers(web.Response(status=401))
    spool.append_event(b"{}")
    link = await connect(server)
    await server.until(lambda: len(server.batches) == 1)
    await asyncio.sleep(0.05)
    begun = asyncio.get_running_loop().time()
    await link.stop(PATIENCE_S)
    assert not spool.waiting
    assert asyncio.get_running_loop().time() - begun < 5


async def test_stop_while_a_batch_is_under_way_sends_the_rest_and_does_not_dawdle(
    server: Server, spool: Spool, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent.link, "BATCH_RECORDS", 1)
    go = asyncio.Event()

    async def answer(batch: dict[str, Any]) -> web.StreamResponse:
        await go.wait()
        return acked(batch)

    server.answer = answer
    for _ in range(3):
        spool.append_event(b"{}")
    link = await connect(server)
    await server.until(lambda: len(server.batches) == 1)
    stopping = asyncio.create_task(link.stop(PATIENCE_S))
    await asyncio.sleep(0.05)
    go.set()
    begun = asyncio.get_running_loop().time()
    await stopping
    assert asyncio.get_running_loop().time() - begun < agent.link.HEARTBEAT_S - 1
    assert server.sent() == [1, 2, 3]


async def test_stop_returns_in_time_against_a_hanging_server(server: Server, spool: Spool, connect: Connect) -> None:
    async def answer(_batch: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(3600)
        raise AssertionError

    server.answer = answer
    spool.append_event(b"{}")
    link = await connect(server)
    await server.until(lambda: len(server.batches) == 1)
    begun = asyncio.get_running_loop().time()
    await link.stop(0.3)
    assert 0.25 < asyncio.get_running_loop().time() - begun < 3
    assert spool.pending_events == 1


async def test_the_key_is_in_no_log_and_no_repr(
    server: Server, spool: Spool, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.answer = first_answers(web.Response(status=401), None, web.Response(text="x"))
    spool.append_event(b"{}")
    link = await connect(server)
    await until(lambda: not spool.waiting)
    assert caplog.records
    assert KEY not in caplog.text
    assert KEY not in repr(link) + str(link)


async def test_a_unix_socket_is_a_way_too(
    spool: Spool, rejected_file: Path, tmp_path: Path, cleanup: AsyncExitStack
) -> None:
    server = Server()
    app = web.Application()
    app.router.add_post("/v1/ingest", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    cleanup.push_async_callback(runner.cleanup)
    await web.UnixSite(runner, str(tmp_path / "s")).start()
    link = Link(f"unix:{tmp_path / 's'}", KEY, spool, dict, rejected_file=rejected_file)
    spool.append_event(b"{}")
    await link.start()
    cleanup.push_async_callback(link.stop, 0)
    await until(lambda: not spool.waiting)
