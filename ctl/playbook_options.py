"""The options of `reflexctl playbook`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

PLAYBOOK = """\
Playbooks answer what happens with acts, within limits (docs/playbooks.md). Each is off, in shadow mode (it says what it would
do) or armed (it does it). Files of your own lie in the server's folder of playbooks and are read when they change.

  reflexctl playbook list                                  what there is, and in which mode
  reflexctl playbook show gunicorn-leak-surge              its text, limits, and how often it has acted
  reflexctl playbook lint mine.yaml                        what is wrong with it, by line and column
  reflexctl playbook test mine.yaml --since 7d             what it would have done with the last week
  reflexctl playbook arm gunicorn-leak-surge               let it act by itself
  reflexctl playbook shadow gunicorn-leak-surge            let it only say what it would do
  reflexctl playbook run gunicorn-worker-oom --service shop-web
  reflexctl playbook approve RUN                           say yes to a run that waits
  reflexctl playbook stop                                  the kill switch: nothing acts any more
  reflexctl playbook history --since 1d                    what playbooks did
"""
_SINCE = "back from now (15m, 1h, 7d), or a date and time"


def add_playbook_commands(parser: argparse.ArgumentParser, time: Callable[[str], str]) -> None:
    """All commands below `playbook`; `time` reads a time as the timeline's options do."""
    commands = parser.add_subparsers(dest="playbook", required=True, metavar="command")

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        made.add_argument("--json", action="store_true", help="JSON as in docs/api.md")
        made.add_argument("--insecure", action="store_true", help="send the token over plain http to another machine")
        return made

    add("list", "every playbook with its mode, and files that cannot be used")
    add("show", "one playbook: its text, its limits, how often it has acted").add_argument("name", metavar="NAME")
    add("lint", "what is wrong with files, by line and column").add_argument(
        "file", metavar="FILE", nargs="+", type=Path
    )
    test = add("test", "what a playbook would have done with what the timeline has")
    test.add_argument("playbook_or_file", metavar="NAME|FILE.yaml")
    test.add_argument("--since", type=time, metavar="TIME", help=f"from this time on (default: 1d): {_SINCE}")
    test.add_argument("--until", type=time, metavar="TIME", help="before this time")
    test.add_argument("--host", help="of this host only")
    test.add_argument("--service", help="of this service only")
    run = add("run", "begin a run now, whatever its triggers say; its limits hold")
    run.add_argument("name", metavar="NAME")
    run.add_argument("--service", help="the service that it is about")
    run.add_argument("--worker", type=int, metavar="SLOT", help="the slot of the worker that it is about")
    run.add_argument("--host", help="the host, where several run the service")
    add("runs", "the runs under way")
    for name, summary in (("approve", "say yes to a run that waits"), ("reject", "say no to a run that waits")):
        add(name, summary).add_argument("run", metavar="RUN", help="the run's id, as playbook.waiting names it")
    modes = {
        "arm": "let playbooks act by themselves",
        "shadow": "let playbooks only say what they would do",
        "off": "switch playbooks off",
        "reset": "give playbooks the mode that their files say",
    }
    for name, summary in modes.items():
        add(name, summary).add_argument("name", metavar="NAME", nargs="+")
    add("stop", "the kill switch: cancel all runs, and let none begin")
    add("resume", "let playbooks go on")
    history = add("history", "what playbooks did")
    history.add_argument("name", metavar="NAME", nargs="?", help="of this playbook only")
    history.add_argument("--since", type=time, metavar="TIME", help=f"from this time on: {_SINCE}")
    history.add_argument("--service", help="of this service only")
    history.add_argument("--limit", type=int, default=200, metavar="N", help="at most the N newest (200)")
