"""Opens the best means for every signal that this host has, and says of each why it is not better."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from agent.kernel.bcc import BccError, compile_programs
from agent.kernel.bcc_proof import disbelief
from agent.kernel.climb import CORE_MEANS, Climbed, Refusals, climb
from agent.kernel.connector import LIFECYCLE, ConnectorSource
from agent.kernel.diag import DiagError, QueueDiag
from agent.kernel.kernel import Kernel, Source
from agent.kernel.ladder import LADDERS, WITHOUT, Means, Probe, Rung
from agent.kernel.layout import LayoutError, TypeInformation
from agent.kernel.libbpf import BpfError, Libbpf, LibbpfMissingError
from agent.kernel.process_events import ConnectorError
from agent.kernel.readings import PROGRAMS, TaskReader
from agent.kernel.reasons import BTF, in_words, may_use_bpf
from agent.kernel.source import BpfSource
from agent.procfs import ProcFs

WITHOUT_BPF: frozenset[Means] = frozenset({"counters", "psutil", "scan"})
"""Means that the agent has without opening anything."""


def open_kernel(object_path: Path, wishes: Mapping[str, Means] | None = None, procfs: ProcFs | None = None) -> Kernel:
    """Opens the best means for every signal. Never fails: a signal that cannot be heard has a probe that says why.

    `wishes` names the only means that a signal may take; the others take the best there is.
    """
    wishes, procfs = wishes or {}, procfs or ProcFs()
    bpf, tasks, taken, why_not = _open_core(object_path, wishes)
    bcc = _open_bcc(object_path, taken, wishes, procfs, why_not)
    sources: list[Source] = [source for source in (bpf, bcc) if source is not None]
    sources += _open_connector(taken, wishes, procfs, bpf, why_not)
    if procfs.oom_kills() is None:
        why_not.refuse(_rung("oom", "counters"), "this kernel does not count OOM kills")
    if find_spec("psutil") is None:
        why_not.refuse(_rung("readings", "psutil"), "the package psutil is not installed")
    for signal, rungs in LADDERS.items():
        for rung in rungs:
            fits = rung.means in WITHOUT_BPF and wishes.get(signal) in (None, rung.means)
            if signal not in taken and fits and not why_not.of(rung):
                taken[signal] = rung
    _drop_idle_context(taken, why_not)
    diag = _open_diag(taken, wishes, why_not)
    probes = [_probe(signal, taken.get(signal), wishes.get(signal), why_not) for signal in LADDERS]
    return Kernel(probes, sources, bpf, diag, tasks, bcc)


def _drop_idle_context(taken: dict[str, Rung], why_not: _WhyNot) -> None:
    """The OOM killer's context is read where its mark is heard by the same programs, and nowhere else."""
    if "oom_context" in taken and ("oom" not in taken or taken["oom"].means not in CORE_MEANS):
        del taken["oom_context"]
        for rung in LADDERS["oom_context"]:
            why_not.refuse(rung, "nothing hears the OOM killer's mark in the kernel")


class _WhyNot:
    """The reason against each rung that was not taken."""

    def __init__(self, refusals: Refusals | None = None, core: str = "") -> None:
        self._refusals = refusals or Refusals()
        self._core = core

    def refuse(self, rung: Rung, why: str) -> None:
        """Notes the reason against a rung."""
        self._refusals.rungs[rung] = why

    def of(self, rung: Rung) -> str:
        """The reason, empty when the rung was not tried."""
        if rung.means in CORE_MEANS:
            return self._refusals.of(rung) or self._core
        return self._refusals.rungs.get(rung, "")


_Core: TypeAlias = tuple[BpfSource | None, TaskReader | None, dict[str, Rung], _WhyNot]


def _open_core(object_path: Path, wishes: Mapping[str, Means]) -> _Core:
    """The prebuilt object, as much of it as the kernel takes."""
    if not BTF.exists():
        return _no_core(f"this kernel has no BTF ({BTF} is not there)")
    if not may_use_bpf():
        return _no_core(in_words(1, "BPF is not permitted"))
    try:
        types = TypeInformation(object_path.read_bytes())
        library = Libbpf()
        climbed = climb(library, object_path, wishes)
    except FileNotFoundError:
        return _no_core(f"the BPF object {object_path} is not built; run ./reflex setup or make -C bpf")
    except LayoutError as error:
        return _no_core(f"the BPF object {object_path} cannot be used: {error}")
    except LibbpfMissingError as error:
        return _no_core(str(error))
    except BpfError as error:
        return _no_core(in_words(error.errno, error.strerror or str(error)))
    tasks = _open_tasks(climbed, types)
    taken = {signal: rung for signal, rung in climbed.rungs.items() if not climbed.refusals.of(rung)}
    source = BpfSource(library, climbed.object, types, counts_accepts=_counts_accepts(climbed))
    return source, tasks, taken, _WhyNot(climbed.refusals)


def _no_core(why: str) -> _Core:
    return None, None, {}, _WhyNot(core=why)


def _open_tasks(climbed: Climbed, types: TypeInformation) -> TaskReader | None:
    """The reader of processes, if its rung was reached; what keeps it from reading is noted as a refusal."""
    rung = climbed.rungs.get("readings")
    if rung is None:
        return None
    try:
        for program in PROGRAMS:
            climbed.object.attach_iterator(program)
        return TaskReader(climbed.object, types, counts_accepts=_counts_accepts(climbed))
    except LayoutError as error:
        climbed.refusals.rungs[rung] = str(error)
    except BpfError as error:
        climbed.refusals.rungs[rung] = in_words(error.errno, error.strerror or str(error))
    return None


def _counts_accepts(climbed: Climbed) -> bool:
    """Whether each process's own accepts are heard: by the rungs that know every connection's wait."""
    rung = climbed.rungs.get("queue_wait")
    return rung is not None and rung.means in ("fentry", "kprobe")


def _open_bcc(
    object_path: Path,
    taken: dict[str, Rung],
    wishes: Mapping[str, Means],
    procfs: ProcFs,
    why_not: _WhyNot,
) -> BpfSource | None:
    """Programs compiled on this host: where the kernel has no BTF, or where they are asked for."""
    offered = [s for s, rungs in LADDERS.items() if s not in taken and any(rung.means == "bcc" for rung in rungs)]
    signals = [s for s in offered if wishes.get(s) == "bcc" or (wishes.get(s) is None and not BTF.exists())]
    if not signals:
        return None
    why = ""
    if not may_use_bpf():
        why = in_words(1, "BPF is not permitted")
    else:
        try:
            types = TypeInformation(object_path.read_bytes())
            library = Libbpf()
            source = BpfSource(library, compile_programs(library, signals), types)
            why = disbelief(source, signals, procfs)
            if not why:
                taken.update((signal, _rung(signal, "bcc")) for signal in signals)
                return source
            source.close()
        except FileNotFoundError:
            why = f"the BPF object {object_path}, which describes the records, is not built; run make -C bpf"
        except (BccError, LayoutError, BpfError) as error:
            why = str(error)
    for signal in signals:
        why_not.refuse(_rung(signal, "bcc"), why)
    return None


def _open_connector(
    taken: dict[str, Rung],
    wishes: Mapping[str, Means],
    procfs: ProcFs,
    bpf: BpfSource | None,
    why_not: _WhyNot,
) -> list[Source]:
    """The process connector, for the lifecycle signals that nothing better serves."""
    kinds = [kind for kind in LIFECYCLE if kind not in taken and wishes.get(kind) in (None, "netlink")]
    if not kinds:
        return []
    try:
        source = ConnectorSource(kinds, procfs, peer=bpf)
    except ConnectorError as error:
        for kind in kinds:
            why_not.refuse(_rung(kind, "netlink"), str(error))
        return []
    taken.update((kind, _rung(kind, "netlink")) for kind in kinds)
    return [source]


def _open_diag(taken: dict[str, Rung], wishes: Mapping[str, Means], why_not: _WhyNot) -> QueueDiag | None:
    """Netlink diag, for the queue signals that nothing better serves."""
    signals = [s for s in ("queue", "queue_overflow") if s not in taken and wishes.get(s) in (None, "diag")]
    if not signals:
        return None
    try:
        diag = QueueDiag()
    except DiagError as error:
        for signal in signals:
            why_not.refuse(_rung(signal, "diag"), str(error))
        return None
    taken.update((signal, _rung(signal, "diag")) for signal in signals)
    return diag


def _rung(signal: str, means: Means) -> Rung:
    return next(rung for rung in LADDERS[signal] if rung.means == means)


def _probe(signal: str, taken: Rung | None, wish: Means | None, why_not: _WhyNot) -> Probe:
    better = LADDERS[signal] if taken is None else LADDERS[signal][: LADDERS[signal].index(taken)]
    reasons = [f"{rung.label}: {why}" for rung in better if (why := why_not.of(rung))]
    if wish is not None:
        reasons.append(f"the settings ask for {signal}={wish}")
    if taken is None:
        return Probe(signal, "off", reason="; ".join([*reasons, WITHOUT[signal]]))
    if taken.blind:
        reasons.append(taken.blind)
    return Probe(signal, taken.state, taken.means, taken.label, "; ".join(reasons), taken.programs)
