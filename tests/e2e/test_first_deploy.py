"""docs/first-deploy.md, step by step as it stands there: from an empty folder to a Django project that is served, changed and taken back."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from demo.deploying import SUPERVISORD, Visitors
from demo.stage import HOST, ROOT, Stage, demo_python, end, free_port

PAGE = ROOT / "docs" / "first-deploy.md"
STEP_WITHIN_S = 300
VISITS_A_SECOND, PATIENCE_S = 8, 60.0
INCLUDE = "[include]\nfiles={folder}/conf.d/*.conf\n"

pytestmark = [
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed"),
    pytest.mark.timeout(600),
]


def steps(page: str) -> Mapping[str, Sequence[str]]:
    """The commands of a page: the blocks for sh below each of its numbered titles."""
    found = {}
    for part in re.split(r"^## ", page, flags=re.M)[1:]:
        title = part.partition("\n")[0]
        found[title] = re.findall(r"^```sh\n(.*?)^```$", part, flags=re.M | re.S)
    return found


@dataclass(frozen=True, slots=True)
class Place:
    """Where the page is played: a folder, and what is free there."""

    home: Path
    stage: Stage
    port: int
    broker_port: int

    @property
    def substitutions(self) -> Mapping[str, str]:
        """What this host has in the place of the page's: all that differs. The first ones go first."""
        home, control = self.home, f"{demo_python()} -m supervisor.supervisorctl -c {self.home}/supervisord.conf"
        return {
            "sudo apt-get install": ": the test starts a broker and a supervisor of its own, not by",
            "sudo adduser": ": the user is nobody, not one by",
            "sudo ./reflex up": ": the test starts a server and an agent of its own, not by ./reflex up",
            "sudo -u library reflex-keep": f"setpriv --reuid nobody --regid nogroup --clear-groups {home}/bin/reflex-keep",
            "sudo supervisorctl": control,
            "sudo ": "",
            ".venv/bin/reflexctl": f"{sys.executable} -m ctl",
            "starts = [": f'supervisor = "{home}/supervisor.sock"\nstarts = [',
            "user=library": "user=nobody",
            'user = "library"': 'user = "nobody"',
            "user: library": "user: nobody",
            "/usr/local/bin": f"{home}/bin",
            "/etc/supervisor": f"{home}",
            "/var/log/supervisor": f"{home}/log",
            "/etc/reflex": f"{self.stage.folder}",
            "/srv/": f"{home}/srv/",
            "~/library": f"{home}/ada/library",
            "library.yml": f"{home}/library.yml",
            "[web-1]": f"[{HOST}]",
            "http://127.0.0.1:8765": self.stage.url,
            "127.0.0.1:8000": f"127.0.0.1:{self.port}",
            "127.0.0.1:6379": f"127.0.0.1:{self.broker_port}",
            "watch: {for: 1m}": "watch: {for: 3s}",
            "COUNT_EVERY_S: 300": "COUNT_EVERY_S: 1",
        }

    def put(self, text: str) -> str:
        """The text with what this host has."""
        for theirs, ours in self.substitutions.items():
            text = text.replace(theirs, ours)
        return text

    async def type_in(self, block: str) -> str:
        """Runs one block as a person would type it who stops at the first error; what it said. A prompt gets the token."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "REFLEX_"))},
            "XDG_CONFIG_HOME": f"{self.home}/ada/.config",
            "GIT_CONFIG_GLOBAL": f"{self.home}/ada/.gitconfig",
            "NO_COLOR": "1",
        }
        screen = self.home / "screen"
        with screen.open("wb") as said:
            process = await asyncio.create_subprocess_exec(
                "bash", "-euo", "pipefail", "-c", self.put(block), cwd=ROOT, env=environment,
                stdin=asyncio.subprocess.PIPE, stdout=said, stderr=said,
            )  # fmt: skip
        try:
            await asyncio.wait_for(process.communicate(self.stage.token.encode()), STEP_WITHIN_S)
        except TimeoutError:
            await end(process)
        output = screen.read_text()
        assert process.returncode == 0, f"{block}\n{output}\n{self.stage.last_lines()}\n{self._logs()}"
        return output

    def _logs(self) -> str:
        return "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in (self.home / "log").glob("*.log"))

    async def page(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the library."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}{path}") as answer:
            return answer.status, await answer.text()

    def rows(self, sql: str) -> list[Any]:
        """What the project's database has."""
        with sqlite3.connect(f"file:{self.home}/srv/library/shared/data/library.sqlite3?mode=ro", uri=True) as database:
            return database.execute(sql).fetchall()

    async def ways(self) -> set[str]:
        """How each service came to serve the release that `current` names, as the timeline has it."""

        async def switched() -> Any:
            events = await self.stage.events(kind="release.switched")
            return next((one for one in events if one["attrs"]["release"] == self.serving), None)

        event = await self.stage.until(switched, f"nothing is told of the switch to {self.serving}", within_s=60)
        return set(event["attrs"]["ways"].split(", "))

    @property
    def serving(self) -> str:
        """The release that `current` names."""
        return (self.home / "srv" / "library" / "current").resolve().name


@pytest.fixture
async def place(stage: Stage) -> AsyncIterator[Place]:
    """An empty folder that others may look into, a broker, and a supervisor without programs."""
    home = Path(f"/tmp/reflex-first-deploy-{os.getpid()}")
    for folder in ("bin", "conf.d", "log", "srv", "ada"):
        (home / folder).mkdir(parents=True, mode=0o755)
    (home / "ada" / ".gitconfig").write_text("[user]\nname = Ada\nemail = ada@library.example\n")
    (home / "supervisord.conf").write_text((SUPERVISORD + INCLUDE).format(folder=home))
    made = Place(home, stage, free_port(), free_port())
    redis = ["redis-server", "--bind", "127.0.0.1", "--port", str(made.broker_port), "--save", "", "--appendonly", "no"]
    await stage.start_program("redis", redis, stage.folder)
    supervisord = [str(demo_python()), "-m", "supervisor.supervisord", "-c", str(home / "supervisord.conf")]
    supervising = await stage.start_program("supervisord", supervisord, home)

    async def listens() -> bool:
        return (home / "supervisor.sock").exists()

    await stage.until(listens, "supervisord does not listen")
    yield made
    supervising.terminate()
    await asyncio.wait_for(supervising.wait(), 60)
    shutil.rmtree(home, ignore_errors=True)


async def test_every_step_of_the_page_does_what_it_says(place: Place) -> None:
    page = PAGE.read_text()
    assert [theirs for theirs in place.substitutions if theirs not in page] == []
    todo = steps(page)
    host, runs, reflex, repository, app, first, second, back = (todo[title] for title in todo if title[:1].isdigit())
    for block in (*host, *runs):
        await place.type_in(block)
    await place.stage.restart_agent()  # the test's own `./reflex up`, after the policy as on the page
    for block in (*reflex, *repository, *app):
        await place.type_in(block)

    deploy, look, by_hand = first
    said = await place.type_in(deploy)
    assert await place.ways() == {"library-web: started", "library-jobs: started", "library/library beat: started"}, (
        said
    )
    assert await place.type_in(look) == "ok"
    assert "10 books are new" in await place.type_in(by_hand)
    await the_library_is_served(place)

    push, deploy_again = second
    before = place.serving
    await place.type_in(push)
    async with Visitors(
        place.port, a_second=VISITS_A_SECOND, host="localhost", path="/books/walden/", patience_s=PATIENCE_S
    ) as visitors:
        said = await place.type_in(deploy_again)
        assert "library-web: handover" in await place.ways(), said
        changed = place.serving
        _, text = await place.page("/books/walden/")
        assert "1854, in English" in text
        assert ("catalogue", "0005_book_language") in place.rows("SELECT app, name FROM django_migrations")
        await place.type_in(back[0])
        assert place.serving == before != changed
        _, text = await place.page("/books/walden/")
        assert "1854</p>" in text
    counts = visitors.turn()
    assert (counts.failed, counts.troubles) == (0, [])
    assert counts.served >= 10 * VISITS_A_SECOND
    assert len(counts.versions) == 2


async def the_library_is_served(place: Place) -> None:
    """Pages, the admin, a static file under its hashed name, migrations, and a task by the clock whose result is there."""
    status, text = await place.page("/")
    assert (status, "Middlemarch" in text) == (200, True)
    static = re.search(r'href="(/static/catalogue/library\.[0-9a-f]{12}\.css)"', text)
    assert static is not None
    status, css = await place.page(static[1])
    assert (status, "max-width: 42rem" in css) == (200, True)
    status, text = await place.page("/admin/login/")
    assert (status, "csrfmiddlewaretoken" in text) == (200, True)
    assert place.rows("SELECT count(*) FROM django_migrations WHERE app IN ('catalogue', 'members', 'loans')") == [(7,)]

    async def counted() -> bool:
        return bool(place.rows("SELECT books FROM loans_dailyfigures WHERE books = 10"))

    await place.stage.until(counted, "no task has counted the library's books", within_s=60)
    _, text = await place.page("/figures/")
    assert re.search(r"<td>10</td><td>13</td>.*<td>\d+ times</td>", text)


def test_the_unit_starts_what_supervisor_starts() -> None:
    page = PAGE.read_text()
    command = re.search(r"^command=(.*library-web.*)$", page, re.M)
    unit = re.search(r"^ExecStart=(.*)$", page, re.M)
    assert command is not None and unit is not None and command[1] == unit[1]
