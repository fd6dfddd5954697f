"""What forges are told of commits: the requests of each API, a real forge on this machine, and a server that is killed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from demo.stage import free_port
from server.pipeline.deploys import Deploy, Part
from server.pipeline.forges import News, Status, call_of, is_told, news_of, status_of
from server.pipeline.site import SiteError, read_site
from server.pipeline.statuses import Statuses
from tests.server.conftest import ServerProcess

COMMIT = "1a2b3c4" + "0" * 33
TOKEN = "a-token-that-nobody-may-see"
NEWS = News("shop", COMMIT, "success", "The deploy of shop serves on web-1.", "01-event")
FILE = "app: shop\nrepository: /r\nhosts: [web-1]\nuser: u\nfolder: /srv/shop\nstatus: {status}\n"


@dataclass
class Forge:
    """The API of a forge: what it was asked, and what it answers, the last answer for ever."""

    port: int = field(default_factory=free_port)
    answers: list[int] = field(default_factory=lambda: [201])
    text: str = "{}"
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    runner: web.AppRunner | None = None

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v4"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._take)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        token = request.headers.get("PRIVATE-TOKEN") or request.headers.get("Authorization", "")
        self.asked.append((request.raw_path, str(token), await request.json()))
        self.heard.set()
        code = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        headers = {"Location": f"{self.api}/elsewhere"} if 300 <= code < 400 else {}
        return web.Response(status=code, text=self.text, headers=headers)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.asked) < count:
                self.heard.clear()
                await self.heard.wait()


@pytest.fixture
async def forge() -> AsyncIterator[Forge]:
    one = Forge()
    await one.start()
    yield one
    await one.stop()


# The requests.


def test_each_forge_is_told_by_its_own_api() -> None:
    github = call_of(status_of("github", "", "team/shop"), NEWS, TOKEN, "https://reflex.example/")
    assert github.url == f"https://api.github.com/repos/team/shop/statuses/{COMMIT}"
    assert github.headers == {"Authorization": f"Bearer {TOKEN}", "Accept": "application/vnd.github+json"}
    assert github.body == {
        "state": "success",
        "context": "reflex/shop",
        "description": NEWS.text,
        "target_url": "https://reflex.example/#/event/01-event",
    }
    gitlab = call_of(status_of("gitlab", "", "group/team/shop"), replace(NEWS, state="error"), TOKEN, "")
    assert gitlab.url == f"https://gitlab.com/api/v4/projects/group%2Fteam%2Fshop/statuses/{COMMIT}"
    assert gitlab.headers == {"PRIVATE-TOKEN": TOKEN}
    assert gitlab.body == {"state": "canceled", "name": "reflex/shop", "description": NEWS.text}
    gitea = call_of(status_of("gitea", "https://git.example/api/v1/", "team/shop"), NEWS, TOKEN, "")
    assert gitea.url == f"https://git.example/api/v1/repos/team/shop/statuses/{COMMIT}"
    assert gitea.headers == {"Authorization": f"token {TOKEN}"}
    generic = call_of(status_of("generic", "https://ci.example/statuses", ""), NEWS, TOKEN, "")
    assert (generic.url, generic.body["commit"], generic.body["app"]) == ("https://ci.example/statuses", COMMIT, "shop")


def test_a_long_sentence_is_cut() -> None:
    call = call_of(status_of("github", "", "team/shop"), replace(NEWS, text="x" * 200), TOKEN, "")
    assert call.body["description"] == "x" * 139 + "…"


def test_gitlab_that_knows_it_already_has_taken_it() -> None:
    gitlab, text = status_of("gitlab", "", "a/b"), "Cannot transition status via :run from :running"
    assert is_told(gitlab, 400, text)
    assert not is_told(gitlab, 400, "state is invalid")
    assert not is_told(status_of("github", "", "a/b"), 400, text)


@pytest.mark.parametrize(
    ("stage", "outcome", "state"),
    [
        ("queued", "", None),
        ("prepare", "", "pending"),
        ("done", "kept", "success"),
        ("done", "failed", "failure"),
        ("done", "rolled_back", "failure"),
        ("done", "cancelled", "error"),
    ],
)
def test_what_a_deploy_is_called(stage: Any, outcome: Any, state: str | None) -> None:
    parts = (Part("web-1", commit=COMMIT),)
    deploy = Deploy("d", "shop", "main", "ada", "", 1, stage=stage, outcome=outcome, cause="e", parts=parts)
    news = news_of(deploy)
    assert (news.state if news else None) == state
    assert news_of(replace(deploy, is_rollback=True)) is None
    assert news_of(replace(deploy, parts=(Part("web-1"),))) is None
    by_commit = news_of(replace(deploy, ref=COMMIT, parts=(Part("web-1"),)))
    assert (by_commit.state if by_commit else None) == state


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("{forge: svn, project: a/b}", r"shop.yml:6:17: 'forge' is 'svn'"),
        ("{forge: github}", r"shop.yml:6:9: project must be the repository's path"),
        ("{forge: github, project: ../b}", r"shop.yml:6:34: project must be"),
        ("{forge: gitea, project: a/b}", r"shop.yml:6:9: api must be the address"),
        ("{forge: gitea, project: a/b, api: 'http://git.example/api/v1'}", r"shop.yml:6:43: api must begin with https"),
        ("{forge: generic, api: 'https://user:word@git.example/'}", r"shop.yml:6:31: api must be the address"),
        ("{forge: github, project: a/b, token: x}", r"shop.yml:6:39: status has no 'token'"),
    ],
)
def test_a_mistake_is_told_with_its_place(status: str, said: str) -> None:
    with pytest.raises(SiteError, match=said):
        read_site(FILE.format(status=status), "shop.yml")


def test_the_key_is_read() -> None:
    site = read_site(FILE.format(status="{forge: github, project: a/b}"), "shop.yml")
    assert site.status == Status("github", "https://api.github.com", "a/b")


# A forge that is there, or not.


class Told:
    """Statuses of one app, and which of its deploys are forgotten."""

    def __init__(self, forge: Forge) -> None:
        self.forgotten: list[str] = []
        self.settings: tuple[Status | None, str | None] = (Status("gitlab", forge.api, "team/shop"), TOKEN)
        self.statuses = Statuses(lambda _app: self.settings, self._forget, waits_s=(0.01, 0.01, 0.01))
        self.task = asyncio.ensure_future(self.statuses.run())
        self._woken = asyncio.Event()

    async def _forget(self, deploy: str) -> None:
        self.forgotten.append(deploy)
        self._woken.set()

    async def until_forgotten(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.forgotten) < count:
                self._woken.clear()
                await self._woken.wait()


@pytest.fixture
async def told(forge: Forge) -> AsyncIterator[Told]:
    one = Told(forge)
    yield one
    one.task.cancel()
    await asyncio.gather(one.task, return_exceptions=True)


async def test_it_is_tried_again_until_the_forge_takes_it(told: Told, forge: Forge) -> None:
    forge.answers = [503, 429, 201]
    told.statuses.put("d1", NEWS)
    await told.until_forgotten(1)
    path = f"/api/v4/projects/team%2Fshop/statuses/{COMMIT}"
    assert [(one[0], one[1], one[2]["state"]) for one in forge.asked] == [(path, TOKEN, "success")] * 3


async def test_it_is_given_up_and_the_log_has_no_token(
    told: Told, forge: Forge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    forge.text = f"wrong token {TOKEN}"
    for number, (answers, tries) in enumerate((([500], 4), ([401], 1), ([302], 1)), 1):
        forge.answers, forge.asked = list(answers), []
        told.statuses.put(f"d{number}", NEWS)
        await told.until_forgotten(number)
        assert len(forge.asked) == tries
        assert (
            f"the status of commit 1a2b3c400000 of shop is not told to its forge (success): it answered {answers[0]}"
            in caplog.text
        )
    await forge.stop()
    told.statuses.put("d4", NEWS)
    await told.until_forgotten(4)
    assert "it cannot be reached: ClientConnectorError" in caplog.text
    assert TOKEN not in caplog.text


async def test_a_later_state_takes_the_place_of_an_earlier(told: Told, forge: Forge) -> None:
    forge.answers = [503, 201]
    told.statuses.put("d1", replace(NEWS, state="pending"))
    await forge.until(1)
    told.statuses.put("d1", NEWS)
    await told.until_forgotten(1)
    assert [one[2]["state"] for one in forge.asked][-1] == "success"
    assert set(told.forgotten) == {"d1"}


async def test_an_app_that_has_no_token_any_more_tells_nothing(told: Told, forge: Forge) -> None:
    told.settings = (told.settings[0], None)
    assert not told.statuses.is_wanted("shop")
    told.statuses.put("d1", NEWS)
    await told.until_forgotten(1)
    assert forge.asked == []


# A server.


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    (tmp_path / "state").mkdir()
    one = ServerProcess(tmp_path / "state", "--public-url", "https://reflex.example")
    one.start()
    yield one
    one.stop()


async def test_a_server_that_is_killed_tells_it_when_it_is_back(own_server: ServerProcess) -> None:
    forge = Forge()  # nobody listens there yet
    headers = {"Authorization": f"Bearer {own_server.token}"}
    file = FILE.format(status=f"{{forge: gitlab, project: team/shop, api: '{forge.api}'}}")

    async def ask(http: aiohttp.ClientSession, method: str, path: str, body: dict[str, Any]) -> Any:
        async with http.request(method, f"{own_server.base}/v1/apps/shop{path}", json=body, headers=headers) as answer:
            assert answer.status < 300, await answer.text()
            return await answer.json()

    async with aiohttp.ClientSession() as http:
        await ask(http, "PUT", "", {"text": file})
        await ask(http, "PUT", "/secrets/STATUS", {"value": TOKEN})
        begun = (await ask(http, "POST", "/deploy", {"ref": COMMIT}))["deploy"]
    assert begun["outcome"] == "failed"  # its host cannot be reached
    own_server.kill()
    await forge.start()
    await asyncio.to_thread(own_server.start)
    await forge.until(1)
    await forge.stop()
    path, token, body = forge.asked[0]
    assert (path, token) == (f"/api/v4/projects/team%2Fshop/statuses/{COMMIT}", TOKEN)
    assert (body["state"], body["name"]) == ("failed", "reflex/shop")
    assert body["description"].startswith("The deploy of shop was not begun: its first host web-1 cannot be reached")
    assert body["target_url"] == f"https://reflex.example/#/event/{begun['cause']}"
    assert TOKEN not in own_server.log()
