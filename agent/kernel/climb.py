"""Finds the best rung of every signal that BPF programs can serve: plan, load, attach; what is refused is planned anew."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.kernel.ladder import LADDERS, Means, Rung
from agent.kernel.libbpf import BpfError, BpfObject, KernelTypes, Libbpf
from agent.kernel.reasons import in_words, why_no_kprobes

CORE_MEANS: frozenset[Means] = frozenset({"tp_btf", "fentry", "kprobe", "iterator"})
"""The means that the prebuilt object serves."""


@dataclass(slots=True)
class Refusals:
    """Why rungs and programs cannot be had, gathered while climbing."""

    programs: dict[str, str] = field(default_factory=dict)
    rungs: dict[Rung, str] = field(default_factory=dict)

    def of(self, rung: Rung) -> str:
        """Why the rung cannot be had; empty when nothing speaks against it so far."""
        return self.rungs.get(rung) or next((self.programs[p] for p in rung.programs if p in self.programs), "")


@dataclass(frozen=True, slots=True)
class Climbed:
    """A loaded object with its attached programs: the rung of each signal that has one, and all refusals."""

    object: BpfObject
    rungs: Mapping[str, Rung]
    refusals: Refusals


def climb(library: Libbpf, path: Path, wishes: Mapping[str, Means]) -> Climbed:
    """Loads the object and attaches the best rung of every signal that the kernel accepts.

    A signal with a wish takes that means or nothing. Raises BpfError when nothing at all can be loaded.
    """
    refusals = _unsuitable(library)
    _note_absent(library, path, refusals)
    while True:
        plan = _plan(wishes, refusals)
        programs = {program for rung in plan.values() for program in rung.programs}
        candidate = BpfObject(library, path)
        for program in candidate.programs():
            if program not in programs:
                candidate.leave_out(program)
        for name in {name for rungs in LADDERS.values() for rung in rungs for name in rung.maps}:
            if not any(name in rung.maps for rung in plan.values()):
                candidate.leave_out_map(name)
        try:
            candidate.load()
            _attach(candidate, programs - _on_demand(plan), refusals)
        except _RefusedError:
            candidate.close()
            continue
        except BpfError as error:
            candidate.close()
            culprit = _failed_program(library.messages)
            if culprit is None or culprit in refusals.programs:
                raise
            number = error.errno
            name = errno.errorcode.get(number or 0, "unknown error")
            _refuse(refusals, culprit, number, f"the kernel refused the program ({name}){_verdict(library.messages)}")
            continue
        library.trim_memory()
        return Climbed(candidate, plan, refusals)


class _RefusedError(Exception):
    """A program that loaded could not be attached; the refusals say why."""


def _plan(wishes: Mapping[str, Means], refusals: Refusals) -> dict[str, Rung]:
    plan = {}
    for signal, rungs in LADDERS.items():
        wish = wishes.get(signal)
        fit = (r for r in rungs if r.means in CORE_MEANS and wish in (None, r.means) and not refusals.of(r))
        if (best := next(fit, None)) is not None:
            plan[signal] = best
    return plan


def _on_demand(plan: Mapping[str, Rung]) -> set[str]:
    """Iterators run when they are read, so there is nothing to hook them to."""
    return {program for rung in plan.values() if rung.means == "iterator" for program in rung.programs}


def _attach(candidate: BpfObject, programs: set[str], refusals: Refusals) -> None:
    for program in sorted(programs):
        try:
            candidate.attach(program)
        except BpfError as error:
            _refuse(refusals, program, error.errno, in_words(error.errno, error.strerror or str(error)))
            raise _RefusedError from None


def _refuse(refusals: Refusals, program: str, number: int | None, why: str) -> None:
    """Notes a refusal. Where the kernel does not permit one trampoline, it permits none: no use in trying each."""
    refusals.programs[program] = why
    rungs = [rung for ladder in LADDERS.values() for rung in ladder]
    if number == errno.EPERM and any(program in rung.programs and rung.means == "fentry" for rung in rungs):
        for rung in rungs:
            if rung.means == "fentry":
                refusals.rungs.setdefault(rung, why)


def _unsuitable(library: Libbpf) -> Refusals:
    refusals = Refusals()
    no_kprobes = why_no_kprobes()
    with KernelTypes(library) as kernel:
        for rungs in LADDERS.values():
            for rung in rungs:
                if rung.means == "kprobe" and no_kprobes:
                    refusals.rungs[rung] = no_kprobes
                elif rung.means in CORE_MEANS and (problem := _lacks(kernel, rung)):
                    refusals.rungs[rung] = problem
    return refusals


def _note_absent(library: Libbpf, path: Path, refusals: Refusals) -> None:
    """An object of another version may lack programs."""
    candidate = BpfObject(library, path)
    there = set(candidate.programs())
    candidate.close()
    wanted = {p for rungs in LADDERS.values() for rung in rungs if rung.means in CORE_MEANS for p in rung.programs}
    refusals.programs |= {program: f"the BPF object has no program {program}" for program in wanted - there}


def _lacks(kernel: KernelTypes, rung: Rung) -> str:
    for function in rung.functions:
        if not kernel.has_function(function):
            return f"this kernel has no function {function}, or has inlined it"
    if rung.iterator and not kernel.has_function(f"bpf_iter_{rung.iterator}"):
        return f"this kernel has no BPF iterator {rung.iterator}"
    if not rung.tracepoint:
        return ""
    if not kernel.has_tracepoint(rung.tracepoint):
        return f"this kernel has no tracepoint {rung.tracepoint}"
    if rung.wants_pointer is None or kernel.first_argument_is_pointer(rung.tracepoint) == rung.wants_pointer:
        return ""
    given = "a bare pid" if rung.wants_pointer else "the task itself"
    return f"{rung.tracepoint} of this kernel hands over {given}"


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
