"""Four releases of a real app under traffic: a good one, one that cannot be imported, one that leaks, each with its end."""

from __future__ import annotations

import asyncio
from typing import Any

from demo.chain import Link, Verdict, check_chain
from demo.deploying import Counts, Deploying, DeployOptions, Tasks, Visitors
from demo.stage import Stage, StageError

NAME = "deploy"
TITLE = "a good release goes out, a broken one never serves, and one that leaks is taken back, under traffic"
OPTIONS = DeployOptions(watch="30s")
LEAST_REQUESTS = 10_000
LEAK_KB = 256
ROLLED_BACK_WITHIN_S = 3.0
"""From the verdict until the release before answers all requests."""

SETTLE_S = 5.0
WORKED_OFF_S = 30.0


def _is(event: Any, **attrs: str) -> bool:
    return all(event["attrs"].get(name) == value for name, value in attrs.items())


_STARTED = Link("deploy.started", None, "who began the deploy", lambda event: bool(event["attrs"]["who"]))
_PREPARED = Link(
    "release.prepared", "deploy.started", "the host built, checked and booted it beside what serves",
    lambda event: event["attrs"]["commit"] in event["attrs"]["commit"] and bool(event["attrs"]["artifact"]),
)  # fmt: skip
_SWITCHED = Link(
    "release.switched", "deploy.started", "Gunicorn handed over, Celery was drained and started again",
    lambda event: "handover" in event["attrs"]["ways"] and "drained" in event["attrs"]["ways"],
)  # fmt: skip


def _finished(outcome: str) -> Link:
    return Link("deploy.finished", "deploy.started", f"it ended: {outcome}", lambda event: _is(event, outcome=outcome))


LINKS = {
    "v2, good": (
        _STARTED, _PREPARED, _SWITCHED,
        Link("release.kept", "release.switched", "it was watched and kept", lambda event: _is(event, verdict="same")),
        _finished("kept"),
    ),
    "v3, cannot be imported": (
        _STARTED,
        Link("release.failed", "deploy.started", "it failed before the switch", lambda event: _is(event, step="check")),
        _finished("failed"),
    ),
    "v4, leaks": (
        _STARTED, _PREPARED, _SWITCHED,
        Link(
            "release.rolled_back", "release.switched", "the gate saw its memory grow, and it was taken back",
            lambda event: "grows" in event["text"] and 0 < event["attrs"]["web_s"] < ROLLED_BACK_WITHIN_S,
        ),
        _finished("rolled_back"),
    ),
    "v4 again": (
        _STARTED,
        Link("release.failed", "deploy.started", "the bad commit is refused", lambda event: "was bad" in event["text"]),
        _finished("failed"),
    ),
}  # fmt: skip


async def play_all(stage: Stage) -> dict[str, Any]:
    """All releases in turn; what each chain shows, and what clients saw meanwhile."""
    deploying = Deploying(stage, OPTIONS)
    (stage.folder / "policy.toml").write_text(deploying.policy)
    await stage.restart_agent()
    async with deploying:
        deploying.commit("v1")
        await deploying.take_on()
        first = await deploying.deploy()
        if first["outcome"] != "kept":
            raise StageError(f"the first release could not be deployed, before any traffic: it {first['text']}")
        await deploying.start_programs()
        ran: dict[str, Any] = {}
        chains = {}
        async with Visitors(deploying.port) as visitors, Tasks(deploying.broker) as tasks:
            await asyncio.sleep(SETTLE_S)
            for name, version, more in (
                ("v2, good", "v2", {}),
                ("v3, cannot be imported", "v3", {"breaks": True}),
                ("v4, leaks", "v4", {"leak_kb": LEAK_KB}),
                ("v4 again", "", {}),
            ):
                visitors.turn()
                if version:
                    deploying.commit(version, **more)
                done = await deploying.deploy()
                while name == "v2, good" and visitors.counts.served < LEAST_REQUESTS:
                    await asyncio.sleep(0.1)
                ran[name] = visitors.turn()
                chains[name] = await _whole_chain(stage, done["cause"], LINKS[name])
            await asyncio.sleep(SETTLE_S)
        counted = await _worked_off(deploying, tasks.sent)
    return _result(ran, chains, tasks.sent, counted)


async def _whole_chain(stage: Stage, root: str, links: tuple[Link, ...]) -> Any:
    """The chain once its links are there: its end is told just after the deploy is over."""
    for _ in range(100):
        chain = await stage.get(f"/v1/chain/{root}")
        if all(one.ok for one in check_chain(chain["events"], links)):
            break
        await asyncio.sleep(0.1)
    return chain


async def _worked_off(deploying: Deploying, sent: int) -> dict[str, int]:
    """How often each task ran, once all have, or nothing more comes."""
    for _ in range(int(WORKED_OFF_S)):
        ran, _by = await deploying.ran()
        if len(ran) >= sent:
            break
        await asyncio.sleep(1)
    return dict(ran)


def _result(ran: dict[str, Counts], chains: dict[str, Any], sent: int, counted: dict[str, int]) -> dict[str, Any]:
    verdicts = {name: check_chain(chains[name]["events"], LINKS[name]) for name in LINKS}
    good = ran["v2, good"]
    claims = [
        Verdict("requests", f"no request failed of at least {LEAST_REQUESTS:,} while v2 went out",
                good.failed == 0 and good.served >= LEAST_REQUESTS, f"{good.failed} of {good.served}"),
        Verdict("requests", "no request failed while v3 was refused and v4 went out and back",
                sum(one.failed for one in ran.values()) == 0, str({name: one.failed for name, one in ran.items()})),
        Verdict("versions", "the release that cannot be imported never served",
                all("v3" not in one.versions for one in ran.values()), str({name: dict(one.versions) for name, one in ran.items()})),
        Verdict("tasks", "no task was lost, and none ran twice",
                len(counted) == sent and set(counted.values()) == {1}, f"{len(counted)} of {sent} ran, {sum(counted.values())} times in all"),
    ]  # fmt: skip
    links = [one for name in LINKS for one in verdicts[name]] + claims
    return {
        "story": NAME,
        "ok": all(one.ok for one in links),
        "links": [{"kind": one.kind, "claim": one.claim, "ok": one.ok, "found": one.found} for one in links],
        "traffic": {
            name: {"requests": one.served, "failed": one.failed, "worst_ms": round(one.worst_ms, 1)}
            for name, one in ran.items()
        },
        "tasks": {"sent": sent, "ran_once": sum(times == 1 for times in counted.values()), "lost": sent - len(counted)},
        "chain": chains,
    }
