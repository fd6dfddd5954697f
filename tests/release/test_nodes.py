"""How real Celery nodes come to another release: one consumes at any moment, and none is left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from agent.acting import Performer
from agent.actions.action import ServiceView
from agent.celery.hands import CeleryHands
from agent.procfs import ProcFs
from agent.release.hired import Runner
from agent.release.switch import Switch
from agent.release.switched import Switched
from agent.service import Worker
from agent.wire import Order
from agent.wire.app import App, Jobs
from demo.stage import free_port
from tests.workers.variants import PROGRAMS
from tests.workers.ward import Ward

NAME = "shop-jobs"
JOBS = """
import celery
app = celery.Celery("jobs", broker="redis://127.0.0.1:{port}/0")
app.conf.worker_hijack_root_logger = False
@app.task
def note(number):
    with open("{ran}", "a") as file:
        file.write(str(number) + "\\n")
"""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the ward loads BPF programs"),
    pytest.mark.skipif(not (PROGRAMS / "celery-newest" / "installed").exists(), reason="run ./reflex setup --dev"),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="run ./reflex setup --dev"),
    pytest.mark.timeout(200),
]


async def never(_worker: Worker) -> str:
    """Takes no snapshot."""
    raise AssertionError("no snapshot is wanted here")


class Host:
    """Releases of an app whose tasks write down that they ran, its broker, and a node that nobody manages."""

    def __init__(self, ward: Ward, base: Path, runner: Runner) -> None:
        self._ward = ward
        self._base = base
        self._runner = runner
        self._performer = Performer(ProcFs(), ward.rollup, cast(CeleryHands, None), never)
        ward.hears.append(self._performer.notice)
        self._port = free_port()
        self._sent = 0
        self.ran = base / "ran"

    def build(self, *releases: str) -> None:
        """The broker, and the releases, of which the first is current."""
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self._port), "--save", "", "--appendonly", "no"]
        self._ward.begin_in(self._base, command)
        for release in releases:
            folder = self._base / "releases" / release
            folder.mkdir(parents=True)
            (folder / "jobs.py").write_text(JOBS.format(port=self._port, ran=self.ran))
            (folder / "venv").symlink_to(PROGRAMS / "celery-newest")
        (self._base / "shared").mkdir()
        self.ran.touch()
        (self._base / "current").symlink_to(f"releases/{releases[0]}")
        subprocess.run(["chown", "-hR", "nobody:", str(self._base)], check=True)
        self.ran.chmod(0o666)

    async def start(self, name: str, folder: str) -> ServiceView:
        """A node; returns when it is seen with its process."""
        program = [str(self._base / folder / "venv/bin/python"), "-m", "celery", "-A", "jobs", "worker"]
        pid = self._ward.begin_in(self._base / folder, [*program, "-c", "1", "-n", f"{name}@%h", "--loglevel", "error"])
        await self._ward.until(lambda: any(one.master.pid == pid and one.workers for one in self.nodes()), 30)
        return next(one for one in self.nodes() if one.master.pid == pid)

    def nodes(self) -> list[ServiceView]:
        """The living nodes of the app."""
        return [*self._performer.views(NAME), *self._performer.begun_by("reflex-")]

    def slow(self, release: str) -> None:
        """Lets a node that a deploy begins take its time to load the release."""
        jobs = self._base / "releases" / release / "jobs.py"
        wait = "import sys, time\ntime.sleep(3 * any(word.startswith('reflex-') for word in sys.argv))\n"
        jobs.write_text(wait + jobs.read_text())

    def start_when_current(self, release: str, name: str) -> None:
        """A node that somebody starts by himself as soon as the link names the release."""
        link, python = self._base / "current", self._base / "current/venv/bin/python"
        wait = f'until [ "$(readlink {link})" = releases/{release} ]; do sleep 0.02; done; cd {link}'
        node = f"exec {python} -m celery -A jobs worker -c 1 -n {name}@%h --loglevel error"
        self._ward.begin_in(self._base, ["sh", "-c", f"{wait}; {node}"])

    async def switch(self, release: str, before: str, *others: str) -> Switched:
        """Lets the node run a release, and then the others that the app has."""
        jobs = tuple(Jobs(name, drain_s=20, boot_s=40) for name in (NAME, *others))
        app = App("shop", "/nowhere", "main", "nobody", str(self._base), jobs=jobs)
        order = Order("1", "d", "switch", "host", 0, 1, "c", app, release=release)
        return await Switch(
            order, self._runner, self._performer, say=print, stepped=lambda _step, _seconds: None
        ).to(release, before=before)  # fmt: skip

    async def only(self, name: str) -> ServiceView:
        """The one node, once there is one of that name and no other."""
        await self._ward.until(lambda: [one.name for one in self.nodes()] == [name], 30)
        return self.nodes()[0]

    async def send(self, count: int) -> None:
        """Sends tasks, and returns when each of all has run once."""
        numbers = range(self._sent, self._sent + count)
        self._sent += count
        code = f"import jobs\nfor number in {numbers!r}: jobs.note.delay(number)"
        python = str(self._base / "current/venv/bin/python")
        sending = await asyncio.create_subprocess_exec(python, "-c", code, cwd=self._base / "current")
        assert await sending.wait() == 0
        await self._ward.until(lambda: len(self.ran.read_text().split()) >= self._sent, 30)
        assert sorted(map(int, self.ran.read_text().split())) == list(range(self._sent))

    def end(self) -> None:
        """Ends nodes that deploys have begun, which are no children of the test."""
        for one in self._performer.begun_by("reflex-"):
            subprocess.run(["kill", "-9", str(one.master.pid)], check=False)


@pytest.fixture
async def host(tmp_path: Path, home: Path, runner: Runner) -> AsyncIterator[Host]:
    (home / "shop").mkdir()
    async with Ward(tmp_path) as ward:
        made = Host(ward, home / "shop", runner)
        yield made
        made.end()


async def test_a_node_that_took_the_place_of_another_is_replaced_in_its_turn(host: Host) -> None:
    host.build("1-v1", "1-v2", "1-v3")
    await host.start(NAME, "current")
    await host.send(3)
    done = await host.switch("1-v2", "1-v1")
    assert done.ways == {NAME: "replaced by a node that nobody manages"}
    await host.only("reflex-shop-jobs-v2")
    await host.send(3)
    done = await host.switch("1-v3", "1-v2")
    assert done.ways == {NAME: "replaced by a node that nobody manages"}
    await host.only("reflex-shop-jobs-v3")
    await host.send(3)
    assert (await host.switch("1-v3", "1-v3")).ways == {NAME: "runs it already"}


async def test_what_a_deploy_that_was_cut_off_had_begun_is_used_or_ended(host: Host) -> None:
    host.build("1-v1", "1-v2")
    await host.start(NAME, "current")
    await host.start("reflex-shop-jobs-v0", "releases/1-v1")
    begun = await host.start("reflex-shop-jobs-v2", "releases/1-v2")
    await host.switch("1-v2", "1-v1")
    assert (await host.only("reflex-shop-jobs-v2")).master == begun.master
    await host.send(3)


async def test_a_node_that_its_manager_has_started_by_itself_meanwhile_is_not_replaced(host: Host) -> None:
    host.build("1-v1", "1-v2")
    await host.start(NAME, "current")
    host.slow("1-v2")
    host.start_when_current("1-v2", "shop-more")
    done = await host.switch("1-v2", "1-v1", "shop-more")
    assert done.absent == {"shop-more"}
    assert done.ways["shop-more"] == "started"
    await host.only("reflex-shop-jobs-v2")
    await host.send(3)
