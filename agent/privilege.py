"""What the agent may do, what each part of it needs that for, and until when; all else is given away at start.

docs/security.md explains the table; a test holds it to NEEDS.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from agent.kernel.capabilities import Capability, CapabilityError, keep_only, limit_to, permitted, threads_with_more
from agent.kernel.climb import CORE_MEANS
from agent.kernel.ladder import Means, Probe
from agent.kernel.map_access import maps_need_capability
from agent.kernel.module_types import hide_module_types

log = logging.getLogger(__name__)

BY_BPF: frozenset[Means] = CORE_MEANS | {"bcc"}


@dataclass(frozen=True, slots=True)
class Need:
    """One capability for one part of the agent.

    `until` "attached": only while the agent begins to hear the kernel. `means`: only when some signal is heard by one
    of these; empty: always. `without` says what does not work then, and follows "it".
    """

    capability: Capability
    part: str
    without: str
    until: Literal["attached", "end"] = "end"
    means: frozenset[Means] = frozenset()


NEEDS = (
    Need(
        Capability.SYS_PTRACE,
        "reading open files, environment, working folder, binary and shared memory of other users' processes",
        "sees no services of other users, and not the memory that their workers share",
    ),
    Need(
        Capability.DAC_READ_SEARCH,
        "the same, where files and folders are closed to others",
        "sees no services of other users",
    ),
    Need(
        Capability.KILL,
        "signals to other users' processes, which playbooks and deploys send",
        "cannot signal processes of other users",
    ),
    Need(Capability.BPF, "loading BPF programs", "hears the kernel by lesser means", "attached"),
    Need(Capability.PERFMON, "letting BPF programs read kernel memory", "hears the kernel by lesser means", "attached"),
    Need(
        Capability.SYS_RESOURCE,
        "lowering the agent's own oom_score_adj; before Linux 5.11 also locked memory for BPF maps",
        "is not protected from the OOM killer, unless its unit does it",
        "attached",
    ),
    Need(
        Capability.SETPCAP,
        "taking what is given away out of the bounding set as well",
        "leaves the bounding set as it is; no-new-privileges has the same effect",
        "attached",
    ),
    Need(
        Capability.NET_ADMIN,
        "hearing the process connector, and leaving it",
        "cannot tell the kernel that nobody listens to the process connector any more",
        means=frozenset({"netlink"}),
    ),
    Need(
        Capability.SYS_ADMIN,
        "entering the network namespaces of containers, to look at accept queues there",
        "cannot look at accept queues of containers that have a network namespace of their own",
        means=frozenset({"diag"}),
    ),
    Need(
        Capability.BPF,
        "reading BPF maps, on kernels that do not go by the descriptor (before 5.19)",
        "cannot read what its BPF programs count",
        means=BY_BPF,
    ),
)
"""Every need that there is; what is not in it is given away first thing."""


class Privileges:
    """The way of this process from what it was started with to the least that works."""

    def __init__(self) -> None:
        self._had = permitted()
        self._kept = self._had

    def begin(self) -> None:
        """To be called first thing, before there are threads: gives away what no part of the agent ever needs."""
        try:
            limit_to(frozenset(need.capability for need in NEEDS))
            if Capability.BPF in self._had and Capability.SYS_ADMIN not in self._had:
                hide_module_types()
        except CapabilityError as error:
            log.warning("the agent begins with more privileges than it needs: %s", error.strerror)

    def settle(self, probes: Iterable[Probe]) -> list[str]:
        """To be called when the kernel is heard: gives away what only that took. What is wrong, to follow "the agent"."""
        means = frozenset(probe.means for probe in probes)
        by_capability = bool(means & BY_BPF) and maps_need_capability()
        needs = lasting(means, self._had, maps_need_capability=by_capability)
        kept = frozenset(need.capability for need in needs)
        troubles = [
            f"runs without {one.capability}: it {one.without}" for one in needs if one.capability not in self._had
        ]
        try:
            keep_only(kept)
        except CapabilityError as error:
            troubles.append(f"keeps privileges that it does not need: {error.strerror}")
        if too_early := threads_with_more(kept):
            troubles.append(f"has {len(too_early)} threads with privileges that it does not need")
        self._kept = permitted()
        log.info("capabilities from now on: %s", ", ".join(self._names()) or "none")
        return troubles

    def status(self) -> dict[str, Any]:
        """Who the agent runs as and what it may do, as docs/api.md has it."""
        return {"uid": os.geteuid(), "capabilities": self._names()}

    def _names(self) -> list[str]:
        return [str(capability) for capability in sorted(self._kept)]


def lasting(means: frozenset[Means], had: frozenset[Capability], *, maps_need_capability: bool) -> tuple[Need, ...]:
    """What is needed for as long as the agent runs, by an agent that hears by these means and started with `had`.

    Before Linux 5.8 there is no CAP_BPF: CAP_SYS_ADMIN stands in for it, here wherever it alone was given.
    """
    needs = (need for need in NEEDS if need.until == "end" and (not need.means or need.means & means))
    stand_in = Capability.SYS_ADMIN if Capability.SYS_ADMIN in had and Capability.BPF not in had else Capability.BPF
    return tuple(
        need if need.capability != Capability.BPF else replace(need, capability=stand_in)
        for need in needs
        if need.capability != Capability.BPF or maps_need_capability
    )
