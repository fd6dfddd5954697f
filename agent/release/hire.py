"""Starts the runner of an agent that nobody has given one, before the agent gives its rights away."""

from __future__ import annotations

import os
from pathlib import Path

from agent.executor import Child
from agent.policy import PolicyError, load_policy
from agent.release.runner import interpreter
from agent.settings import Settings

NAME = "runner.sock"


def own_socket(settings: Settings) -> Path:
    """Where a runner of the agent's own listens."""
    return settings.state_dir / NAME


def hire(settings: Settings) -> Child | None:
    """A runner that ends with the agent; None where one is there, none is wanted by the policy, or none is possible."""
    if settings.runner_socket.exists() or os.geteuid() != 0:
        return None
    try:
        if not load_policy(settings.policy_file).apps:
            return None
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        command = [
            *interpreter(),
            "-m",
            "agent",
            "runner",
            "--until-closed",
            "0",
            "--socket",
            str(own_socket(settings)),
        ]
        return Child([*command, "--policy-file", str(settings.policy_file)])
    except (PolicyError, OSError):
        return None
