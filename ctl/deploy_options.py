"""The options of `reflexctl app`, `deploy`, `rollback`, `releases`, `logs` and `cancel`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

APP = """\
An app is what is deployed: its repository, its hosts, how it is built, checked, switched to and watched, all in one file
(docs/deploys.md). Secrets are kept encrypted by the server and are never shown again.

  reflexctl app add                              asks what it has to know, and writes reflex.yml
  reflexctl app add reflex.yml                   takes an app on, or its new file
  reflexctl app lint reflex.yml                  what is wrong with it, by line and column
  reflexctl app list                             every app: its hosts, who deploys it now, what holds it
  reflexctl app secret shop SECRET_KEY < file    sets a secret; `repository` is the key or token for git
  reflexctl app hold shop --why 'a sale'         deploys wait until: reflexctl app resume shop
  reflexctl app remove shop                      forgets it; what serves goes on
"""
DEPLOY = """\
Deploys an app: every host builds beside what serves, the first one switches and is watched, the others follow. A release that is
worse than the one before is taken back by itself and its commit is remembered as bad.

  reflexctl deploy shop                          the branch that its file names
  reflexctl deploy shop --ref v2.1 --why 'the fix for invoices'
  reflexctl deploy shop --host web-3             one host only
  reflexctl deploy shop --no-wait                begin it and go

exit code 0: it is kept, and no host failed; the last line also names hosts that could not be reached, or where nothing runs it.
5: it is not, or not everywhere, and the last line says why. Ctrl-C leaves it going; reflexctl cancel ends it.
"""
ROLLBACK = """\
Goes back to the release before, or to a release that is named, on every host of an app at once.

  reflexctl rollback shop --why 'orders fail'
  reflexctl rollback shop --to 20261124T020304-1a2b3c4     by the name that one of its hosts has for it, or
  reflexctl rollback shop --to 1a2b3c4                     by its commit
"""
RELEASES = """\
Shows what was deployed, latest first: who, when, why, how it ended, and each host.

  reflexctl releases shop
  reflexctl releases --json | jq '.deploys[0].parts'
"""
LOGS = """\
Shows what hosts said while they worked on a deploy: builds, checks, each step.

  reflexctl logs 3f9a2b1c                        the last digits of the deploy, as `releases` shows them
  reflexctl logs -f                              the latest deploy, until it is over
"""
CANCEL = """\
Ends a deploy: what is built is dropped, a host that has switched goes back.

  reflexctl cancel 3f9a2b1c
"""

Add = Callable[[str, str, str], argparse.ArgumentParser]


def add_deploy_commands(add: Add, common: Callable[[argparse.ArgumentParser], None]) -> None:
    """All of them; `add` makes a command, `common` gives it the options that all have."""
    _app(add("app", "what is deployed: take it on, its secrets, holds", APP), common)
    deploy = add("deploy", "deploy an app, and see it through", DEPLOY)
    deploy.add_argument("app", metavar="APP")
    deploy.add_argument("--ref", help="a branch, a tag or a commit, instead of the one that the app's file names")
    deploy.add_argument("--why", help="a reason, which everybody reads who meets the lock or the timeline")
    deploy.add_argument("--force", action="store_true", help="also a commit that is remembered as bad")
    rollback = add("rollback", "go back to a release", ROLLBACK)
    rollback.add_argument("app", metavar="APP")
    rollback.add_argument(
        "--to", metavar="RELEASE", help="this release, or the one of this commit, instead of the one before"
    )
    rollback.add_argument("--why", help="a reason")
    for one in (deploy, rollback):
        one.add_argument("--host", action="append", default=[], help="this host only; may be repeated")
        one.add_argument("--no-wait", action="store_true", help="begin it and do not wait for its end")
        common(one)
    releases = add("releases", "what was deployed, and how it ended", RELEASES)
    releases.add_argument("app", metavar="APP", nargs="?")
    common(releases)
    logs = add("logs", "what hosts said while they worked on a deploy", LOGS)
    logs.add_argument("deploy", metavar="DEPLOY", nargs="?", help="its id or its last digits; the latest without")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the deploy is over")
    common(logs)
    cancel = add("cancel", "end a deploy", CANCEL)
    cancel.add_argument("deploy", metavar="DEPLOY", help="its id or its last digits")
    common(cancel)


def _app(parser: argparse.ArgumentParser, common: Callable[[argparse.ArgumentParser], None]) -> None:
    commands = parser.add_subparsers(dest="app_command", required=True, metavar="command")

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        common(made)
        return made

    added = add("add", "take an app on, or its new file; without a file it asks")
    added.add_argument("file", metavar="FILE", nargs="?", type=Path)
    add("list", "every app")
    add("show", "one app with its file").add_argument("app", metavar="APP")
    add("lint", "what is wrong with a file, by line and column").add_argument("file", metavar="FILE", type=Path)
    add("remove", "forget an app and its secrets").add_argument("app", metavar="APP")
    secret = add("secret", "set a secret, read from standard input or asked for without showing it")
    secret.add_argument("app", metavar="APP")
    secret.add_argument("name", metavar="NAME", help="a variable's name; `repository` and `WEBHOOK` have a meaning")
    secret.add_argument("--unset", action="store_true", help="forget it")
    hold = add("hold", "let deploys of an app wait")
    hold.add_argument("app", metavar="APP")
    hold.add_argument("--why", default="", help="a reason")
    hold.add_argument("--for", dest="for_s", type=float, default=0.0, metavar="S", help="for so many seconds")
    add("resume", "let deploys of an app go on").add_argument("app", metavar="APP")
