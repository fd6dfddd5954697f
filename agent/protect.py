"""Keeps the kernel's OOM killer off the agent, which has to tell of it; never off the agent's children."""

from __future__ import annotations

from agent.procfs import own_oom_score_adj, set_own_oom_score_adj

CHILD_SCORE_ADJ = 0
"""A child is as good a victim as any process: a build that runs wild must not make the kernel kill a service instead."""


def protect(score_adj: int) -> list[str]:
    """Sets the agent's oom_score_adj; what is wrong, to follow "the agent".

    It is set as it is asked for even where the agent was started with a lower one: never to be chosen, not even when
    it leaks, is no protection of the host.
    """
    if own_oom_score_adj() == score_adj:
        return []
    try:
        set_own_oom_score_adj(score_adj)
    except OSError as error:
        return [
            f"is not protected from the OOM killer: its oom_score_adj stays {own_oom_score_adj()} ({error.strerror}); "
            f"for {score_adj} it needs CAP_SYS_RESOURCE, or OOMScoreAdjust={score_adj} in its systemd unit"
        ]
    return []


def expose() -> None:
    """To be called in a child between fork and exec: takes the protection off it."""
    set_own_oom_score_adj(CHILD_SCORE_ADJ)
