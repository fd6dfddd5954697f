"""`reflexd probes`: attaches every probe for a moment and says how each signal is heard, and what it costs."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from agent.kernel.figures import Figures
from agent.kernel.kernel import Kernel
from agent.kernel.ladder import Probe, parse_wishes
from agent.kernel.libbpf import BpfError, run_time_statistics
from agent.kernel.opening import open_kernel
from agent.settings import Settings

READ_EVERY_S = 0.05
_WRAP_CHARS = 110


def look(settings: Settings, *, seconds: float) -> list[dict[str, Any]]:
    """One row a signal. With `seconds`, listens that long with the kernel's run-time statistics switched on."""
    kernel = open_kernel(settings.bpf_object, parse_wishes(settings.rungs))
    try:
        if seconds:
            with _statistics():
                _listen(kernel, seconds)
                figures = kernel.figures()
        else:
            figures = kernel.figures()
        return [row(probe, figures[probe.signal]) for probe in kernel.probes]
    finally:
        kernel.close()


def row(probe: Probe, figures: Figures | None) -> dict[str, Any]:
    """A probe and its figures as docs/api.md describes them."""
    known = {} if figures is None else asdict(figures)
    return {
        "signal": probe.signal,
        "state": probe.state,
        "means": probe.means,
        "rung": probe.rung,
        "reason": probe.reason,
        "records": known.get("records"),
        "lost": known.get("lost"),
        "ns_per_event": known.get("ns_per_event"),
    }


def as_json(rows: list[dict[str, Any]]) -> str:
    """The rows for machines."""
    return json.dumps(rows, indent=2)


def as_table(rows: list[dict[str, Any]]) -> str:
    """The rows for people: one line a signal, and under it why it is not heard better."""
    lines = [f"{'signal':16}{'state':10}{'rung':54}{'records':>9}{'lost':>7}{'ns/event':>10}"]
    for one in rows:
        lines.append(
            f"{one['signal']:16}{one['state']:10}{one['rung'] or '-':54}"
            f"{_cell(one, 'records'):>9}{_cell(one, 'lost'):>7}{_cell(one, 'ns_per_event'):>10}"
        )
        for part in filter(None, one["reason"].split("; ")):
            lines += textwrap.wrap(part, _WRAP_CHARS, initial_indent=" " * 18, subsequent_indent=" " * 20)
    return "\n".join(lines)


def _cell(one: Mapping[str, Any], name: str) -> str:
    return "-" if one[name] is None else f"{one[name]:g}"


def _listen(kernel: Kernel, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        kernel.read()
        time.sleep(READ_EVERY_S)


@contextmanager
def _statistics() -> Iterator[None]:
    """The kernel's statistics for as long as this lasts; where they cannot be had, there are no ns an event."""
    try:
        with run_time_statistics():
            yield
    except BpfError:
        yield
