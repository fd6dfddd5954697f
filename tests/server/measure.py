"""Measures one server on this machine and prints JSON: `python tests/server/measure.py [events already stored]`.

`queryable_ms` is the time from the start of an agent's request with one event to the answer of
`GET /v1/events/{id}` that shows it; `acked_ms` is the first part of that, up to the acknowledgement.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from conftest import Api, FakeAgent, ServerProcess, _make_event  # noqa: E402

SINGLES = 300
FILL_BATCH = 2_000
IDLE_S = 5


def quantiles(name: str, values_s: list[float]) -> dict[str, float]:
    ordered = sorted(values_s)
    return {
        f"{name}_p50_ms": round(ordered[len(ordered) // 2] * 1e3, 1),
        f"{name}_p99_ms": round(ordered[len(ordered) * 99 // 100] * 1e3, 1),
    }


async def fill(agent: FakeAgent, number: int) -> float:
    """Stores `number` events of the last day; events per second."""
    started_s, now_us = time.monotonic(), time.time_ns() // 1000
    for first in range(0, number, FILL_BATCH):
        count = min(FILL_BATCH, number - first)
        step_us = 86_400_000_000 // number
        await agent.send(*(_make_event(ts_us=now_us - (number - first - n) * step_us) for n in range(count)))
    return number / (time.monotonic() - started_s)


async def measure(server: ServerProcess, stored: int) -> dict[str, Any]:
    found: dict[str, Any] = {"idle_rss_mb": server.rss_bytes() >> 20}
    async with aiohttp.ClientSession() as http:
        api, agent = (
            Api(http, server.base, server.token),
            FakeAgent(http, server.base, "web-1", server.new_key("web-1")),
        )
        if stored:
            found["stored_events_per_s"] = round(await fill(agent, stored))
        acked_s, queryable_s, page_s = [], [], []
        for _ in range(SINGLES):
            event = _make_event()
            begun_s = time.perf_counter()
            await agent.send(event)
            acked_s.append(time.perf_counter() - begun_s)
            status, _ = await api.get(f"/v1/events/{event['id']}")
            queryable_s.append(time.perf_counter() - begun_s)
            assert status == 200
        for _ in range(50):
            begun_s = time.perf_counter()
            await api.timeline(limit=100)
            page_s.append(time.perf_counter() - begun_s)
        found |= quantiles("acked", acked_s) | quantiles("queryable", queryable_s) | quantiles("newest_100", page_s)
    before_s = server.cpu_s()
    await asyncio.sleep(IDLE_S)
    used_s = server.cpu_s() - before_s
    return found | {"idle_cpu_percent": round(used_s / IDLE_S * 100, 2), "rss_mb": server.rss_bytes() >> 20}


def main() -> None:
    stored = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    with tempfile.TemporaryDirectory() as directory:
        server = ServerProcess(Path(directory) / "state")
        begun_s = time.monotonic()
        server.start()
        first_s = time.monotonic() - begun_s
        found = asyncio.run(measure(server, stored))
        begun_s = time.monotonic()
        server.stop()
        stop_s = time.monotonic() - begun_s
        begun_s = time.monotonic()
        server.start()
        again_s = time.monotonic() - begun_s
        server.stop()
    print(
        json.dumps(
            {"first_start_s": round(first_s, 2), "start_s": round(again_s, 2), "stop_s": round(stop_s, 2)} | found
        )
    )


if __name__ == "__main__":
    main()
