"""The commands that ask the server something, each with the client and the screen that it needs."""

from __future__ import annotations

import argparse

from ctl.access import find_access
from ctl.act import act
from ctl.artifact import print_artifact
from ctl.chain import print_chain
from ctl.client import connect
from ctl.deploy import COMMANDS as DEPLOY_COMMANDS
from ctl.deploy import deploy_command
from ctl.follow import Follower
from ctl.hosts import print_hosts
from ctl.playbook import playbook
from ctl.screen import Screen
from ctl.timeline import TimelinePrinter, print_timeline, question_of


async def ask(options: argparse.Namespace, screen: Screen) -> None:
    """Runs any command but `login` and `logout`; raises CtlError."""
    async with connect(find_access(), insecure=options.insecure) as client:
        if options.command == "act":
            await act(client, options)
        elif options.command in DEPLOY_COMMANDS:
            await deploy_command(client, options, screen)
        elif options.command == "playbook":
            await playbook(client, options, screen)
        elif options.command == "chain":
            await print_chain(client, options.id, screen, as_json=options.json)
        elif options.command == "artifact":
            await print_artifact(client, options.id, screen, as_json=options.json)
        elif options.command == "hosts":
            await print_hosts(client, screen, as_json=options.json)
        else:
            question, printer = question_of(options), TimelinePrinter(screen, as_json=options.json)
            if options.follow:
                await Follower(client, question, printer).run()
            else:
                await print_timeline(client, question, printer)
