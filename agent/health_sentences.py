"""What the agent says of workers' health: full sentences with their numbers. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from agent.leak import Leak
from agent.limits import Room
from agent.service import Service, Worker
from agent.stacks import Stack, Untold
from agent.stillness import Still
from agent.wire import Evidence
from agent.words import size, span

_TOLD_FRAMES = 3


def subject(worker: Worker) -> str:
    """How samples call a worker."""
    return f"worker {worker.ref.slot} (pid {worker.ref.pid})"


def leaking(service: Service, leaks: Sequence[tuple[Worker, Leak]], room: Room, left_s: float) -> str:
    """Workers whose memory grows towards a limit."""
    slope = sum(leak.slope for _, leak in leaks)
    if len(leaks) == 1:
        ((worker, leak),) = leaks
        who = f"Worker {worker.ref.slot} of {service.name} (pid {worker.ref.pid}) leaks: its memory"
        held = f"to {size(leak.bytes)}"
    else:
        who = f"{len(leaks)} workers of {service.name} leak: their memory"
        held = f"to {size(sum(leak.bytes for _, leak in leaks))} together"
    seen_s = min(leak.seconds for _, leak in leaks)
    return (
        f"{who} has grown without a pause for {span(seen_s)}, {held}, by {size(slope * 60)} a minute. "
        f"At this rate {room.words} ({size(room.limit_bytes)}, {room.share:.0%} used) is full in {span(left_s)}."
    )


def leak_evidence(leaks: Sequence[tuple[Worker, Leak]], room: Room) -> tuple[Evidence, ...]:
    """The test's own numbers."""
    tests = tuple(
        Evidence(
            "trend of memory",
            f"pid {worker.ref.pid}: {size(leak.slope * 60)} a minute, at least {size(leak.slope_at_least * 60)} "
            f"(Sen's bound, z {leak.z:.1f}), over {span(leak.seconds)}",
        )
        for worker, leak in leaks[:8]
    )
    used = f"{size(room.usage_bytes)} of {size(room.limit_bytes)} used"
    return (*tests, Evidence("memory cgroup" if room.name else "host memory", f"{room.name or 'the host'}: {used}"))


def boot_hung(worker: Worker, age_s: float, limit_s: float, doing: str, where: str) -> str:
    """A worker that does not become ready."""
    at = f" It is in {where}." if where else ""
    return (
        f"Worker {worker.ref.slot} of {worker.service.name} (pid {worker.ref.pid}) hangs while it boots: not ready "
        f"{span(age_s)} after its start, where {span(limit_s)} is long already; {doing}.{at} "
        "No timeout of its master applies before it is ready."
    )


def leak_ended(worker: Worker, quiet_s: float) -> str:
    """A worker that leaked and does not any more."""
    return (
        f"Worker {worker.ref.slot} of {worker.service.name} (pid {worker.ref.pid}) leaks no more: its memory has shown no "
        f"steady growth for {span(quiet_s)}."
    )


def blocked(worker: Worker, still_s: float, where: str) -> str:
    """A worker that has stood still inside of a call."""
    return (
        f"Worker {worker.ref.slot} of {worker.service.name} (pid {worker.ref.pid}) is stuck: for {span(still_s)} it has not "
        f"run and waited for something else than clients, in {where}. Its master has no timeout that would end it."
    )


def threads_stuck(still: Still, where: str) -> str:
    """Threads of a worker that stand still while its main thread goes on."""
    worker, number = still.worker, still.number
    threads = f"{number} of {still.of} threads" if still.of is not None else f"{number} thread{'s' * (number > 1)}"
    return (
        f"{threads} of worker {worker.ref.slot} of {worker.service.name} (pid {worker.ref.pid}) "
        f"{'is' if number == 1 else 'are'} stuck: unchanged for {span(still.seconds)} in {where}. The worker's main thread "
        "goes on, so that its master does not see it."
    )


def standing_in(still: Still) -> str:
    """Where a thread stands still: its innermost calls, or the system call."""
    frames = still.calls[0].frames[:_TOLD_FRAMES] if still.calls else ()
    return ", called by ".join(map(str, frames)) or f"the system call {still.call}"


def moves_again(worker: Worker, lasted_s: float) -> str:
    """A worker that was stuck and is not any more."""
    return f"Worker {worker.ref.slot} of {worker.service.name} (pid {worker.ref.pid}) moves again, {span(lasted_s)} after it was found stuck."


def snapshot(worker: Worker, why: str, where: str) -> str:
    """A snapshot that was taken before it is too late."""
    at = f" It was in {where}." if where else ""
    return f"A snapshot of worker {worker.ref.slot} of {worker.service.name} (pid {worker.ref.pid}) was kept because {why}.{at}"


def memory_reason(worker: Worker, room: Room) -> str:
    """Why a snapshot is taken: memory."""
    held = worker.health.memory_bytes
    own = "" if held is None else f", {size(held)} of it its own"
    return f"{room.words} ({size(room.limit_bytes)}) is {room.share:.0%} used{own}"


def timeout_reason(age_s: float, timeout_s: float) -> str:
    """Why a snapshot is taken: the master's timeout."""
    return f"its last heartbeat is {span(age_s)} old and its master's timeout is {timeout_s:g} s"


def where(stack: Stack | Untold) -> str:
    """The main thread's innermost calls; why not, if they could not be had."""
    if isinstance(stack, Untold):
        return ""
    frames = stack.main.frames[:_TOLD_FRAMES] if stack.main is not None else ()
    return ", called by ".join(str(frame) for frame in frames)


def stack_evidence(stack: Stack | Untold) -> Evidence:
    """Where the stack came from, or why there is none."""
    if isinstance(stack, Untold):
        return Evidence("py-spy", f"no Python stack: {stack.reason}")
    return Evidence("py-spy", f"main thread in {where(stack)}" if where(stack) else "no Python calls")
