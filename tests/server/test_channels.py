"""Orders over the channels of agents: one that was written to a channel that is dead already comes again over the next."""

from __future__ import annotations

from typing import Any

import aiohttp
import orjson

FILE = """\
app: {app}
repository: /srv/git/shop.git
hosts: [{host}]
user: shop
folder: /srv/{app}
"""
WITHIN_S = 20.0


async def order(socket: aiohttp.ClientWebSocketResponse) -> str:
    """The id of the next order that comes over a channel."""
    while True:
        said = orjson.loads((await socket.receive(timeout=WITHIN_S)).data)
        if "order" in said:
            return str(said["order"]["id"])


async def test_a_channel_that_takes_the_place_of_another_gets_what_is_outstanding(api: Any, agent: Any) -> None:
    """The network was gone: the agent has noticed and begun anew, the server has not noticed yet."""
    app, headers = f"app-{agent.host[-12:]}", {"Authorization": f"Bearer {agent.key}"}
    hello = orjson.dumps({"holding": {"serial": 0, "names": []}}).decode()
    file = {"text": FILE.format(app=app, host=agent.host)}
    async with api.http.put(f"{api.base}/v1/apps/{app}", json=file, headers=api.headers) as answer:
        assert answer.status == 200, await answer.text()
    async with agent.http.ws_connect(f"{agent.base}/v1/commands", headers=headers) as dead:
        await dead.send_str(hello)
        async with api.http.post(f"{api.base}/v1/apps/{app}/deploy", json={}, headers=api.headers) as answer:
            assert answer.status == 202, await answer.text()
        sent = await order(dead)
        async with agent.http.ws_connect(f"{agent.base}/v1/commands", headers=headers) as fresh:
            await fresh.send_str(hello)
            assert await order(fresh) == sent
