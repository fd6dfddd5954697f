"""What events about Celery say: sentences that stand alone at 3 a.m. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from agent.celery.queue_judges import Backlog
from agent.celery.task_judges import Died, Stack
from agent.celery.values import ActiveTask, TaskRules
from agent.wire import Evidence
from agent.words import span

VISIBILITY_TIMEOUT_S = 3600.0
"""kombu's, where the application sets none."""

INSPECT = "celery inspect"
STACK = "py-spy"
PROC = "procfs"
_FRAMES_TOLD = 3


def running(task: ActiveTask) -> str:
    """A task as it is named: `shop.pay (9c1d…)`."""
    return f"{task.name} ({task.id})"


def backlog(service: str, queue: str, state: Backlog, length: int, free: bool | None) -> str:
    """A queue that grows all through the window."""
    busy = {True: " although its node is free", False: " and its nodes are busy", None: ""}[free]
    return (
        f"The queue {queue} of {service} grows faster than it is consumed: it holds {tasks(length)}, "
        f"{length - state.first:+d} over the last {span(state.seen_s)} ({state.rate:.1f} a second){busy}."
    )


def backlog_over(service: str, queue: str, state: Backlog, length: int, lasted_s: float) -> str:
    """A queue that is worked off."""
    return (
        f"The queue {queue} of {service} is worked off: it holds {tasks(length)}. It had grown for {span(lasted_s)}, "
        f"up to {tasks(state.longest)}."
    )


def stuck(service: str, task: ActiveTask, pid: int, age_s: float, flat_s: float, stack: Stack | None) -> str:
    """A task that makes no progress."""
    where = f", always in {frames(stack)}" if stack else ""
    seen = "" if stack else "; its stack cannot be had, so that this is less certain"
    return (
        f"Task {running(task)} of {service} has run for {span(age_s)} and is stuck: its process (pid {pid}) has used no "
        f"CPU for {span(flat_s)}{where}{seen}."
    )


def unstuck(service: str, task: ActiveTask, *, ended: bool, age_s: float) -> str:
    """A task that was told as stuck and is not any more."""
    what = "is over" if ended else "goes on: its process uses CPU again"
    return f"Task {running(task)} of {service}, which was stuck, {what} after {span(age_s)}."


def silent(service: str, node: str, queue: str, length: int, since_s: float, why: str) -> str:
    """A node that lives and does not consume."""
    return (
        f"The node {node} of {service} does not consume the queue {queue}: {tasks(length)} wait there, the node is alive "
        f"and idle, and {why}. It has been so for {span(since_s)}."
    )


def consumer_back(service: str, node: str, queue: str, lasted_s: float) -> str:
    """A node that consumes again."""
    return f"The node {node} of {service} consumes the queue {queue} again, after {span(lasted_s)}."


def why_silent(queue: str, consumed: Sequence[str], *, told: bool) -> str:
    """Why nothing is consumed, as the end of a sentence. `told`: the node itself leaves the queue out."""
    if not told:
        return "none of its connections waits for a message"
    others = f"only {', '.join(consumed)}" if consumed else "none at all"
    return f"by its own account it has been told to consume {others}, as after cancel_consumer"


def lost(service: str, task: ActiveTask, age_s: float | None, how: str, fate: str, *, certain: bool) -> str:
    """A task whose process died under it. `how` says how the process ended, `fate` what becomes of the task."""
    age = "" if age_s is None else f" after {span(age_s)}"
    sure = "" if certain else "very likely "
    return f"Task {running(task)} of {service} was {sure}cut off{age}: its process {how}. {fate}"


def fate_after_child(task: ActiveTask, rules: TaskRules | None) -> tuple[str, str]:
    """What becomes of a task when only its process died: a word, and a sentence."""
    if task.acknowledged:
        return "lost", "It had been acknowledged when it began, so that nobody runs it again: it is lost."
    if task.acknowledged is None or rules is None or rules.requeues is None:
        return "unknown", (
            "It had not been acknowledged: with reject_on_worker_lost it runs again, else its node "
            "acknowledges it now and it is lost, acks_late or not."
        )
    if rules.requeues:
        return (
            "runs_again",
            "It had not been acknowledged and has reject_on_worker_lost: its node puts it back and it runs again.",
        )
    return "lost", (
        "It had not been acknowledged (acks_late), but without reject_on_worker_lost its node acknowledges it now: it is lost."
    )


def fate_after_node(task: ActiveTask, *, on_redis: bool, visibility_s: float | None) -> tuple[str, str]:
    """What becomes of a task when its whole node died."""
    if task.acknowledged:
        return "lost", "It had been acknowledged when it began, so that nobody runs it again: it is lost."
    if task.acknowledged is None:
        return "unknown", "Whether it had been acknowledged is not known."
    if not on_redis:
        return "runs_again", "It had not been acknowledged: RabbitMQ hands it to another node at once."
    return (
        "waits",
        f"It had not been acknowledged: it waits in `unacked` until {_visible(visibility_s)}, then it runs again.",
    )


def stranded(
    service: str, node: str, broker: str, count: int, unacked: int | None, *, on_redis: bool, visibility_s: float | None
) -> str:
    """Tasks that a dead node had fetched."""
    head = f"The node {node} of {service} died with {tasks(count)} that it had fetched and not finished."
    if not on_redis:
        return f"{head} {broker} hands them to other nodes at once."
    whole = "" if unacked is None else f" (it holds {unacked} in all)"
    return (
        f"{head} They lie in `unacked` on {broker}{whole}, where no queue's length counts them, "
        f"and no node gets them until {_visible(visibility_s)}."
    )


def poisonous(service: str, name: str, deaths: Sequence[Died]) -> str:
    """A task under which processes die again and again."""
    same = len({death.task_id for death in deaths}) == 1
    each = "each time under the same task, which is delivered again" if same else "under different tasks of that name"
    return (
        f"Tasks {name} of {service} kill their processes: {len(deaths)} died within "
        f"{span(deaths[-1].at_s - deaths[0].at_s)}, {each}."
    )


def unreachable(services: Sequence[str], broker: str, trouble: str) -> str:
    """A broker that cannot be asked."""
    return (
        f"The broker {broker} of {', '.join(services)} {trouble}: until that changes nothing is known "
        "of its queues and tasks, and nothing is concluded."
    )


def broker_back(services: Sequence[str], broker: str, lasted_s: float) -> str:
    """A broker that answers again."""
    return f"The broker {broker} of {', '.join(services)} answers again, after {span(lasted_s)}."


def stack_evidence(stack: Stack | None) -> Evidence:
    """The stack, or that there is none."""
    if stack is None:
        return Evidence(
            STACK, "no stack could be had: a higher age and a longer time without CPU were demanded instead"
        )
    return Evidence(STACK, f"the same twice in a row: {frames(stack, len(stack))}"[:1_900])


def frames(stack: Stack, most: int = _FRAMES_TOLD) -> str:
    """The innermost frames, from the inside out."""
    return " < ".join(stack[:most])


def tasks(count: int) -> str:
    """`1 task`, `12 tasks`."""
    return f"{count} task" if count == 1 else f"{count} tasks"


def _visible(visibility_s: float | None) -> str:
    if visibility_s is not None:
        return f"the visibility timeout of {span(visibility_s)} is over"
    return f"the visibility timeout is over ({span(VISIBILITY_TIMEOUT_S)} where the application sets none)"
