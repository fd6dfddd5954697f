"""Runs the tests on one kernel after the other and keeps to the time limits; says what it does as it goes."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from images import find_image
from results import Progress, Run, State, parse_lines
from vm import PROGRESS, Vm, Work, started_vm, vm_command

TICK_S = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: for a boot, for a whole kernel, and the monotonic time at which everything has to be over."""

    boot_s: float
    kernel_s: float
    deadline_s: float

    def of_kernel(self, now_s: float, kernels_left: int) -> float:
        """What a kernel that starts now may take, so that as much is left for each of those behind it."""
        return min(self.kernel_s, (self.deadline_s - now_s) / kernels_left)


class Narrator(Protocol):
    """Hears how it goes."""

    def tell(self, kernel: str, progress: Progress, elapsed_s: float) -> None:
        """Called often, with all that is known of the VM of this kernel."""


class Boot(Protocol):
    """Gives the command that boots an image and writes lines of progress to a file in `results`."""

    def __call__(self, image: Path, results: Path, work: Work, *, limit_s: float) -> list[str]:
        """See vm.vm_command."""


async def run_kernel(
    name: str,
    work: Work,
    limits: Limits,
    narrator: Narrator,
    *,
    missing: str = "",
    kernels_left: int = 1,
    boot: Boot = vm_command,
) -> Run:
    """Boots the kernel of that name and runs the tests in it; `missing` says why there may be no image of it.

    `kernels_left` counts this one and those that share the time with it.
    """
    image = find_image(name)
    if image is None:
        return Run(name, "", State.NOT_HAD, why=missing or f"there is no /boot/vmlinuz-{name}*")
    limit_s = limits.of_kernel(time.monotonic(), kernels_left)
    if limit_s < limits.boot_s:
        return Run(name, image.release, State.NOT_HAD, why=f"only {max(limit_s, 0):.0f} s were left, less than a boot")
    with tempfile.TemporaryDirectory(prefix="reflex-vm-") as folder:
        home, results = _make_folders(Path(folder))
        watch = _Watch(name, image.release, results / PROGRESS, narrator, is_limit_its_own=limit_s == limits.kernel_s)
        async with started_vm(boot(image.path, results, work, limit_s=limit_s), home) as vm:
            why = await watch.until_over(vm, limits.boot_s, limit_s)
        return watch.run(why, vm.console)


def _make_folders(base: Path) -> tuple[Path, Path]:
    """A home for the VM's starter, and the folder that the VM writes to."""
    home, results = base / "home", base / "results"
    home.mkdir()
    results.mkdir()
    return home, results


class _Watch:
    """Follows one VM by its lines of progress."""

    def __init__(self, kernel: str, release: str, lines: Path, narrator: Narrator, *, is_limit_its_own: bool) -> None:
        self._kernel = kernel
        self._release = release
        self._lines = lines
        self._narrator = narrator
        self._is_limit_its_own = is_limit_its_own
        self._is_out_of_time = False
        self._started_s = time.monotonic()
        self._heard = 0
        self.progress = Progress()

    async def until_over(self, vm: Vm, boot_limit_s: float, limit_s: float) -> str:
        """Returns when the VM has ended or a limit is over; the text says what went wrong, and is empty if nothing did."""
        while True:
            over = await vm.ends_within(TICK_S)
            elapsed_s = time.monotonic() - self._started_s
            self._read(elapsed_s)
            self._narrator.tell(self._kernel, self.progress, elapsed_s)
            if over:
                return self._why_it_ended()
            if self.progress.booted_s is None and elapsed_s > boot_limit_s:
                return f"did not come up within {boot_limit_s:g} s; killed"
            if elapsed_s > limit_s:
                self._is_out_of_time = not self._is_limit_its_own
                return f"took longer than {self._of_what(limit_s)}; killed{self._where()}"

    def run(self, why: str, console: str) -> Run:
        """The result."""
        heard = self.progress
        total_s = time.monotonic() - self._started_s
        return Run(
            self._kernel,
            self._release,
            self._state(why),
            why,
            heard.booted_s,
            total_s,
            heard.tests(),
            tuple(heard.probes),
            console,
        )

    def _state(self, why: str) -> State:
        if self.progress.booted_s is None:
            return State.NOT_BOOTED
        if self._is_out_of_time:
            return State.OUT_OF_TIME
        return State.CUT_OFF if why else State.RAN

    def _of_what(self, limit_s: float) -> str:
        return f"{limit_s:.0f} s" if self._is_limit_its_own else f"the {limit_s:.0f} s that were left for it"

    def _read(self, elapsed_s: float) -> None:
        if not self._lines.exists():
            return
        lines = list(parse_lines(self._lines.read_text()))
        for line in lines[self._heard :]:
            self.progress.hear(line, elapsed_s)
        self._heard = len(lines)

    def _why_it_ended(self) -> str:
        if self.progress.booted_s is None:
            return "the VM ended before any program of the tests ran"
        if self.progress.collection_error:
            return f"the tests could not be loaded: {self.progress.collection_error}"
        return "" if self.progress.finished else f"the VM ended in the middle{self._where()}"

    def _where(self) -> str:
        if self.progress.running:
            return f", in {self.progress.running}"
        return "" if self.progress.names else ", before the first test"
