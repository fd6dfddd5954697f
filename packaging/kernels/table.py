"""Runs as text for people and as JSON for machines; nothing here knows where they come from."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from results import Outcome, Run, State, Verdict

_MARKS = {
    Outcome.PASSED: "passed",
    Outcome.FAILED: "FAILED",
    Outcome.SKIPPED: "skipped",
    Outcome.CUT_OFF: "CUT OFF",
    Outcome.NOT_RUN: "not run",
}


def report(runs: Sequence[Run]) -> str:
    """Signals and tests against kernels, then the reasons in full, then one line a kernel."""
    parts = [_probe_table(runs), _test_table(runs), *_reasons(runs), *_consoles(runs), _summary(runs)]
    return "\n\n".join(part for part in parts if part)


def as_json(runs: Sequence[Run], exit_code: int) -> dict[str, Any]:
    """The same for machines; docs/kernel-matrix.md describes it."""
    return {"exit_code": exit_code, "kernels": [_run_as_json(run) for run in runs]}


def summary_line(run: Run) -> str:
    """One kernel in one sentence."""
    name = run.release or run.kernel
    if run.state in (State.NOT_HAD, State.NOT_BOOTED):
        return f"{name}: not run: {run.why}"
    counts = ", ".join(f"{run.count(outcome)} {outcome.value}" for outcome in Outcome if run.count(outcome))
    times = f"boot {run.boot_s or 0:.0f} s, tests {run.tests_s:.0f} s, all {run.total_s:.0f} s"
    problem = f"; {run.why}" if run.why else ""
    nothing = "; not one test passed, so nothing is shown" if not run.why and not run.count(Outcome.PASSED) else ""
    return f"{name}: {counts or 'no tests'}; {times}{problem}{nothing}"


def _summary(runs: Sequence[Run]) -> str:
    return "\n".join(summary_line(run) for run in runs)


def _probe_table(runs: Sequence[Run]) -> str:
    booted = [run for run in runs if run.probes]
    signals = list(dict.fromkeys(probe.signal for run in booted for probe in run.probes))
    rows = []
    for signal in signals:
        cells = [next((p for p in run.probes if p.signal == signal), None) for run in booted]
        rows.append([signal, *("-" if cell is None else cell.rung or cell.state for cell in cells)])
    return _columns([["signal", *(run.release for run in booted)], *rows]) if rows else ""


def _test_table(runs: Sequence[Run]) -> str:
    tested = [run for run in runs if run.tests]
    rows = []
    for name in dict.fromkeys(test.name for run in tested for test in run.tests):
        cells = [next((t for t in run.tests if t.name == name), None) for run in tested]
        rows.append([_short(name), *("-" if cell is None else _mark(cell) for cell in cells)])
    return _columns([["test", *(run.release for run in tested)], *rows]) if rows else ""


def _mark(test: Verdict) -> str:
    took = f" {test.seconds:.1f} s" if test.outcome in (Outcome.PASSED, Outcome.FAILED) else ""
    return _MARKS[test.outcome] + took


def _reasons(runs: Sequence[Run]) -> list[str]:
    """Why signals are not heard better, why tests were skipped, and whole texts of failures."""
    parts = []
    for run in runs:
        lines = [f"{probe.signal}: {probe.reason}" for probe in run.probes if probe.reason]
        lines += _skips(run.tests)
        for test in run.tests:
            if test.outcome is Outcome.FAILED:
                lines.append(f"{_short(test.name)}: FAILED\n{textwrap.indent(test.why, '    ')}")
        if lines:
            parts.append(f"--- {run.release} ---\n" + "\n".join(lines))
    return parts


def _skips(tests: Sequence[Verdict]) -> list[str]:
    """Each reason once, with all that were skipped for it."""
    names: dict[str, list[str]] = {}
    for test in tests:
        if test.outcome is Outcome.SKIPPED:
            names.setdefault(test.why, []).append(_short(test.name))
    return [f"skipped: {why}\n" + textwrap.indent("\n".join(skipped), "    ") for why, skipped in names.items()]


def _consoles(runs: Sequence[Run]) -> list[str]:
    """The console's last lines, where something did not come to its end."""
    broken = [run for run in runs if run.why and run.console.strip()]
    return [f"--- {run.release}: last lines of the console ---\n{_last_lines(run.console)}" for run in broken]


def _last_lines(console: str, count: int = 40) -> str:
    return textwrap.indent("\n".join(console.rstrip().splitlines()[-count:]), "    ")


def _short(name: str) -> str:
    return name.removeprefix("tests/kernel/")


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _run_as_json(run: Run) -> dict[str, Any]:
    return {
        "kernel": run.kernel,
        "release": run.release,
        "state": run.state.value,
        "why": run.why,
        "boot_s": run.boot_s,
        "tests_s": round(run.tests_s, 1),
        "total_s": round(run.total_s, 1),
        "tests": [{"test": t.name, "outcome": t.outcome.value, "seconds": t.seconds, "why": t.why} for t in run.tests],
        "probes": [{"signal": p.signal, "state": p.state, "rung": p.rung, "reason": p.reason} for p in run.probes],
        "console": run.console if run.why else "",
    }
