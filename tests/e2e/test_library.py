"""The library's playbooks, armed, on real programs: each from its real fault to the end that it promises.

All scenes are played at the same time on one stage, with judges that are in a hurry; docs/playbooks.md names them. The
playbooks that `./reflex demo` plays are tried in test_stories.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence

import pytest

from demo.chain import Link
from demo.repair import armed, repair_links
from demo.stage import StageError
from tests.e2e.scene import Program, Scene, are_there, open_scene, visited

HASTY = ("--stuck-after-s", "4", "--celery-stuck-after-s", "10", "--celery-backlog-window-s", "40")
MIB = 1024 * 1024
ALONE = "alone"
"""The node that has no other beside it."""

Play = Callable[[Scene], Awaitable[None]]


def links(playbook: str, fault: str, *actions: str, cause: str | None = None) -> tuple[Link, ...]:
    """The chain of a repair, with its fault and the kind of what that came of."""
    return (Link(fault, cause, "the fault", lambda event: True), *repair_links(playbook, fault, *actions))


def approved_links(playbook: str, fault: str, *actions: str, cause: str | None = None) -> Sequence[Link]:
    """The chain of a repair that somebody said yes to: that yes stands before the first step."""
    root, begun, step, *rest = links(playbook, fault, *actions, cause=cause)
    yes = Link("playbook.step", "playbook.started", "somebody said yes", lambda event: "approved" in event["text"])
    return (root, begun, yes, Link(step.kind, "playbook.step", step.claim, step.holds), *rest)


async def gunicorn_saturation(scene: Scene) -> None:
    """One worker cannot serve 15 visits a second, two can."""
    shop = await scene.gunicorn("full", "--backlog", "8", workers=1)
    async with scene.visitors(shop, "sleep/0.1", per_s=15):
        end = await scene.end_of(shop, "gunicorn-saturation")
    await scene.shows(end, *links("gunicorn-saturation", "queue.saturated", "gunicorn.scale"))
    assert len(shop.children()) == 2


async def gunicorn_crash_loop(scene: Scene) -> None:
    """Workers crash as long as they live: people are told once, and that nothing helps is said aloud."""
    shop = await scene.gunicorn("crashing", app="crashing")
    end = await scene.end_of(shop, "gunicorn-crash-loop")
    assert end["kind"] == "playbook.escalated", end["text"]
    (told,) = [message for message in scene.people if shop.service in message]
    assert "5 workers died by themselves within 2 minutes" in told
    await scene.told(shop, "playbook.skipped")
    assert len([message for message in scene.people if shop.service in message]) == 1
    shop.master.terminate()


async def uwsgi_saturation(scene: Scene) -> None:
    """As of Gunicorn, by the master's pipe."""
    words = (
        "--cheaper",
        "1",
        "--cheaper-algo",
        "manual",
        "--master-fifo",
        "orders",
        "--listen",
        "8",
        "--processes",
        "4",
    )
    shop = await scene.uwsgi("crowded", *words, workers=1)
    async with scene.visitors(shop, "sleep/0.1", per_s=15):
        end = await scene.end_of(shop, "uwsgi-saturation")
    await scene.shows(end, *links("uwsgi-saturation", "queue.saturated", "uwsgi.scale"))
    assert len(shop.children()) == 2


async def uwsgi_worker_oom(scene: Scene) -> None:
    """A request eats all memory of the service; the siblings of the worker that is killed are replaced."""
    shop = await scene.uwsgi("eaten", limit_bytes=256 * MIB)
    before = shop.children()
    await visited(shop.port, "eat")
    end = await scene.end_of(shop, "uwsgi-worker-oom")
    await scene.shows(end, *links("uwsgi-worker-oom", "worker.oom_killed", "uwsgi.rotate"))
    assert not set(before) & set(shop.children())


async def uwsgi_leak_recycle(scene: Scene) -> None:
    """Each visit leaves a little behind. The worst worker is replaced in time, and no visit fails."""
    shop = await scene.uwsgi("leaking", "--listen", "64", limit_bytes=192 * MIB)
    async with scene.visitors(shop, f"keep/{160 * 1024}", per_s=12) as failed:
        end = await scene.end_of(shop, "uwsgi-leak-recycle")
    chain = links("uwsgi-leak-recycle", "worker.leaking", "uwsgi.recycle_worker", cause="worker.started")
    await scene.shows(end, *chain)
    assert (scene.count(shop, "worker.oom_killed"), failed) == (0, [])


async def _stuck(scene: Scene, shop: Program, action: str) -> None:
    """A request waits for ever for a neighbour; what it waits for is kept, and its worker is replaced."""
    playbook = f"{shop.kind}-stuck-worker"
    waiting = asyncio.create_task(visited(shop.port, "neighbour"))
    fault = await scene.told(shop, "worker.stuck", "worker.threads_stuck")
    assert "application (" in fault["text"]
    end = await scene.end_of(shop, playbook)
    await scene.shows(end, *links(playbook, fault["kind"], "snapshot.take", action, cause="worker.started"))
    assert fault["worker"]["pid"] not in shop.children()
    await asyncio.wait_for(waiting, 10)


async def uwsgi_stuck_threads(scene: Scene) -> None:
    """One of the threads of a worker stands still: whichever got the request, the main one or another."""
    await _stuck(scene, await scene.uwsgi("threads", "--threads", "2"), "uwsgi.recycle_worker")


async def uwsgi_stuck_worker(scene: Scene) -> None:
    """A worker without threads, and no harakiri ends it."""
    await _stuck(scene, await scene.uwsgi("stuck"), "uwsgi.recycle_worker")


async def gunicorn_stuck_worker(scene: Scene) -> None:
    """A Gunicorn that has no timeout; with threads, `./reflex demo repair-stuck` shows it."""
    await _stuck(scene, await scene.gunicorn("endless", "--timeout", "0"), "gunicorn.recycle_worker")


async def celery_orphaned_unacked(scene: Scene) -> None:
    """A node is killed at work, with four tasks that it had fetched in the last seconds: another one runs them."""
    tasks = 120
    node = await scene.node("orphans", 1, "--prefetch-multiplier", "4")
    heir = await scene.node("heir", 1, workers=2)
    await scene.send(node.folder, 1, f"[jobs.late.delay(0.5) for _ in range({tasks})]")
    await scene.until_busy(node)
    node.master.kill()
    end = await scene.end_of(node, "celery-orphaned-unacked")
    playbook, fault = "celery-orphaned-unacked", "celery.tasks_stranded"
    *chain, _ = links(playbook, fault, "celery.return_unacked", cause="service.stopped")
    await scene.shows(end, *chain)
    given = await scene.told(node, "action.done")
    assert "4 tasks that no living node holds were given back" in given["text"]
    async with asyncio.timeout(60):
        while len(set(scene.ran.read_text().split())) < tasks:
            await asyncio.sleep(0.1)
    assert heir.master.returncode is None


async def celery_worker_dead(scene: Scene) -> None:
    """A node is killed that nobody starts again, and there is no other: people are told, and its tasks wait in the queue."""
    node = await scene.node(ALONE, 6, "--prefetch-multiplier", "4")
    await scene.send(node.folder, 6, "[jobs.late.delay(60) for _ in range(4)]")
    await scene.until_busy(node)
    node.master.kill()
    end = await scene.end_of(node, "celery-worker-dead")
    assert end["kind"] == "playbook.escalated", end["text"]
    (told,) = [message for message in scene.people if node.service in message]
    assert "no systemd unit, no supervisor and no circus is known that starts" in told
    await scene.send(node.folder, 6, "assert jobs.app.connection().default_channel.client.llen('celery') == 4")


async def celery_redelivery_loop(scene: Scene) -> None:
    """A task kills its process and comes back, until somebody says yes to revoking it."""
    node = await scene.node("looping", 2)
    await scene.send(node.folder, 2, "jobs.fatal.delay(1.5)")
    await scene.approve(node)
    end = await scene.end_of(node, "celery-redelivery-loop")
    await scene.shows(
        end, *approved_links("celery-redelivery-loop", "celery.task_lost", "celery.revoke", cause="worker.exited")
    )


async def celery_child_oom(scene: Scene) -> None:
    """A task eats all memory of its node; people are told, and the node forks another process."""
    node = await scene.node("hungry", 3, limit_bytes=320 * MIB, workers=2)
    await scene.send(node.folder, 3, "jobs.eat.delay()")
    end = await scene.end_of(node, "celery-child-oom")
    await scene.shows(end, *links("celery-child-oom", "worker.oom_killed", "notify"))
    (told,) = [message for message in scene.people if node.service in message]
    assert "killed" in told


async def celery_backlog(scene: Scene) -> None:
    """One process does two tasks a second, and three come. With two processes more the queue is worked off meanwhile."""
    node = await scene.node("growing", 4, "--prefetch-multiplier", "1")
    (node.folder / "open").touch()
    sends = "while os.path.exists('open'): jobs.work.delay(0.5); time.sleep(1 / 3)"
    sending = asyncio.create_task(scene.send(node.folder, 4, f"import os\n{sends}"))
    end = await scene.end_of(node, "celery-backlog")
    (node.folder / "open").unlink()
    await sending
    await scene.shows(end, *links("celery-backlog", "celery.backlog", "celery.grow"))
    assert len(node.children()) == 3


async def celery_stuck_task(scene: Scene) -> None:
    """A task waits for ever for a neighbour, until somebody says yes to ending it."""
    node = await scene.node("waiting", 5, workers=2)
    await scene.send(node.folder, 5, "jobs.neighbour.delay()")
    await scene.approve(node)
    end = await scene.end_of(node, "celery-stuck-task")
    await scene.shows(
        end, *approved_links("celery-stuck-task", "celery.task_stuck", "celery.revoke", cause="worker.started")
    )


PLAYS: dict[str, tuple[str, Play]] = {
    play.__name__.replace("_", "-"): (playbook, play)
    for playbook, play in (
        ("celery-backlog", celery_backlog),
        ("uwsgi-leak-recycle", uwsgi_leak_recycle),
        ("uwsgi-stuck-worker", uwsgi_stuck_threads),
        ("uwsgi-stuck-worker", uwsgi_stuck_worker),
        ("gunicorn-stuck-worker", gunicorn_stuck_worker),
        ("celery-stuck-task", celery_stuck_task),
        ("celery-orphaned-unacked", celery_orphaned_unacked),
        ("celery-worker-dead", celery_worker_dead),
        ("celery-redelivery-loop", celery_redelivery_loop),
        ("uwsgi-worker-oom", uwsgi_worker_oom),
        ("celery-child-oom", celery_child_oom),
        ("gunicorn-saturation", gunicorn_saturation),
        ("uwsgi-saturation", uwsgi_saturation),
        ("gunicorn-crash-loop", gunicorn_crash_loop),
    )
}
"""Scenes, and the playbook that each is about; those that take longest first."""

WITHIN = dict.fromkeys(("uwsgi-worker-oom", "uwsgi-leak-recycle", "celery-redelivery-loop"), "10s")
"""What must never come is looked for during this time instead of the library's two minutes."""


def _for_one_node(book: Mapping[str, str]) -> Mapping[str, str]:
    """celery-worker-dead has a node of its own: it goes before the others, on whatever node dies."""
    name, text = next(iter(book.items()))
    kind = 'if: service.kind == "celery"'
    return (
        {name: text.replace(kind, f'{kind} && service.name.endsWith("-{ALONE}")')}
        if name == "celery-worker-dead"
        else book
    )


async def play_all(names: Sequence[str]) -> dict[str, BaseException | None]:
    """Plays scenes at the same time; what went wrong with each."""
    books = [armed(playbook, within=WITHIN.get(playbook)) for playbook in {PLAYS[name][0] for name in names}]
    async with open_scene(*map(_for_one_node, books), agent=HASTY) as scene:
        ends = await asyncio.gather(*(PLAYS[name][1](scene) for name in names), return_exceptions=True)
    return dict(zip(names, ends, strict=True))


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> dict[str, BaseException | None]:
    """The scenes that this run of the tests asks for, played."""
    if os.geteuid() != 0:
        pytest.skip("needs root: the stage loads BPF programs")
    if not are_there():
        pytest.skip("run ./reflex setup --dev")
    asked = [name for name in PLAYS if any(item.nodeid.endswith(f"[{name}]") for item in request.session.items)]
    try:
        return asyncio.run(play_all(asked))
    except StageError as error:
        pytest.skip(str(error))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PLAYS)
def test_it_repairs_the_real_fault(played: dict[str, BaseException | None], name: str) -> None:
    wrong = played[name]
    if wrong is not None:
        raise wrong
