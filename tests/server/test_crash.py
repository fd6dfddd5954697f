"""kill -9 of the real server while batches come in: every record that was ever sent is stored exactly once."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from server.store.database import open_embedded

Make = Callable[..., dict[str, Any]]
BATCHES = 200
ROWS = 7
KILLS = 4


async def send_all(agent: Any, records: list[dict[str, Any]], samples: list[dict[str, Any]], random_: Any) -> None:
    """As the agent does: from the first record that is not acknowledged, in batches of any size, until all are."""
    done = 0
    while done < len(records):
        end = min(done + random_.randint(1, 9), len(records))
        try:
            status, answer = await agent.post(agent.batch(records[done:end], samples=samples[done:end]))
        except (aiohttp.ClientError, TimeoutError):
            await asyncio.sleep(0.02)
            continue
        if status == 200:
            assert answer["rejected"] == []
            done = int(answer["acked"]["events"])


@pytest.mark.parametrize("seed", [1])
async def test_nothing_is_lost_and_nothing_doubled(own_server: Any, connect: Any, make_event: Make, seed: int) -> None:
    random_ = random.Random(seed)
    server = own_server()
    api, agent = connect(server, "web-1")
    now_us = time.time_ns() // 1000
    events = [make_event(ts_us=now_us + index, attrs={"n": index}) for index in range(BATCHES * 5)]
    records = agent.number(events)
    rows = [["worker.threads", 4, "shop-web", f"worker {slot} (pid {slot})"] for slot in range(ROWS)]
    samples = [
        {"seq": one["seq"], "sample": {"ts_us": now_us + place, "rows": rows}} for place, one in enumerate(records)
    ]
    sending = asyncio.create_task(send_all(agent, records, samples, random_))
    for _ in range(KILLS):
        await asyncio.sleep(random_.uniform(0.05, 0.4))
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        agent.base = api.base = server.base
    async with asyncio.timeout(120):
        await sending
    assert server.stop() == 0

    database = await open_embedded(server.state / "store", memory_bytes=1 << 30)
    try:
        stored = Counter(str(row[0]) for row in await database.ask("SELECT id FROM events WHERE host = 'web-1'"))
        numbers = Counter(row[0] for row in await database.ask("SELECT seq FROM samples"))
    finally:
        await database.close()
    assert stored == Counter(event["id"] for event in events)
    assert numbers == {one["seq"]: ROWS for one in records}


async def test_samples_that_come_twice_at_once(own_server: Any, connect: Any) -> None:
    server = own_server()
    _, agent = connect(server, "web-1")
    now_us = time.time_ns() // 1000
    rows = [["worker.threads", slot, "shop-web", f"worker {slot}"] for slot in range(500)]
    moment = {"seq": 7, "sample": {"ts_us": now_us, "rows": rows}}
    lone = {"seq": 8, "sample": {"ts_us": now_us, "metric": "agent.rss_bytes", "value": 1}}
    batches = [agent.batch(samples=samples) for samples in ([moment], [moment, lone], [lone, moment])]
    answers = await asyncio.gather(*(agent.post(batch) for batch in batches))
    assert [(status, answer["rejected"]) for status, answer in answers] == [(200, [])] * 3
    server.stop()
    database = await open_embedded(server.state / "store", memory_bytes=1 << 30)
    try:
        stored = Counter(await database.ask("SELECT seq, value FROM samples WHERE host = 'web-1'"))
    finally:
        await database.close()
    assert stored == Counter([(7, float(slot)) for slot in range(500)] + [(8, 1.0)])


async def test_a_lost_answer_with_other_boundaries_after_a_kill(
    own_server: Any, connect: Any, make_event: Make
) -> None:
    """The server stored 5 to 12 and died before it answered; the agent sends 5 to 10, then 11 and 12."""
    server = own_server()
    api, agent = connect(server, "web-1")
    records = agent.number([make_event() for _ in range(12)])
    await agent.post(agent.batch(records))
    server.kill()
    server.start()
    api.base = agent.base = server.base
    for first, end in ((4, 10), (10, 12)):
        assert (await agent.post(agent.batch(records[first:end])))[0] == 200
    assert len(await api.ids(host="web-1")) == 12
