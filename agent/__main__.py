"""`reflexd`: watch this host, or say how well it can be watched."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict

from agent import __version__
from agent.settings import Settings, SettingsError, add_arguments, load_settings

EXIT_OK, EXIT_DEGRADED, EXIT_USAGE, EXIT_CANNOT_RUN = 0, 1, 2, 3

_EPILOG = """\
Examples:
  reflexd run --server-url http://127.0.0.1:8765 --host-key-file /etc/reflex/host-key
  reflexd probes            how each kernel signal is heard on this host, and why not better
  reflexd probes --json

Settings come from, each over the one before: defaults, /etc/reflex/reflexd.toml, REFLEXD_* in the
environment, the command line. docs/settings.md lists them.

Exit codes: 0 fine; 1 probes: a signal is not heard as well as it could be; 2 wrong usage or settings;
3 the agent cannot run, the message says why.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; see the epilog of --help for the exit codes."""
    options = _parser().parse_args(argv)
    try:
        settings = load_settings(options)
    except SettingsError as error:
        print(f"reflexd: {error}", file=sys.stderr)
        return EXIT_USAGE
    if options.command == "probes":
        return _probes(settings, as_json=options.json)
    return _run(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reflexd",
        description="The Reflex agent: hears from the kernel what happens to this host's Python workers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"reflexd {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="watch this host until SIGTERM or Ctrl-C")
    probes = commands.add_parser("probes", help="attach every probe once and say how each signal is heard")
    probes.add_argument("--json", action="store_true", help="print JSON")
    for command in (run, probes):
        add_arguments(command)
    return parser


def _run(settings: Settings) -> int:
    from agent.daemon import DaemonError

    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(_watch(settings))
    except DaemonError as error:
        print(f"reflexd: {error}", file=sys.stderr)
        return EXIT_CANNOT_RUN
    return EXIT_OK


async def _watch(settings: Settings) -> None:
    from agent.daemon import Daemon

    await Daemon(settings).run()


def _probes(settings: Settings, *, as_json: bool) -> int:
    from agent.kernel.kernel import open_kernel
    from agent.kernel.ladder import parse_wishes

    kernel = open_kernel(settings.bpf_object, parse_wishes(settings.rungs))
    probes = kernel.probes
    kernel.close()
    if as_json:
        print(json.dumps([asdict(probe) for probe in probes], indent=2))
    else:
        for probe in probes:
            print(f"{probe.signal:11} {probe.state:9} {probe.rung or '-':42} {probe.reason}".rstrip())
    return EXIT_OK if all(probe.state == "attached" for probe in probes) else EXIT_DEGRADED


if __name__ == "__main__":
    sys.exit(main())
