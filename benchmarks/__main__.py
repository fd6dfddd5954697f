"""`./reflex bench NAME [--json]`: runs one measurement on real programs."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import sys
from typing import Any

import aiohttp

from benchmarks.options import PAIRS, ROUNDS, WORKERS, Options
from benchmarks.report import show
from demo.stage import EXIT_STOPPED, StageError, until_told

BENCHMARKS = ("deploy", "footprint", "identify", "latency", "overhead", "reflex-time", "shadow-week")


def main() -> int:
    """Exit codes: 0 measured, 2 usage, 3 the stage did not come up."""
    listing = "\n".join(f"  {name:11} {_benchmark(name).TITLE}" for name in BENCHMARKS)
    parser = argparse.ArgumentParser(
        prog="reflex bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Measures what Reflex does and costs, on real programs.",
        epilog=f"Benchmarks:\n{listing}\n\nExample:\n  sudo ./reflex bench latency --json",
    )
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="measure briefly; for trying the measurement itself")
    parser.add_argument(
        "--workers", type=int, default=WORKERS, metavar="N", help="footprint: how many processes are watched"
    )
    parser.add_argument(
        "--pairs", type=int, default=PAIRS, metavar="N", help="overhead: how many pairs of rounds, off and on"
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, metavar="N", help="deploy: how many rounds each way of deploying plays"
    )
    options = parser.parse_args()
    if options.workers < 1 or options.pairs < 2 or options.rounds < 1:
        parser.error(
            f"needs 1 worker, 2 pairs and 1 round or more, not {options.workers}, {options.pairs} and {options.rounds}"
        )
    if os.geteuid() != 0:
        print(f"Benchmarks need root: they load BPF programs. Run: sudo ./reflex bench {options.name}", file=sys.stderr)
        return 3
    benchmark = _benchmark(options.name)
    chosen = Options(quick=options.quick, workers=options.workers, pairs=options.pairs, rounds=options.rounds)
    try:
        result = asyncio.run(until_told(benchmark.measure(chosen)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_STOPPED
    except (StageError, OSError, aiohttp.ClientError) as error:
        print(f"Not measured: {str(error) or type(error).__name__}", file=sys.stderr)
        return 3
    show(benchmark.TITLE, result, as_json=options.json)
    return 0


def _benchmark(name: str) -> Any:
    return importlib.import_module(f"benchmarks.{name.replace('-', '_')}")


if __name__ == "__main__":
    sys.exit(main())
