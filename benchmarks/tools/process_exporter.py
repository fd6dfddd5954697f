"""prometheus-process-exporter as packaged, scraped once a second, with a group for each worker."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from benchmarks.cpu_group import CpuGroup
from benchmarks.crowd import Crowd
from benchmarks.tools.installed import environment, find
from benchmarks.tools.tool import MissingTool, Watch, running, until
from demo.stage import free_port

PROGRAM = "prometheus-process-exporter"
GROUP = "gunicorn"


def settings(crowd: str) -> str:
    """A group for each worker: with one for all of them, the exporter would tell sums and no worker's own figures."""
    return f"""\
process_names:
  - name: "{GROUP}:{{{{.PID}}}}"
    cmdline:
      - 'gunicorn: worker \\[{crowd}-'
"""


@asynccontextmanager
async def watching(crowd: Crowd, group: CpuGroup) -> AsyncIterator[Watch]:
    """Its readings are made when it is scraped; the scraper's cost is not counted."""
    program = find(PROGRAM)
    if program is None:
        raise MissingTool(f"{PROGRAM} is not installed")
    with tempfile.TemporaryDirectory(prefix="reflex-bench-exporter-") as folder:
        log, config, address = Path(folder) / "log", Path(folder) / "config.yaml", f"127.0.0.1:{free_port()}"
        config.write_text(settings(crowd.name))
        argv = [str(program), "-config.path", str(config), "-web.listen-address", address]
        async with aiohttp.ClientSession() as session, running(argv, group, log, environment=environment(program)):

            async def scrape() -> str:
                async with session.get(f"http://{address}/metrics") as answer:
                    return await answer.text()

            async def look() -> None:
                await scrape()

            async def watched() -> int:
                return (await scrape()).count(f'namedprocess_namegroup_num_threads{{groupname="{GROUP}:')

            async def begun() -> bool:
                try:
                    return await watched() >= crowd.size
                except aiohttp.ClientError:
                    return False

            await until(begun, f"{PROGRAM} does not see the workers", log)
            yield Watch(watched, look)
