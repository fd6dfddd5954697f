"""The same app under the same traffic, deployed by Ansible with a restart, by Ansible with a HUP, and by Reflex, side by side.

Each way in each round deploys a good release and then one that cannot be imported. Neighbours are the same for all: a
server and an agent run on the host all along.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.deploys.clients import A_SECOND, Clients
from benchmarks.deploys.counting import GOALS, Span, Turn, cells, goals_met, last_version, order_of, serves, summary
from benchmarks.deploys.ground import IMPORT_CPU_S, IMPORT_S, WORKERS, Ground
from benchmarks.deploys.ways import HUP, RESTART, Ansible, Reflex, Way
from benchmarks.options import Options
from demo.stage import Stage

TITLE = "failed requests, latency, time and downtime of deploys by Reflex, Ansible and restart, Ansible and HUP"
CALM_S, AFTER_S = 5.0, 3.0
SERVES_WITHIN_S = 30.0
RESTORED_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class _Releases:
    """What a round deploys: `version` is the good one's."""

    version: str
    good: str
    broken: str


async def measure(options: Options) -> dict[str, Any]:
    """The worst round of each way, medians, every round, and whether Reflex met its goals. `quick` plays one round."""
    load_average = [round(one, 2) for one in os.getloadavg()]
    rounds = 1 if options.quick else options.rounds
    async with Stage() as stage, Ground(stage) as ground:
        ways = _ways(stage, ground)
        first = ground.commit("v1")
        for way in ways.values():
            await way.take_on(first)
            await ground.stop(way.site)
        found: dict[str, list[dict[str, object]]] = {name: [] for name in ways}
        for number in range(rounds):
            version = f"v{number + 2}"
            releases = _Releases(version, ground.commit(version), ground.commit(f"{version}-broken", breaks=True))
            for name in order_of(list(ways), number):
                found[name].append(await _turn(ground, ways[name], releases))
    told = {name: summary(rows) for name, rows in found.items()}
    return {
        "requests_a_second": A_SECOND,
        "workers": WORKERS,
        "import_s": IMPORT_S,
        "import_cpu_s": IMPORT_CPU_S,
        "load_average_before": load_average,
        **told,
        "goals": dict(GOALS),
        "goals_met": goals_met(told["reflex"]),
    }


def _ways(stage: Stage, ground: Ground) -> Mapping[str, Way]:
    sites = ground.sites
    return {
        "reflex": Reflex(stage, ground, sites["reflex"]),
        "ansible_restart": Ansible(ground, sites["ansible_restart"], RESTART),
        "ansible_hup": Ansible(ground, sites["ansible_hup"], HUP),
    }


async def _turn(ground: Ground, way: Way, releases: _Releases) -> dict[str, object]:
    """Only the service of this way runs meanwhile."""
    await ground.start(way.site)
    await way.is_known()
    async with Clients(way.site.port) as clients:
        turn = await _deployed(clients, way, releases)
    await ground.stop(way.site)
    return cells(turn, clients.answers)


async def _deployed(clients: Clients, way: Way, releases: _Releases) -> Turn:
    calm_s = time.monotonic()
    await asyncio.sleep(CALM_S)
    good = await way.deploy(releases.good)
    await clients.until(lambda now_s: _serves(clients, releases.version, now_s), SERVES_WITHIN_S)
    await asyncio.sleep(AFTER_S)
    good_span, served = Span(good.began_s, time.monotonic()), last_version(clients.answers)
    broken = await way.deploy(releases.broken)
    recovered_by = (
        "nobody had to" if _serves(clients, served, time.monotonic()) else await _restored(clients, way, releases)
    )
    return Turn(
        calm=Span(calm_s, good.began_s),
        good=good_span,
        good_code=good.code,
        broken=Span(broken.began_s, time.monotonic()),
        broken_code=broken.code,
        recovered_by=recovered_by,
        version=releases.version,
    )


async def _restored(clients: Clients, way: Way, releases: _Releases) -> str:
    """Deploys the good release once more; what brought the service back."""
    await way.redeploy(releases.good)
    is_back = await clients.until(lambda now_s: _serves(clients, releases.version, now_s), RESTORED_WITHIN_S)
    return way.redeploy_words if is_back else f"nothing within {RESTORED_WITHIN_S:g} s of {way.redeploy_words}"


def _serves(clients: Clients, version: str | None, now_s: float) -> bool:
    return version is not None and serves(clients.answers, version, now_s, a_second=A_SECOND)
