"""All that the agent hears from the kernel, whatever the means: records to read, filters to steer, and how well it hears."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from agent.kernel.climb import CORE_MEANS
from agent.kernel.diag import QueueDiag
from agent.kernel.figures import Counts, Figures, RunTime, figures_of
from agent.kernel.ladder import Means, Probe
from agent.kernel.queues import Hearing, QueueReading, Queues
from agent.kernel.readings import Moved, Reading, TaskReader
from agent.kernel.records import Record, Role
from agent.kernel.source import BpfSource


class Source(Protocol):
    """One means that delivers records. `fd` becomes readable when some wait."""

    fd: int

    def read(self) -> list[Record]:
        """The records that wait, oldest first, bounded in number."""

    def track(self, pid: int, start_ns: int, role: Role) -> None:
        """Follows a process and, from now on, its children."""

    def untrack(self, pid: int) -> None:
        """Follows the process no more."""

    def counts(self) -> dict[str, Counts]:
        """Records of each kind since the start."""

    def close(self) -> None:
        """Stops listening."""


class Kernel:
    """Every source that could be opened on this host, and the probe of every signal. `open_kernel` makes one."""

    def __init__(
        self,
        probes: Sequence[Probe],
        sources: Sequence[Source],
        bpf: BpfSource | None,
        diag: QueueDiag | None = None,
        tasks: TaskReader | None = None,
        bcc: BpfSource | None = None,
    ) -> None:
        self.probes = tuple(probes)
        self.sources = tuple(sources)
        self.bpf = bpf
        self._compiled: dict[Means, BpfSource | None] = {"bcc": bcc, **dict.fromkeys(CORE_MEANS, bpf)}
        programs = frozenset(program for probe in probes for program in probe.programs)
        always = any(probe.signal == "queue" and probe.means == "diag" for probe in probes)
        hearing = Hearing.by(programs, looks=diag is not None, always_looks=always)
        by_bcc = any(probe.signal == "queue" and probe.means == "bcc" for probe in probes)
        hears_queues = bcc if by_bcc else bpf
        self._queues = Queues(None if hears_queues is None else hears_queues.listeners, diag, hearing)
        self._tasks = tasks

    def probe(self, signal: str) -> Probe:
        """How the signal is heard."""
        return next(probe for probe in self.probes if probe.signal == signal)

    def read(self) -> list[Record]:
        """The records that wait, oldest first."""
        return sorted((record for source in self.sources for record in source.read()), key=lambda record: record.at_ns)

    def track(self, pid: int, start_ns: int, role: Role) -> None:
        """Follows a process and, from now on, its children."""
        for source in self.sources:
            source.track(pid, start_ns, role)

    def untrack(self, pid: int) -> None:
        """Follows the process no more."""
        for source in self.sources:
            source.untrack(pid)

    def renew(self, is_gone: Callable[[int, int], bool]) -> None:
        """To be called every few minutes: forgets processes that `is_gone` (pid, start in ns since boot)."""
        for source in {source for source in self._compiled.values() if source is not None}:
            source.renew(is_gone)

    def watch_listener(self, inode: int, holder_pid: int | None = None) -> None:
        """Follows the queue of this listening socket from now on.

        `holder_pid` has it open, which tells its network namespace; None: it is in the agent's own.
        """
        self._queues.watch(inode, holder_pid)

    def forget_listener(self, inode: int) -> None:
        """Follows it no more."""
        self._queues.forget(inode)

    @property
    def looks_at_queues(self) -> bool:
        """Whether depths are known by looks alone, so that `look_at_queues` between two readings is worth its cost."""
        return self._queues.hearing.always_looks

    def look_at_queues(self, second: int) -> None:
        """One more look within `second` of the boot clock; nothing where programs hear every connection."""
        self._queues.look(second)

    def queues(self, second: int) -> Mapping[int, QueueReading]:
        """What is known of each watched listener's queue, by inode. `second` is the running one of the boot clock."""
        return self._queues.read(second)

    def read_tasks(self) -> list[Reading]:
        """Memory, CPU and waiting of every followed master and worker; none where no iterator can be had.

        Raises BpfError.
        """
        return [] if self._tasks is None else self._tasks.read()

    def read_moved_tasks(self) -> list[Moved]:
        """Those of `read_tasks` of which there is something to tell since this was called before; raises BpfError."""
        return [] if self._tasks is None else self._tasks.read_moved()

    def counts(self) -> dict[str, Counts]:
        """Records of each kind since the start, over all sources; `tracked` counts processes that did not fit."""
        total: dict[str, Counts] = {}
        for source in self.sources:
            for kind, count in source.counts().items():
                before = total.get(kind, Counts(0, 0))
                total[kind] = Counts(before.sent + count.sent, before.lost + count.lost)
        return total

    def figures(self) -> dict[str, Figures]:
        """What each signal has brought so far, and what its programs cost."""
        counts = self.counts()
        return {probe.signal: figures_of(probe, counts, self._run_times(probe)) for probe in self.probes}

    def _run_times(self, probe: Probe) -> Mapping[str, RunTime]:
        source = self._compiled.get(probe.means)
        return {} if source is None else source.run_times(probe.programs)

    def close(self) -> None:
        """Detaches everything."""
        self._queues.close()
        for source in self.sources:
            source.close()
