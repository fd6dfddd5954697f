"""`./reflex bench NAME [--json]`: runs one measurement on real programs."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import sys

import aiohttp

from benchmarks.options import WORKERS, Options
from benchmarks.report import show
from demo.stage import EXIT_STOPPED, StageError, until_told

BENCHMARKS = ("footprint", "latency", "overhead")


def main() -> int:
    """Exit codes: 0 measured, 2 usage, 3 the stage did not come up."""
    listing = "\n".join(f"  {name:10} {importlib.import_module(f'benchmarks.{name}').TITLE}" for name in BENCHMARKS)
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
    options = parser.parse_args()
    if options.workers < 1:
        parser.error(f"--workers must be at least 1, not {options.workers}")
    if os.geteuid() != 0:
        print(f"Benchmarks need root: they load BPF programs. Run: sudo ./reflex bench {options.name}", file=sys.stderr)
        return 3
    benchmark = importlib.import_module(f"benchmarks.{options.name}")
    try:
        result = asyncio.run(until_told(benchmark.measure(Options(quick=options.quick, workers=options.workers))))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_STOPPED
    except (StageError, OSError, aiohttp.ClientError) as error:
        print(f"Not measured: {error}", file=sys.stderr)
        return 3
    show(benchmark.TITLE, result, as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
