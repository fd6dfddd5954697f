"""The options of reflexctl, and help that teaches by examples."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from agent.wire import KINDS, SEVERITIES
from ctl.deploy_options import add_deploy_commands
from ctl.playbook_options import PLAYBOOK, add_playbook_commands
from ctl.timespan import read_time

DEFAULT_LIMIT, DEFAULT_LIMIT_FOLLOW, MAX_LIMIT = 100, 20, 100_000
"""Events that one command prints; all are held in memory, because the server begins with the newest."""

ABOUT = """\
reflexctl shows what reflex-server knows of your hosts: what happened, why, and how the agents are.

  reflexctl login https://reflex.example       once: which server, and a token for it
  reflexctl timeline --since 1h                what happened
  reflexctl timeline --follow                  what happens
  reflexctl chain 3f9a2b1c                     why it happened, and what came of it
  reflexctl artifact 3f9a2b1c                  what a worker was doing before it was killed
  reflexctl hosts                              is everybody watched, and by which means
  reflexctl deploy shop                        a release: built beside what serves, switched to, watched
"""
EXITS = """\
exit codes: 0 ok, 1 nothing found, or mistakes in a playbook, 2 wrong usage, 3 the server cannot be reached or fails, 4 not allowed (no token, or a
wrong one), 5 something was refused or failed, 130 Ctrl-C. Answers are on stdout, words about the work on stderr.

environment: REFLEX_URL (default http://127.0.0.1:8765), REFLEX_TOKEN and REFLEX_TOKEN_FILE go before what `login` keeps in
~/.config/reflex/ctl.toml. NO_COLOR switches colours off.
"""
TIMELINE = """\
Shows events, oldest first and newest last, like a log. On a terminal lines wrap, in a pipe each event is one line.

  reflexctl timeline                                  the newest 100 events
  reflexctl timeline --since 1h --severity warning    what went wrong in the last hour
  reflexctl timeline --since 2026-11-23T01:00 --until 2026-11-23T02:00    one hour, on your clock
  reflexctl timeline --kind 'worker.*' --service shop-web --host web-3    one service's workers
  reflexctl timeline --search 'out of memory' --since 7d
  reflexctl timeline --follow --severity critical     until Ctrl-C, over restarts of the server
  reflexctl timeline --kind worker.oom_killed --since 30d --limit 5000 --json | jq -r .host | sort | uniq -c
"""
CHAIN = """\
Shows one event with all that brought it about and all that it brought about: the cause above, effects below, each with
the time in between and the evidence for it.

  reflexctl chain 3f9a2b1c                               the last digits, as the timeline shows them
  reflexctl chain 019a1b2c-0000-7000-8000-00003f9a2b1c   the whole id works for events of any age
  reflexctl chain 3f9a2b1c --json | jq '.links[].gap_us'
"""
ARTIFACT = """\
Shows what an event names by its attribute `artifact` because it is too long for it: the snapshot of a worker that came near
to its memory limit or its timeout, with the calls of its threads and what its memory held.

  reflexctl artifact 3f9a2b1c                            the last digits of the event, be it the snapshot or the kill
  reflexctl artifact 3f9a2b1c --json | jq '.content.memory.bytes_by_kind'
"""
HOSTS = """\
Shows each host: whether its agent is heard, what the agent costs, what it lost, how it hears each signal of the kernel and
why not better, and the services with their workers.

  reflexctl hosts
  reflexctl hosts --json | jq -r '.hosts[] | select(.state == "silent") | .name'
"""
ACT = """\
Asks a host for one act, waits for its outcome and prints it. docs/actions.md lists the actions with their parameters. What the
policy of the host does not allow is refused there.

  reflexctl act gunicorn.rotate --service shop-web --dry-run      what it would do
  reflexctl act gunicorn.recycle_worker --service shop-web --worker 0
  reflexctl act gunicorn.scale --service shop-web --param by=2
  reflexctl act celery.cancel_consumer --service shop-tasks --host tasks-1 --param queue=mail

exit code 5: it was refused, or failed; the sentence says why.
"""
LOGIN = """\
Asks for an operator token without showing it, tries it, and keeps address and token in ~/.config/reflex/ctl.toml, which
only you can read. On the server's machine a token is made with: reflex-server operator-token new

  reflexctl login                                        the server on this machine
  reflexctl login https://reflex.example
  reflexctl login --token-file /run/secrets/reflex       for scripts
  ssh reflex.example reflex-server operator-token new | reflexctl login https://reflex.example
"""
LOGOUT = """\
Removes what `login` keeps. The token itself stays valid until `reflex-server operator-token revoke` on the server.

  reflexctl logout
"""


def read_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command and its options; ends the process with 2 and a sentence when they are wrong."""
    parser = _parser()
    options = parser.parse_args(_join_negative_times(argv))
    if options.command == "timeline":
        if options.follow and options.until:
            parser.error("--follow goes on for ever, so it cannot have --until")
        if options.limit is None:
            options.limit = DEFAULT_LIMIT_FOLLOW if options.follow and not options.since else DEFAULT_LIMIT
    return options


def _parser() -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "reflexctl", description=ABOUT, epilog=EXITS, formatter_class=shape, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"reflexctl {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def add(name: str, summary: str, about: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=summary, description=about, epilog=EXITS, formatter_class=shape, allow_abbrev=False
        )

    _timeline_options(add("timeline", "what happened, and with --follow what happens", TIMELINE))
    chain = add("chain", "why something happened, and what came of it", CHAIN)
    chain.add_argument(
        "id", metavar="ID", help="an event's id, or at least 4 of its first or last digits if it is recent"
    )
    _common_options(chain)
    artifact = add("artifact", "what a worker was doing before it was killed", ARTIFACT)
    artifact.add_argument("id", metavar="ID", help="an artifact's id, or that of an event that names one")
    _common_options(artifact)
    _act_options(add("act", "ask a host for one act, and wait for its outcome", ACT))
    add_playbook_commands(
        add("playbook", "repairs by themselves: what there is, what it would do, yes and no", PLAYBOOK), _time
    )
    add_deploy_commands(add, _common_options)
    _common_options(add("hosts", "every host with its agent, probes and services", HOSTS))
    login = add("login", "keep the server's address and a token", LOGIN)
    login.add_argument(
        "url", metavar="URL", nargs="?", help="the server's address (default: REFLEX_URL, else the kept one)"
    )
    login.add_argument("--token-file", type=Path, metavar="FILE", help="read the token from FILE instead of asking")
    _insecure_option(login)
    add("logout", "forget address and token", LOGOUT)
    return parser


def _timeline_options(parser: argparse.ArgumentParser) -> None:
    when = "back from now (15m, 1h, 7d), or a date and time, on your clock unless it has an offset"
    parser.add_argument("--since", type=_time, metavar="TIME", help=f"from this time on: {when}")
    parser.add_argument("--until", type=_time, metavar="TIME", help="before this time")
    families = ", ".join(sorted({f"{kind.partition('.')[0]}.*" for kind in KINDS}))
    parser.add_argument(
        "--kind",
        action="append",
        default=[],
        help=f"a kind (worker.oom_killed) or a family ({families}); may be repeated",
    )
    parser.add_argument("--host", action="append", default=[], help="a host's name; may be repeated")
    parser.add_argument("--service", action="append", default=[], help="a service's name; may be repeated")
    parser.add_argument("--severity", choices=SEVERITIES, help="this one and worse")
    parser.add_argument("--search", metavar="TEXT", help="text that the sentence contains, upper or lower case")
    parser.add_argument(
        "--limit",
        type=_limit,
        metavar="N",
        help=f"at most the N newest (default: {DEFAULT_LIMIT}; {DEFAULT_LIMIT_FOLLOW} with --follow)",
    )
    parser.add_argument("-f", "--follow", action="store_true", help="then print events as they happen, until Ctrl-C")
    _common_options(parser)


def _act_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", metavar="ACTION", help="the action's name, such as gunicorn.recycle_worker")
    parser.add_argument("--service", help="the service that it is about")
    parser.add_argument("--worker", type=int, metavar="SLOT", help="the slot of the worker that it is about")
    parser.add_argument("--host", help="the host, where several run the service")
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--wait", type=float, default=600.0, metavar="S", help="how long to wait for the outcome (600)")
    _common_options(parser)


def _common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="JSON as in docs/api.md; the timeline has one event a line")
    _insecure_option(parser)


def _insecure_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--insecure", action="store_true", help="send the token over plain http to another machine, readable on the way"
    )


def _join_negative_times(argv: Sequence[str]) -> list[str]:
    """`--since -1h` as `--since=-1h`: argparse would take -1h for an option."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1] in ("--since", "--until") and re.match(r"-\d", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _time(text: str) -> str:
    try:
        return read_time(text, zone=None)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_LIMIT):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _version() -> str:
    try:
        return version("reflexd")
    except PackageNotFoundError:
        return "(not installed: run from its sources)"
