"""What acts a playbook may name, and their parameters. The lists of a host's own actions are held to this by a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Type = Literal["text", "whole", "number"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an action."""

    type: Type
    meaning: str
    must: bool = False


@dataclass(frozen=True, slots=True)
class Action:
    """One kind of act. `on_worker`: it is about one worker. `by_server`: no host is told anything."""

    meaning: str
    params: Mapping[str, Parameter] = field(default_factory=dict)
    on_worker: bool = False
    by_server: bool = False


_GRACE = {"grace_s": Parameter("whole", "Seconds that a worker has to end its request before it is left alone.")}
_SCALE = {
    "by": Parameter("whole", "Workers more, or fewer if negative."),
    "to": Parameter("whole", "How many workers there are to be."),
}
_QUEUE = {"queue": Parameter("text", "Name of the queue.", must=True)}


def _of_servers(kind: str) -> dict[str, Action]:
    return {
        f"{kind}.recycle_worker": Action(
            "Replaces one worker: a new one is ready before the old one ends.", _GRACE, on_worker=True
        ),
        f"{kind}.rotate": Action("Replaces all workers, one after the other.", _GRACE),
        f"{kind}.scale": Action("Changes the number of workers.", _SCALE),
        f"{kind}.reload": Action("Loads the code anew, once its configuration has been checked."),
        f"{kind}.restart": Action("Restarts the service by its unit or supervisor."),
    }


ACTIONS: Mapping[str, Action] = {
    **_of_servers("gunicorn"),
    **_of_servers("uwsgi"),
    **_of_servers("uvicorn"),
    "celery.warm_shutdown": Action("Lets a node end its tasks and go, and waits for it."),
    "celery.restart": Action("Restarts a node by its unit or supervisor, after a warm shutdown."),
    "celery.grow": Action("Adds processes to a node's pool.", {"by": Parameter("whole", "How many.", must=True)}),
    "celery.shrink": Action("Takes processes from a node's pool.", {"by": Parameter("whole", "How many.", must=True)}),
    "celery.cancel_consumer": Action("Lets a node consume a queue no more.", _QUEUE),
    "celery.add_consumer": Action("Lets a node consume a queue.", _QUEUE),
    "celery.replace_consumer": Action("Makes a silent node consume its queues again."),
    "celery.revoke": Action("Takes one task back.", {"task_id": Parameter("text", "Id of the task.", must=True)}),
    "celery.quarantine_task": Action(
        "Lets no node of the service run tasks of a name for a while.",
        {"task": Parameter("text", "Name of the task.", must=True)},
    ),
    "celery.return_unacked": Action("Gives back what a dead node had fetched, each task at most once."),
    "celery.stop_redelivery": Action(
        "Takes a task that is delivered again and again out of its queue.",
        {"task_id": Parameter("text", "Id of the task.", must=True)},
    ),
    "snapshot.take": Action("Keeps stacks and memory of a worker.", on_worker=True),
    "process.signal": Action(
        "Sends a signal to a process.", {"signal": Parameter("text", "Such as TERM.", must=True)}, on_worker=True
    ),
    "process.renice": Action(
        "Changes the priority of a process.", {"nice": Parameter("whole", "-20 to 19.", must=True)}, on_worker=True
    ),
    "cgroup.set_limit": Action(
        "Changes the memory limit of the service's cgroup.",
        {"memory_bytes": Parameter("whole", "The new limit.", must=True)},
    ),
    "unit.restart": Action("Restarts a systemd unit.", {"unit": Parameter("text", "Name of the unit.", must=True)}),
    "supervisor.restart": Action(
        "Restarts a program of supervisor.", {"program": Parameter("text", "Name of the program.", must=True)}
    ),
    "command.run": Action(
        "Runs a command that the host's policy names.", {"name": Parameter("text", "Its name there.", must=True)}
    ),
    "notify": Action(
        "Tells people.",
        {
            "text": Parameter("text", "What to say.", must=True),
            "channel": Parameter("text", "Where; all channels where it is not said."),
        },
        by_server=True,
    ),
    "deploy.hold": Action(
        "Lets no deploy of the service begin for a while.", {"minutes": Parameter("whole", "How long.")}, by_server=True
    ),
    "deploy.rollback": Action("Goes back to the release before.", by_server=True),
}
