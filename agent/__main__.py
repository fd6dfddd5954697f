"""`reflexd`: watch this host, or say how well it can be watched."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from agent import __version__
from agent.settings import Settings, SettingsError, add_arguments, load_settings

POLICY_FILE = Path("/etc/reflex/policy.toml")
RUNNER_IDLE_S = 60.0
MAX_PROBE_SECONDS = 3600
SHORTEST_PAUSE_S = 0.2
PRIVATE = 0o077
"""Files of the agent are its own; whoever it starts for others sets another mask."""

EXIT_OK, EXIT_DEGRADED, EXIT_USAGE, EXIT_CANNOT_RUN = 0, 1, 2, 3

_EPILOG = """\
Examples:
  reflexd run --server-url http://127.0.0.1:8765 --host-key-file /etc/reflex/host-key
  reflexd probes            how each kernel signal is heard on this host, and why not better
  reflexd probes --seconds 10     with records, losses and ns/event of ten seconds
  reflexd probes --json
  reflexd status            services, workers, queues and the last deaths, asked of the running agent
  reflexd status --watch    the same, live, until Ctrl-C
  reflexd status --json     for scripts; with --watch one document a line

Settings come from, each over the one before: defaults, /etc/reflex/reflexd.toml, REFLEXD_* in the
environment, the command line. docs/settings.md lists them.

Exit codes: 0 fine; 1 probes: a signal is not heard as well as it could be, status: something is wrong, or
--service fits nothing; 2 wrong usage or settings; 3 the agent cannot run, or status: none answers; the
message says why. Ctrl-C ends --watch with 0.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; see the epilog of --help for the exit codes."""
    options = _parser().parse_args(argv)
    if options.command == "runner":
        return _runner(options)
    try:
        settings = load_settings(options)
    except SettingsError as error:
        print(f"reflexd: {error}", file=sys.stderr)
        return EXIT_USAGE
    if options.command == "status":
        return _status(settings, options)
    if options.command == "probes":
        return _probes(settings, as_json=options.json, seconds=options.seconds)
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
    probes.add_argument(
        "--seconds",
        type=_seconds,
        default=0.0,
        metavar="N",
        help="listen for N seconds and say how many records came and what each event cost",
    )
    status = commands.add_parser("status", help="what this host's services look like now, the troubles first")
    status.add_argument("--json", action="store_true", help="print JSON; docs/status.md names the keys")
    status.add_argument("--watch", nargs="?", type=_pause, const=1.0, metavar="N", help="again every N seconds (1)")
    status.add_argument("--service", metavar="NAME", help="only services whose name contains NAME")
    status.add_argument(
        "--look", action="store_true", help="without a running agent: one look of its own at the processes"
    )
    for command in (run, probes, status):
        add_arguments(command)
    runner = commands.add_parser(
        "runner", help="run the builds of releases, each as the user of its app; for the agent"
    )
    runner.add_argument("--policy-file", type=Path, default=POLICY_FILE, metavar="FILE", help="the host's policy")
    runner.add_argument(
        "--socket", type=Path, metavar="PATH", help="where to listen; without it, what systemd hands over"
    )
    runner.add_argument("--until-closed", type=int, metavar="FD", help="end when this descriptor is closed")
    runner.add_argument("--job", action="store_true", help="do the one job that comes on standard input")
    return parser


def _runner(options: argparse.Namespace) -> int:
    from agent.release import runner

    if options.job:
        import socket

        from agent.release.running import do_job

        do_job(socket.socket(fileno=0), options.policy_file)
        return EXIT_OK
    os.umask(PRIVATE)
    try:
        listener = runner.listening(options.socket) if options.socket else runner.handed_over()
    except OSError as error:
        print(f"reflexd: the runner cannot listen on {options.socket}: {error.strerror}", file=sys.stderr)
        return EXIT_CANNOT_RUN
    if listener is None:
        print("reflexd: the runner needs --socket, or a socket of systemd's", file=sys.stderr)
        return EXIT_USAGE
    idle_s = RUNNER_IDLE_S if options.until_closed is None else None
    runner.serve(listener, options.policy_file, until_closed=options.until_closed, idle_s=idle_s)
    return EXIT_OK


def _run(settings: Settings) -> int:
    import asyncio

    from agent.daemon import DaemonError, WrongSetting

    os.umask(PRIVATE)
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(_watch(settings))
    except DaemonError as error:
        print(f"reflexd: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, WrongSetting) else EXIT_CANNOT_RUN
    return EXIT_OK


async def _watch(settings: Settings) -> None:
    from agent.daemon import Daemon
    from agent.privilege import Privileges
    from agent.release.hire import hire

    runner = hire(settings)
    try:
        privileges = Privileges()
        privileges.begin()
        await Daemon(settings, privileges).run()
    finally:
        if runner is not None:
            runner.end()


def _probes(settings: Settings, *, as_json: bool, seconds: float) -> int:
    from agent import probes
    from agent.privilege import Privileges

    Privileges().begin()
    rows = probes.look(settings, seconds=seconds)
    print(probes.as_json(rows) if as_json else probes.as_table(rows))
    return EXIT_OK if all(row["state"] == "attached" for row in rows) else EXIT_DEGRADED


def _status(settings: Settings, options: argparse.Namespace) -> int:
    from agent import status_command

    return status_command.run(settings, options)


def _pause(text: str) -> float:
    seconds = _seconds(text)
    if seconds < SHORTEST_PAUSE_S:
        raise argparse.ArgumentTypeError(f"must be {SHORTEST_PAUSE_S:g} s or more, not {text!r}")
    return seconds


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_PROBE_SECONDS:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 0 to {MAX_PROBE_SECONDS}, not {text!r}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
