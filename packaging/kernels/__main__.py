"""`./reflex test --kernels`: the kernel tests on other kernels, each in a VM by software emulation."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from images import newest_of_each_series
from matrix import Limits, run_kernel
from narrator import TerminalNarrator
from results import Run, State
from snapshot import folders_beside, take_snapshot
from table import as_json, report, summary_line
from vm import Work

ROOT = Path(__file__).resolve().parents[2]
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_MISSING, EXIT_STOPPED = 0, 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code, as the epilog of --help explains it."""
    options = _parser().parse_args(argv)
    kernels = options.kernels or newest_of_each_series()
    if not kernels:
        print("reflex: there is no kernel in /boot that could be booted", file=sys.stderr)
        return EXIT_MISSING
    problem = _collect(options.tests, options.k)
    if problem:
        print(problem, file=sys.stderr)
        return EXIT_FAILED
    runs = asyncio.run(_run_all(kernels, options))
    if runs is None:
        return EXIT_STOPPED
    code = exit_code(runs)
    print(json.dumps(as_json(runs, code), indent=2) if options.json else report(runs))
    return code


def exit_code(runs: Sequence[Run]) -> int:
    """1 where a test failed or a kernel did not get through them, else 3 where a kernel is missing, else 0."""
    if any(run.has_failed for run in runs):
        return EXIT_FAILED
    return EXIT_OK if all(run.state is State.RAN for run in runs) else EXIT_MISSING


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reflex",
        usage="./reflex test --kernels[=LIST] [options] [tests ...]",
        description="Boots kernels of /boot in VMs, one after the other, and runs the kernel tests in each.",
        epilog="exit codes: 0 every test passed on every kernel; 1 a test failed, or a kernel did not get through them; "
        "2 wrong usage; 3 a kernel could not be had or did not boot, and what ran passed",
    )
    parser.add_argument(
        "--kernels",
        type=_names,
        metavar="LIST",
        help="versions, as --kernels=6.1,6.12 (default: Debian 12's two there, else each series in /boot)",
    )
    parser.add_argument("--missing", type=_name_and_reason, action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--boot-limit", type=float, default=180, metavar="S", help="seconds for a boot (default 180)")
    parser.add_argument("--limit", type=float, default=3600, metavar="S", help="seconds for a kernel (default 3600)")
    parser.add_argument(
        "--until", type=float, default=float("inf"), metavar="TIME", help="Unix time of the end of it all"
    )
    parser.add_argument("--test-limit", type=float, default=300, metavar="S", help="seconds for a test (default 300)")
    parser.add_argument("-k", metavar="EXPRESSION", help="only tests that fit, as pytest means it")
    parser.add_argument("tests", nargs="*", default=["tests/kernel"], help="files or tests (default tests/kernel)")
    return parser


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name for name in text.split(",") if name))


def _name_and_reason(text: str) -> tuple[str, str]:
    name, _, reason = text.partition("=")
    return name, reason


def _collect(tests: Sequence[str], expression: str | None) -> str:
    """What is wrong with the tests, in pytest's words. Also leaves compiled files behind, which VMs cannot write."""
    folders = ["agent", "demo", "server", "tests/kernel", str(Path(__file__).parent)]
    subprocess.run([sys.executable, "-m", "compileall", "-q", *folders], cwd=ROOT, check=False)
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", *_pytest_arguments(tests, expression)]
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return asked.stdout + asked.stderr if asked.returncode else ""


def _pytest_arguments(tests: Sequence[str], expression: str | None) -> list[str]:
    return [*tests, *(["-k", expression] if expression else [])]


async def _run_all(kernels: Sequence[str], options: argparse.Namespace) -> list[Run] | None:
    """None when SIGINT or SIGTERM came."""
    narrator = TerminalNarrator(sys.stderr)
    limits = Limits(options.boot_limit, options.limit, time.monotonic() + options.until - time.time())
    missing = dict(options.missing)
    with tempfile.TemporaryDirectory(prefix="reflex-kernels-") as folder:
        snapshot = Path(folder, "tree")
        take_snapshot(ROOT, snapshot)
        task = asyncio.ensure_future(_one_by_one(kernels, _work(options, snapshot), limits, narrator, missing))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            narrator.note("stopped; the VM is gone")
            return None


async def _one_by_one(
    kernels: Sequence[str], work: Work, limits: Limits, narrator: TerminalNarrator, missing: dict[str, str]
) -> list[Run]:
    runs = []
    for number, name in enumerate(kernels):
        reason = missing.get(name, "")
        run = await run_kernel(name, work, limits, narrator, missing=reason, kernels_left=len(kernels) - number)
        runs.append(run)
        narrator.note(summary_line(runs[-1]))
    return runs


def _work(options: argparse.Namespace, snapshot: Path) -> Work:
    python = ROOT / ".venv" / "bin" / "python"
    demo_python = Path(os.environ.get("REFLEX_DEMO_PYTHON") or ROOT / ".reflex" / "demo-venv" / "bin" / "python")
    return Work(
        tree=ROOT,
        snapshot=snapshot,
        python=python,
        demo_python=demo_python,
        folders=tuple(folders_beside(ROOT, [python, demo_python])),
        test_limit_s=options.test_limit,
        pytest_arguments=tuple(_pytest_arguments(options.tests, options.k)),
    )


if __name__ == "__main__":
    sys.exit(main())
