"""Which means each kernel signal is heard by, best first, and why a better one was not to be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.kernel.libbpf import BpfError, BpfObject, KernelTypes, Libbpf

State = Literal["attached", "degraded", "off"]


@dataclass(frozen=True, slots=True)
class Rung:
    """One means: a program of the BPF object and the tracepoint that it needs.

    `wants_pointer` asks that the tracepoint's first argument is, or is not, a pointer: kernels differ.
    """

    label: str
    program: str
    tracepoint: str
    wants_pointer: bool | None = None
    state: State = "attached"


@dataclass(frozen=True, slots=True)
class Probe:
    """How one signal is heard. `rung` is empty when `state` is "off"; `reason` says why it is not better."""

    signal: str
    state: State
    rung: str = ""
    reason: str = ""


LADDERS: dict[str, tuple[Rung, ...]] = {
    "oom": (
        Rung("tp_btf/mark_victim", "on_oom_task", "mark_victim", wants_pointer=True),
        Rung("tp_btf/mark_victim (pid only)", "on_oom_pid", "mark_victim", wants_pointer=False, state="degraded"),
    ),
    "fork": (Rung("tp_btf/sched_process_fork", "on_fork", "sched_process_fork"),),
    "exec": (Rung("tp_btf/sched_process_exec", "on_exec", "sched_process_exec"),),
    "exit": (Rung("tp_btf/sched_process_exit", "on_exit", "sched_process_exit"),),
    "signal": (Rung("tp_btf/signal_generate", "on_signal", "signal_generate"),),
    "queue": (Rung("tp_btf/sk_data_ready", "on_data_ready", "sk_data_ready"),),
}
"""The signals and their rungs, best first."""

WITHOUT = {
    "oom": "OOM kills are not seen",
    "fork": "new workers are found by a scan of /proc every 2 s",
    "exec": "new services are found by a scan of /proc every 2 s",
    "exit": "deaths are noticed by a scan of /proc every 2 s, without their cause",
    "signal": "who sent a signal is not known",
    "queue": "the depth of accept queues is not known",
}
"""What the agent cannot see, or sees less well, without a signal."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A loaded object with its attached programs, and how each signal is heard."""

    object: BpfObject
    probes: tuple[Probe, ...]


def nothing_heard(why: str) -> tuple[Probe, ...]:
    """The probes of a host on which no BPF program runs."""
    return tuple(Probe(signal, "off", reason=f"{why}; {WITHOUT[signal]}") for signal in LADDERS)


def climb(library: Libbpf, path: Path) -> Attached:
    """Loads the object and attaches the best rung of every signal that the kernel accepts.

    A rung that fails falls to the next with its reason; BpfError only when nothing at all can be loaded.
    """
    refused: dict[str, str] = {}
    with KernelTypes(library) as kernel:
        for rung in _all_rungs():
            if problem := _unsuitable(rung, kernel):
                refused[rung.program] = problem
    loaded = _load_what_loads(library, path, refused)
    probes = tuple(_attach_best(loaded, signal, rungs, refused) for signal, rungs in LADDERS.items())
    library.trim_memory()
    return Attached(loaded, probes)


def _all_rungs() -> Sequence[Rung]:
    return [rung for rungs in LADDERS.values() for rung in rungs]


def _unsuitable(rung: Rung, kernel: KernelTypes) -> str:
    if not kernel.has_tracepoint(rung.tracepoint):
        return f"this kernel has no tracepoint {rung.tracepoint}"
    if rung.wants_pointer is None or kernel.first_argument_is_pointer(rung.tracepoint) == rung.wants_pointer:
        return ""
    given = "a bare pid" if rung.wants_pointer else "the task itself"
    return f"{rung.tracepoint} of this kernel hands over {given}"


def _load_what_loads(library: Libbpf, path: Path, refused: dict[str, str]) -> BpfObject:
    """Loads the object; a program that the kernel refuses is noted in `refused` and left out at the next try."""
    while True:
        candidate = BpfObject(library, path)
        for program in candidate.programs():
            if program in refused:
                candidate.leave_out(program)
        try:
            candidate.load()
            return candidate
        except BpfError:
            candidate.close()
            culprit = _failed_program(library.messages)
            if culprit is None or culprit in refused:
                raise
            refused[culprit] = f"the kernel refused the program{_verdict(library.messages)}"


def _failed_program(messages: Sequence[str]) -> str | None:
    """The program that libbpf names as failed, from its lines `prog 'NAME': failed to …`."""
    for message in messages:
        if "prog '" in message and "failed to" in message:
            return message.split("prog '", 1)[1].split("'", 1)[0]
    return None


def _verdict(messages: Sequence[str]) -> str:
    """The verifier's last words on the program, from the log that libbpf prints; nothing when it said nothing."""
    for message in messages:
        _, begin, text = message.partition("-- BEGIN PROG LOAD LOG --")
        lines = [line for line in text.splitlines() if line and not line.startswith(("processed ", "-- END"))]
        if begin and lines:
            return f": {lines[-1].strip()}"
    return ""


def _attach_best(loaded: BpfObject, signal: str, rungs: tuple[Rung, ...], refused: dict[str, str]) -> Probe:
    reasons = []
    for rung in rungs:
        if problem := refused.get(rung.program):
            reasons.append(f"{rung.label}: {problem}")
            continue
        try:
            loaded.attach(rung.program)
        except BpfError as error:
            reasons.append(f"{rung.label}: {error.strerror}")
            continue
        return Probe(signal, rung.state, rung.label, "; ".join(reasons))
    return Probe(signal, "off", reason=f"{'; '.join(reasons)}; {WITHOUT[signal]}")
