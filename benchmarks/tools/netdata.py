"""The whole netdata agent as Debian packages it, every second, with folders of its own and nothing sent anywhere."""

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

PROGRAM = "netdata"
MADE = ("cache", "lib", "log", "config")


def settings(prefix: Path, folder: Path, port: int) -> str:
    """netdata.conf: stock settings, but for where files are, who it runs as, and that nobody is told of alarms."""
    library = prefix / "usr" / "lib" / "netdata"
    return f"""\
[global]
    run as user = root
    update every = 1
[directories]
    config = {folder}/config
    stock config = {library}/conf.d
    plugins = {library}/plugins.d
    web = {prefix}/usr/share/netdata/web
    cache = {folder}/cache
    lib = {folder}/lib
    log = {folder}/log
[web]
    bind to = 127.0.0.1
    default port = {port}
[health]
    script to execute on alarm = /bin/true
[registry]
    enabled = no
"""


@asynccontextmanager
async def watching(crowd: Crowd, group: CpuGroup) -> AsyncIterator[Watch]:
    """Its apps.plugin reads every process each second and adds them up by groups."""
    program = find(PROGRAM)
    if program is None:
        raise MissingTool(f"{PROGRAM} is not installed")
    with tempfile.TemporaryDirectory(prefix="reflex-bench-netdata-") as name:
        folder, port = Path(name), free_port()
        for made in MADE:
            (folder / made).mkdir()
        (folder / "config" / ".opt-out-from-anonymous-statistics").touch()
        (folder / "netdata.conf").write_text(settings(program.parents[2], folder, port))
        log = folder / "output"
        argv = [str(program), "-D", "-c", str(folder / "netdata.conf"), "-P", str(folder / "pid")]
        async with aiohttp.ClientSession() as session, running(argv, group, log, environment=environment(program)):

            async def watched() -> int:
                return await _processes(session, port)

            async def begun() -> bool:
                return await watched() >= crowd.size

            await until(begun, "netdata does not see the processes", log, within_s=60.0)
            yield Watch(watched)


async def _processes(session: aiohttp.ClientSession, port: int) -> int:
    """All processes of the host that apps.plugin saw in the last second; 0 while it has not begun."""
    query = {"chart": "apps.processes", "points": "1", "after": "-2", "options": "absolute", "format": "array"}
    try:
        async with session.get(f"http://127.0.0.1:{port}/api/v1/data", params=query) as answer:
            rows = await answer.json(content_type=None) if answer.status == 200 else []
    except (aiohttp.ClientError, ValueError):
        return 0
    return int(sum(row for row in rows if row is not None)) if isinstance(rows, list) else 0
